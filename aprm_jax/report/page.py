"""The report of a run as one self-contained HTML page.

`render` turns `ReportData` into text, `write_report` puts it in place atomically. What
is computed stands here, what is printed in `templates/`; equal data gives equal bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aprm_jax.files import atomic_write
from aprm_jax.report import figures, markup, text
from aprm_jax.report.contents import (
    Cell,
    Column,
    Perturbation,
    ReportData,
    Row,
    Table,
    printed,
)

_SHOWN_PERTURBATIONS = 12  # the rest is folded away
_MAX_PERTURBATIONS = 120
_MAX_SOLUTIONS = 24
_MOST_WITH_WHISKERS = 6  # columns of a table
_UNITS = {"percent": "%", "points": "points"}


def write_report(path: str | os.PathLike[str], data: ReportData) -> None:
    """Writes `report.html`, whole or not at all."""
    atomic_write(path, render(data))


def render(data: ReportData) -> str:
    """The whole page. Sections without data are left out."""
    sections = [
        (key, title, markup.macro("sections.html", key)(**values))
        for key, title, contents in _SECTIONS
        if (values := contents(data)) is not None
    ]
    return markup.document(
        data.title,
        sections,
        subtitle=data.subtitle,
        headline=data.headline or derived_headline(data.main_table),
        facts=data.facts,
    )


def derived_headline(table: Table | None) -> str:
    """Our row against the best other one on the first column, in one sentence.

    Of several of ours the first one is meant: the others lack a part of it.
    """
    table = printed(table) if table else None
    own = [row for row in table.rows if row.own and row.opens] if table else []
    if table is None or not own or not table.columns:
        return ""
    # Under more and more pressure: the most.
    ours = [row for row in own if row.of == own[0].of][-1]
    others = [row for row in table.rows if not row.own and not row.reference]
    mine = [_cell(ours, k) for k in range(len(table.columns))]
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
    led = sum(bool(column.best) for column in table.columns)
    value, other = (
        text.number(v, column.style, unit=True) for v in (mine[0].value, rival_value)
    )
    return (
        f"{ours.name}: {value}{interval} in the column “{column.name}”. The best row "
        f"there that is not ours, “{rival.name}”, has {other}. {ours.name} is ahead of "
        f"all of those in {leads} of {led} columns."
    )


# --- Tables


@dataclasses.dataclass(frozen=True)
class TableView:
    """A table as it is printed: rows by group, each with a cell or None a column."""

    title: str
    corner: str
    note: str
    columns: Sequence[Column]
    wide: bool
    groups: Sequence[tuple[str, Sequence[tuple[Row, Sequence[CellView | None]]]]]
    units: Mapping[str, str] = dataclasses.field(default_factory=lambda: _UNITS)


@dataclasses.dataclass(frozen=True)
class CellView:
    """A cell as it is printed; places of the whisker are percent of its width."""

    value: float
    low: float
    high: float
    shown: str
    best: bool
    limits: str = ""  # without: no whisker
    left: str = ""
    right: str = ""
    middle: str = ""
    zero: str | None = None


def table_view(table: Table) -> TableView:
    """What the macro `table` prints.

    Raises:
      ValueError: a row has not one cell a column.
    """
    for row in table.rows:
        if len(row.cells) != len(table.columns):
            raise ValueError(
                f"table {table.title!r}, row {row.name!r}: {len(row.cells)} cells for "
                f"{len(table.columns)} columns"
            )
    table = printed(table)
    candidates = [row for row in table.rows if not row.reference]
    best = [_best(candidates, k, column) for k, column in enumerate(table.columns)]
    scales = [_scale(table.rows, k, c) for k, c in enumerate(table.columns)]

    def cells(row: Row) -> list[CellView | None]:
        tops = [None] * len(best) if row.reference else best
        views = zip(table.columns, tops, scales, strict=True)
        return [_cell_view(_cell(row, k), *view) for k, view in enumerate(views)]

    return TableView(
        table.title,
        table.corner,
        table.note,
        table.columns,
        # Many columns leave no room for whiskers: the interval stands in numbers.
        wide=len(table.columns) > _MOST_WITH_WHISKERS,
        groups=[
            (group, [(row, cells(row)) for row in rows])
            for group, rows in itertools.groupby(table.rows, lambda row: row.group)
        ],
    )


def _cell_view(
    cell: Cell | None,
    column: Column,
    best: tuple[Row, float] | None,
    scale: tuple[float, float] | None,
) -> CellView | None:
    if cell is None:
        return None
    # Equals share the bold type: compare what is printed.
    shown = text.number(cell.value, column.style)
    is_best = best is not None and shown == text.number(best[1], column.style)
    view = CellView(cell.value, cell.low, cell.high, shown, is_best)
    if scale is None or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return view
    low, high = scale
    left, right, middle, zero = (
        f"{100 * (v - low) / (high - low):.1f}%"
        for v in (cell.low, cell.high, cell.value, 0.0)
    )
    joint = " to " if column.style in ("points", "number") else text.EN_DASH
    return dataclasses.replace(
        view,
        limits=joint.join(text.number(v, column.style) for v in (cell.low, cell.high)),
        left=left,
        right=right,
        middle=middle,
        zero=zero if column.style == "points" else None,
    )


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


# --- Sections: what the macro of that name prints, or None for none


def _results(data: ReportData) -> dict[str, Any] | None:
    if data.main_table is None or not data.main_table.rows:
        return None
    return {"view": table_view(data.main_table)}


def _tables(data: ReportData) -> dict[str, Any] | None:
    views = [table_view(table) for table in data.tables if table.rows]
    return {"views": views} if views else None


def _progression(data: ReportData) -> dict[str, Any] | None:
    drawing = figures.progression(data.progression) if data.progression else ""
    if data.progression is None or not drawing:
        return None
    return {"note": data.progression.note, "drawing": drawing}


def _pressure(data: ReportData) -> dict[str, Any] | None:
    drawn = [figures.line_chart(chart, wide=True) for chart in data.pressure]
    return {"drawings": drawn, "bands": data.bands} if any(drawn) else None


def _curves(data: ReportData) -> dict[str, Any] | None:
    groups = []
    for group, charts in itertools.groupby(data.charts, key=lambda c: c.group):
        drawn = [figures.line_chart(chart) for chart in charts]
        if any(drawn):
            groups.append((group, [drawing for drawing in drawn if drawing]))
    return {"groups": groups} if groups else None


def _perturbations(data: ReportData) -> dict[str, Any] | None:
    if not data.perturbations:
        return None
    ordered = sorted(data.perturbations, key=lambda p: p.iteration)
    ordered = _evenly(ordered, _MAX_PERTURBATIONS)
    return {"some": _evenly(ordered, _SHOWN_PERTURBATIONS), "all": ordered}


def _evenly(rows: Sequence[Perturbation], count: int) -> Sequence[Perturbation]:
    """At most `count` of the rows, first and last included, evenly spaced."""
    if len(rows) <= count:
        return rows
    return [rows[round(k * (len(rows) - 1) / (count - 1))] for k in range(count)]


def _solutions(data: ReportData) -> dict[str, Any] | None:
    if not data.solutions:
        return None
    labelled = all(s.expected is None for s in data.solutions)
    return {"all": data.solutions[:_MAX_SOLUTIONS], "labelled": labelled}


def _trees(data: ReportData) -> dict[str, Any] | None:
    return {"all": data.trees} if data.trees else None


def _time(data: ReportData) -> dict[str, Any] | None:
    timings = [t for t in data.timings if sum(t.phases.values()) > 0]
    if not timings:
        return None
    phases = dict.fromkeys(p for t in timings for p in t.phases)
    jobs = [
        (t.job, sum(t.phases.values()), dict(sorted(t.phases.items(), key=_longest)))
        for t in timings
    ]
    return {
        "jobs": jobs,
        "phases": {p: k % figures.COLOURS for k, p in enumerate(phases)},
        "key": figures.legend(dict(enumerate(phases)), "area"),
        "total": sum(seconds for _, seconds, _ in jobs),
        "longest": max(seconds for _, seconds, _ in jobs),
    }


def _longest(item: tuple[str, float]) -> float:
    return -item[1]


def _numbers(data: ReportData) -> dict[str, Any] | None:
    if not (data.summary or data.config):
        return None
    summary = sorted(data.summary.items())
    # Strict JSON: null where a number is not finite.
    finite = {name: v if math.isfinite(v) else None for name, v in summary}
    encoded = base64.b64encode(json.dumps(finite, indent=1).encode()).decode()
    return {"summary": summary, "encoded": encoded, "config": data.config}


_SECTIONS: tuple[tuple[str, str, Callable[[ReportData], dict[str, Any] | None]], ...]
_SECTIONS = (
    ("results", "Results", _results),
    ("pressure", "Under pressure", _pressure),
    ("progression", "The progression of negatives", _progression),
    ("curves", "Training curves", _curves),
    ("perturbations", "Sampled perturbations", _perturbations),
    ("solutions", "Scored solutions", _solutions),
    ("trees", "Search trees", _trees),
    ("tables", "More tables", _tables),
    ("time", "Where the time went", _time),
    ("numbers", "Numbers and configuration", _numbers),
)
