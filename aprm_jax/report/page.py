"""The report of a run as one self-contained HTML page.

`render` turns `ReportData` into text, `write_report` puts it in place atomically. The
page loads nothing, and its content security policy allows no script but its own.
All text from the data goes through `text.escape`; equal data gives equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import itertools
import json
import math
import os
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from aprm_jax.report import figures, text
from aprm_jax.report.contents import (
    Cell,
    Column,
    Perturbation,
    ReportData,
    Row,
    ScoredStep,
    Solution,
    Table,
    Timing,
)

_SHOWN_PERTURBATIONS = 12  # the rest is folded away
_MAX_PERTURBATIONS = 120
_MAX_SOLUTIONS = 24
_MOST_WITH_WHISKERS = 6  # columns of a table


def write_report(path: str | os.PathLike[str], data: ReportData) -> None:
    """Writes `report.html`, through a temporary file beside it."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(render(data), encoding="utf-8")
    os.replace(partial, path)


def render(data: ReportData) -> str:
    """The whole page. Sections without data are left out."""
    sections: list[tuple[str, str, str]] = [
        (key, title, body) for key, title, build in _SECTIONS if (body := build(data))
    ]
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    headline = data.headline or derived_headline(data.main_table)
    return string.Template(_resource("page.html")).substitute(
        title=text.escape(data.title),
        style=_resource("page.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        subtitle=_paragraph("subtitle", data.subtitle),
        headline=_paragraph("headline", headline),
        facts=_facts(data.facts),
        navigation=_navigation(sections),
        sections="\n".join(
            f'<section id="{key}"><h2>{title}</h2>{body}</section>'
            for key, title, body in sections
        ),
    )


def derived_headline(table: Table | None) -> str:
    """Our row against the best other one on the first column, in one sentence."""
    own = [row for row in table.rows if row.own] if table else []
    if table is None or len(own) != 1 or not table.columns:
        return ""
    others = [row for row in table.rows if not row.own and not row.reference]
    mine = [_cell(own[0], k) for k in range(len(table.columns))]
    rivals = [_best(others, k, column) for k, column in enumerate(table.columns)]
    if mine[0] is None or rivals[0] is None:
        return ""
    column = table.columns[0]
    low, high = (text.number(v, column.style) for v in (mine[0].low, mine[0].high))
    interval = f" ({low} to {high})" if math.isfinite(mine[0].low) else ""
    rival, rival_value = rivals[0]
    leads = sum(
        m is not None and r is not None and _sign(c) * (m.value - r[1]) > 0
        for m, r, c in zip(mine, rivals, table.columns, strict=True)
    )
    value, other = (
        text.number(v, column.style, unit=True) for v in (mine[0].value, rival_value)
    )
    return (
        f"{own[0].name}: {value}{interval} in the column “{column.name}”. The best "
        f"other row there, “{rival.name}”, has {other}. {own[0].name} has the best "
        f"value in {leads} of {len(table.columns)} columns."
    )


def _resource(name: str) -> str:
    files = importlib.resources.files("aprm_jax.report")
    return files.joinpath(name).read_text(encoding="utf-8")


def _paragraph(kind: str, content: str) -> str:
    return f'<p class="{kind}">{text.escape(content)}</p>' if content else ""


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f"<li><span>{text.escape(label)}</span><b>{text.escape(value)}</b></li>"
        for label, value in facts
    )
    return f'<ul class="facts">{items}</ul>' if items else ""


def _navigation(sections: Sequence[tuple[str, str, str]]) -> str:
    links = "".join(
        f'<a href="#{key}">{key.capitalize()}</a>' for key, _, _ in sections
    )
    return f"<nav>{links}</nav>"


# --- Tables


def _main_table(data: ReportData) -> str:
    if data.main_table is None or not data.main_table.rows:
        return ""
    return _lead(data.main_table.title) + _table(data.main_table)


def _more_tables(data: ReportData) -> str:
    return "".join(
        f"<h3>{text.escape(table.title)}</h3>{_table(table)}"
        for table in data.tables
        if table.rows
    )


def _table(table: Table) -> str:
    for row in table.rows:
        if len(row.cells) != len(table.columns):
            raise ValueError(
                f"table {table.title!r}, row {row.name!r}: {len(row.cells)} cells for "
                f"{len(table.columns)} columns"
            )
    heads = "".join(
        f'<th scope="col" data-sort="{"up" if c.best == "min" else "down"}" '
        f'style="width:{72 / len(table.columns):.1f}%">'
        f"{text.escape(c.name)}{_unit(c)}</th>"
        for c in table.columns
    )
    candidates = [row for row in table.rows if not row.reference]
    best = [_best(candidates, k, column) for k, column in enumerate(table.columns)]
    scales = [_scale(table.rows, k, c) for k, c in enumerate(table.columns)]
    body = []
    for group, rows in itertools.groupby(table.rows, key=lambda row: row.group):
        if group:
            span = len(table.columns) + 1
            head = f'<th colspan="{span}" scope="rowgroup">{text.escape(group)}</th>'
            body.append(f'<tr class="group">{head}</tr>')
        for row in rows:
            body.append(_row(row, table.columns, best, scales))
    note = _paragraph("note", table.note)
    # Many columns leave no room for whiskers: the interval stands in numbers.
    kind = "results wide" if len(table.columns) > _MOST_WITH_WHISKERS else "results"
    return (
        f'<div class="card scroll" tabindex="0"><table class="{kind}" '
        f'data-name="{text.escape(table.title)}"><thead><tr>'
        f'<th scope="col">{text.escape(table.corner)}</th>{heads}</tr></thead><tbody>'
        f"{''.join(body)}</tbody></table></div>{note}"
    )


def _row(
    row: Row,
    columns: Sequence[Column],
    best: Sequence[tuple[Row, float] | None],
    scales: Sequence[tuple[float, float] | None],
) -> str:
    cells = []
    for k, column in enumerate(columns):
        cell, top = _cell(row, k), best[k]
        if cell is None:
            cells.append(f'<td data-value="">{text.EN_DASH}</td>')
            continue
        # Equals share the bold type: compare what is printed.
        shown = text.number(cell.value, column.style)
        is_best = (
            top is not None
            and not row.reference
            and shown == text.number(top[1], column.style)
        )
        mark = ' class="best"' if is_best else ""
        cells.append(
            f'<td{mark} data-value="{cell.value:.6g}" data-low="{cell.low:.6g}" '
            f'data-high="{cell.high:.6g}"><span class="value">{shown}</span>'
            f"{_interval(cell, column, scales[k])}</td>"
        )
    kinds = " ".join(k for k in ("own", "reference") if getattr(row, k))
    note = f"<small>{text.escape(row.note)}</small>" if row.note else ""
    mark = f' class="{kinds}"' if kinds else ""
    name = f'<th scope="row">{text.escape(row.name)}{note}</th>'
    return f"<tr{mark}>{name}{''.join(cells)}</tr>"


def _interval(cell: Cell, column: Column, scale: tuple[float, float] | None) -> str:
    if scale is None or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return ""
    low, high = scale
    left, right, middle = (
        f"{100 * (v - low) / (high - low):.1f}%"
        for v in (cell.low, cell.high, cell.value)
    )
    zero = ""
    if column.style == "points":
        zero = f'<u style="left:{100 * (0 - low) / (high - low):.1f}%"></u>'
    joint = " to " if column.style in ("points", "number") else text.EN_DASH
    limits = joint.join(text.number(v, column.style) for v in (cell.low, cell.high))
    return (
        f'<span class="interval">{limits}</span>'
        f'<span class="whisker" aria-hidden="true">{zero}'
        f'<i style="left:{left};right:calc(100% - {right})"></i>'
        f'<b style="left:{middle}"></b></span>'
    )


def _unit(column: Column) -> str:
    unit = {"percent": "%", "points": "points"}.get(column.style, "")
    return f"<small>{unit}</small>" if unit else ""


def _cell(row: Row, index: int) -> Cell | None:
    cell = row.cells[index]
    if cell is None or isinstance(cell, Cell):
        return cell if cell is not None and not math.isnan(cell.value) else None
    return None if math.isnan(cell) else Cell(float(cell))


def _sign(column: Column) -> int:
    return -1 if column.best == "min" else 1


def _best(rows: Iterable[Row], index: int, column: Column) -> tuple[Row, float] | None:
    if not column.best:
        return None
    found = [(row, c.value) for row in rows if (c := _cell(row, index)) is not None]
    return max(found, key=lambda pair: _sign(column) * pair[1]) if found else None


def _scale(
    rows: Iterable[Row], index: int, column: Column
) -> tuple[float, float] | None:
    """The range that a column's whiskers share."""
    cells = [c for row in rows if (c := _cell(row, index)) is not None]
    ends = [v for c in cells for v in (c.low, c.high, c.value) if math.isfinite(v)]
    with_interval = any(math.isfinite(c.low) for c in cells)
    if not with_interval or max(ends) <= min(ends):
        return None
    if column.style == "points":
        ends.append(0.0)  # a difference is read against zero
    return min(ends), max(ends)


# --- Curves and samples


def _progression(data: ReportData) -> str:
    if data.progression is None:
        return ""
    body = figures.progression(data.progression)
    default = (
        "What G makes against what R can judge. A kind that R judges badly should "
        "grow; once R has learned it, it should shrink again."
    )
    return body and _lead(data.progression.note or default) + body


def _curves(data: ReportData) -> str:
    parts = []
    for group, charts in itertools.groupby(data.charts, key=lambda c: c.group):
        drawn = "".join(figures.line_chart(chart) for chart in charts)
        if drawn:
            parts.append(f"<h3>{text.escape(group)}</h3>" if group else "")
            parts.append(f'<div class="charts">{drawn}</div>')
    if not parts:
        return ""
    lead = "Pale lines are single iterations, strong ones a centred moving mean."
    return _lead(lead) + "".join(parts)


def _perturbations(data: ReportData) -> str:
    if not data.perturbations:
        return ""
    ordered = sorted(data.perturbations, key=lambda p: p.iteration)
    ordered = _evenly(ordered, _MAX_PERTURBATIONS)
    shown = _evenly(ordered, _SHOWN_PERTURBATIONS)
    lead = (
        f"A correct step ({text.MINUS}) and what G made of it (+), in the order of "
        "training. R scores the perturbed step: the probability that it is correct."
    )
    body = _lead(lead) + _samples(shown)
    if len(ordered) > len(shown):
        body += _folded(f"All {len(ordered)} samples", _samples(ordered))
    return body


def _samples(rows: Sequence[Perturbation]) -> str:
    heads = "".join(
        f'<th scope="col">{h}</th>'
        for h in ("Iteration", "Question, line before", "Step", "Kind", "Score by R")
    )
    body = "".join(_perturbation(p) for p in rows)
    return (
        '<div class="card scroll"><table class="samples"><thead><tr>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _perturbation(sample: Perturbation) -> str:
    before, after = text.diff(sample.original, sample.perturbed)
    context = f'<code class="context">{text.escape(sample.question)}</code>'
    if sample.previous and sample.previous != sample.question:
        context += f"<code>{text.escape(sample.previous)}</code>"
    if sample.incorrect is None:
        verdict = '<span class="badge">undecidable</span>'
    elif not sample.incorrect:
        verdict = '<span class="badge">still correct</span>'
    elif sample.score >= 0.5:
        verdict = '<span class="badge fooled">R fooled</span>'
    else:
        verdict = '<span class="badge">caught</span>'
    return (
        f"<tr><td>{text.number(sample.iteration, 'count')}</td><td>{context}</td>"
        f'<td><code class="before">{before}</code><code class="after">{after}</code>'
        f'</td><td class="kind">{text.escape(sample.kind)}</td>'
        f"<td>{_score(sample.score)} {verdict}</td></tr>"
    )


def _solutions(data: ReportData) -> str:
    if not data.solutions:
        return ""
    ramp = "".join(f'<i class="s{k}"></i>' for k in range(7))
    labelled = all(s.expected is None for s in data.solutions)
    judge = "the label of the step" if labelled else "the verdict of the oracle"
    lead = (
        '<p class="lead">Each step is coloured by its score, the probability that it '
        f'is correct: 0 <span class="ramp">{ramp}</span> 1. The mark is {judge}.</p>'
    )
    cards = [_solution(s) for s in data.solutions[:_MAX_SOLUTIONS]]
    body = f'<div class="solutions">{"".join(cards[:6])}</div>'
    if len(cards) > 6:
        rest = f'<div class="solutions" style="padding:12px">{"".join(cards[6:])}</div>'
        body += _folded(f"{len(cards) - 6} more", rest)
    return lead + body


def _solution(solution: Solution) -> str:
    steps = "".join(_step(step) for step in solution.steps)
    given = "no answer" if solution.answer is None else solution.answer
    if solution.expected is None:
        given = "no step is wrong" if solution.correct else "a step is wrong"
    if solution.correct:
        answer = f'<span class="right">✓ {text.escape(given)}</span>'
    else:
        answer = f'<span class="wrong">✗ {text.escape(given)}</span>'
        if solution.expected is not None:
            answer += f", not {text.escape(solution.expected)}"
    head = f"<span>{text.escape(solution.split)}</span>"
    head += f"<span>{text.escape(solution.method)}</span>" if solution.method else ""
    return (
        f'<article class="card solution"><h4>{head}</h4><div class="question"><code>'
        f"{text.escape(solution.question)}</code></div><ol>{steps}</ol>"
        f'<p class="answer">{answer}</p></article>'
    )


def _step(step: ScoredStep) -> str:
    mark = ""
    if step.correct is not None:
        kind = f"{text.escape(step.kind)} " if step.kind and not step.correct else ""
        colour, sign, word = (
            ("right", "✓", "correct") if step.correct else ("wrong", "✗", "incorrect")
        )
        sign = f'<span class="{colour}" title="{word}">{sign}</span>'
        mark = f"<small>{kind}{sign}</small>"
    return (
        f'<li class="{_tint(step.score)}"><code>{text.escape(step.text)}</code>{mark}'
        f"<b>{_score_text(step.score)}</b></li>"
    )


def _score(score: float) -> str:
    return f'<span class="score {_tint(score)}">{_score_text(score)}</span>'


def _score_text(score: float) -> str:
    return text.EN_DASH if math.isnan(score) else f"{score:.2f}"


def _tint(score: float) -> str:
    return "s3" if math.isnan(score) else f"s{min(6, max(0, int(score * 7)))}"


# --- Time, numbers, config


def _time(data: ReportData) -> str:
    timings = [t for t in data.timings if sum(t.phases.values()) > 0]
    if not timings:
        return ""
    phases = list(dict.fromkeys(p for t in timings for p in t.phases))
    longest = max(sum(t.phases.values()) for t in timings)
    total = sum(sum(t.phases.values()) for t in timings)
    jobs = "".join(_job(t, phases, longest) for t in timings)
    rows = "".join(
        f"<tr><td>{text.escape(t.job)}</td><td>{text.escape(p)}</td>"
        f"<td>{text.duration(s)}</td><td>{text.number(s / total, 'percent')}</td></tr>"
        for t in timings
        for p, s in sorted(t.phases.items(), key=lambda item: -item[1])
    )
    table = (
        '<div class="scroll"><table class="timetable"><thead><tr><th>Job</th>'
        "<th>Phase</th><th>Time</th><th>Share<small>% of all</small></th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
    key = figures.legend(dict(enumerate(phases)), "area")
    return (
        _lead(f"{text.duration(total)} in all.")
        + f'<div class="card jobs">{key}{jobs}</div>'
        + _folded("The same as a table", table)
    )


def _job(timing: Timing, phases: Sequence[str], longest: float) -> str:
    total = sum(timing.phases.values())
    bars = "".join(
        f'<i class="c{k % figures.COLOURS}" style="flex:{timing.phases[p]:.6g} 0 0" '
        f'title="{text.escape(p)}: {text.duration(timing.phases[p])}"></i>'
        for k, p in enumerate(phases)
        if timing.phases.get(p, 0) > 0
    )
    return (
        f'<div class="job"><div><b>{text.escape(timing.job)}</b>'
        f"<span>{text.duration(total)}</span></div>"
        f'<div class="bar" style="width:{100 * total / longest:.2f}%">{bars}</div>'
        "</div>"
    )


def _numbers(data: ReportData) -> str:
    body = ""
    if data.summary:
        rows = "".join(
            f"<div><span>{text.escape(name)}</span><b>{text.number(value)}</b></div>"
            for name, value in sorted(data.summary.items())
        )
        count = text.number(len(data.summary), "count")
        body += _folded(
            f"All {count} numbers of summary.json", f'<div class="numbers">{rows}</div>'
        )
        body += _download("summary.json", "application/json", _as_json(data.summary))
    if data.config:
        config = text.escape(data.config, limit=None)
        body += _folded("Configuration", f"<pre>{config}</pre>")
    return body


def _download(name: str, kind: str, content: str) -> str:
    """A link that saves `content` as a file; it works without any script."""
    encoded = base64.b64encode(content.encode()).decode()
    return (
        f'<p class="download"><a download="{name}" '
        f'href="data:{kind};base64,{encoded}">Download {name}</a></p>'
    )


def _as_json(numbers: Mapping[str, float]) -> str:
    """Numbers as strict JSON: null where one is not finite."""
    finite = {k: v if math.isfinite(v) else None for k, v in sorted(numbers.items())}
    return json.dumps(finite, indent=1)


def _lead(content: str) -> str:
    return _paragraph("lead", content)


def _folded(title: str, body: str) -> str:
    return (
        f"<details><summary>{text.escape(title)}</summary>"
        f'<div class="inside">{body}</div></details>'
    )


def _evenly(rows: Sequence[Perturbation], count: int) -> Sequence[Perturbation]:
    """At most `count` of the rows, first and last included, evenly spaced."""
    if len(rows) <= count:
        return rows
    return [rows[round(k * (len(rows) - 1) / (count - 1))] for k in range(count)]


_SECTIONS: tuple[tuple[str, str, Callable[[ReportData], str]], ...] = (
    ("results", "Results", _main_table),
    ("progression", "The progression of negatives", _progression),
    ("curves", "Training curves", _curves),
    ("perturbations", "Sampled perturbations", _perturbations),
    ("solutions", "Scored solutions", _solutions),
    ("tables", "More tables", _more_tables),
    ("time", "Where the time went", _time),
    ("numbers", "Numbers and configuration", _numbers),
)
