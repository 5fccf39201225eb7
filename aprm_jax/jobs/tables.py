"""The tables of a run, from its records: methods by split, and what explains them."""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from aprm_jax.config import Config, for_stage
from aprm_jax.evals import outcome, pressure, robustness, selection, step_labels
from aprm_jax.evals.records import Record, Results
from aprm_jax.files import damaged
from aprm_jax.jobs import set_tables
from aprm_jax.jobs.step_data import DEV
from aprm_jax.jobs.verifier_tables import (
    MAIN_AGGREGATION,
    NO_TRAINING,
    OWN,
    UPPER_BOUND,
    Figure,
    Verifier,
    by_verifier,
    cell,
    over,
    shown_aggregation,
    verifiers,
)
from aprm_jax.report.contents import Cell, Column, Row, Table, printed


def main_table(config: Config, results: Results, seeds: int = 1) -> Table:
    """What a run is about: solver accuracy of every method on every split.

    Without splits there is no solver, and the sets are what is left to compare. The
    intervals of several seeds are over them.
    """
    if config.domain.name == "labelled" or not config.evaluate.splits:
        return set_tables.overview(config, results, seeds)
    columns = [(Column(split), split, "") for split in config.evaluate.splits]
    columns += [
        (Column(f"{split}, {solver}"), split, solver)
        for solver in config.evaluate.solvers
        for split in config.evaluate.solver_splits
    ]
    rows = [
        (("", "sample"), "one sample", NO_TRAINING, "", False),
        (("", "greedy"), "greedy", NO_TRAINING, "", False),
    ]
    sizes = _shown_sizes(config)
    rows += [
        (("", f"majority@{n}"), f"majority of {n}", NO_TRAINING, "", False)
        for n in sizes
    ]
    for v in verifiers(config):
        for n in sizes:
            method, note = (v.key, f"{v.aggregation}@{n}"), f"best of {n}, {v.key}"
            name = v.name if n == sizes[0] else f"{v.name}, best of {n}"
            rows.append((method, name, v.group, note, v.own))
        method = (v.key, f"{selection.VOTE}{v.aggregation}@{sizes[-1]}")
        voted = (results.find(selection.SET, split, *method) for _, split, _ in columns)
        if any(voted):
            name = f"majority of {sizes[-1]}, weighted by {v.name}"
            rows.append((method, name, v.group, f"weighted by {v.key}", v.own))
    rows += [
        (("", f"pass@{n}"), f"any of {n} is right", UPPER_BOUND, "", False)
        for n in sizes
    ]
    found = (
        ""
        if not config.evaluate.solvers
        else (" The last columns are of other solvers, that no PRM was trained with.")
    )
    return Table(
        title=f"Share of {_problems(config, results)} problems a split that are "
        f"solved, with 95 % intervals over {over('problems', seeds)}. Best-of-n takes "
        f"the sample whose {_chosen_by(config)} is highest; n is {sizes[0]} where "
        f"nothing else is said.{found}",
        corner="The answer is chosen by",
        columns=[column for column, *_ in columns],
        rows=[
            Row(
                name,
                [
                    cell(results.find(selection.SET, split, *method, solver))
                    for _, split, solver in columns
                ],
                group=group,
                own=own,
                reference=group == UPPER_BOUND,
                note=note,
                opens=not method[1].startswith(selection.VOTE),
                of=method[0],
            )
            for method, name, group, note, own in rows
        ],
    )


def _chosen_by(config: Config) -> str:
    """What of a sample's step scores is compared."""
    if MAIN_AGGREGATION in config.evaluate.aggregations:
        return "least step score (of an ORM, the last)"
    how = shown_aggregation(MAIN_AGGREGATION, config.evaluate.aggregations)
    return f"score, the {how} of its steps' (of an ORM, the last),"


def _shown_sizes(config: Config) -> tuple[int, ...]:
    """The least and the largest N of best-of-N: what little and much pressure do."""
    sizes = config.evaluate.samples
    return tuple(sizes) if len(sizes) == 1 else (sizes[0], sizes[-1])


def _problems(config: Config, results: Results) -> str:
    """How many problems the splits have: fewer than asked for, where data are few."""
    records = [
        results.find(selection.SET, split, "", "problems")
        for split in config.evaluate.splits
    ]
    counts = [r.value if r else config.evaluate.problems for r in records]
    return " to ".join(f"{n:.0f}" for n in sorted({min(counts), max(counts)}))


def as_measured(config: Config, evaluation: str) -> Config:
    """The config whose tables show what a stage measured, its overrides with it.

    Args:
      config: of the run.
      evaluation: the stage.
    """
    own = for_stage(config, evaluation)
    return dataclasses.replace(config, evaluate=own.evaluate, domain=own.domain)


def differences(config: Config, evaluation: Path, parts: Sequence[str]) -> list[Record]:
    """APRM minus every other method, problem by problem, in the splits of `parts`.

    Each is read by the aggregation that the main table shows it by. Of several APRM the
    first has the records without a part, each other its name as their part.
    """
    records: list[Record] = []
    for split in config.evaluate.splits:
        path = evaluation / "per_problem" / f"{split}.npz"
        if not _own(config) or split not in parts or not path.exists():
            continue
        rows = _arrays(path)
        for own, part in _own(config):
            records += _lead(config, split, own, part, rows)
    return records


def _own(config: Config) -> list[tuple[Verifier, str]]:
    """Every APRM, and the part of the records of its lead."""
    own = [v for v in verifiers(config) if v.own]
    return [(v, v.key if k else "") for k, v in enumerate(own)]


def _lead(
    config: Config,
    split: str,
    own: Verifier,
    part: str,
    rows: Mapping[str, np.ndarray],
) -> list[Record]:
    """One APRM minus the others, as far as they were measured."""
    records: list[Record] = []
    for n in _shown_sizes(config):
        others = [("", f"majority@{n}")]
        others += [
            (v.key, f"{v.aggregation}@{n}") for v in verifiers(config) if not v.own
        ]
        if n == config.evaluate.samples[0]:  # it draws one sample, at any n
            others.append(("", "greedy"))
        measured = {
            other: rows[name]
            for other in others
            if (name := selection.label(other)) in rows
        }
        mine = rows.get(selection.label((own.key, f"{own.aggregation}@{n}")))
        if mine is not None:
            resamples = config.evaluate.bootstrap
            records += selection.difference_records(
                split, mine, measured, resamples, part
            )
    return records


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The figures of each problem; no pickle is read, which could run code."""
    try:
        with np.load(path, allow_pickle=False) as rows:
            return dict(rows)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        part = path.parents[1] / "parts" / f"{path.stem}.json"
        remedy = f"Delete it and its part (rm {path} {part}), and evaluate again."
        raise damaged(path, f"cannot be read ({error})", remedy) from None


def more_tables(
    config: Config,
    results: Results,
    written: Mapping[str, float],
    seeds: int = 1,
) -> list[Table]:
    """Everything that stands behind the main table; empty tables are left out.

    Args:
      config: of the run.
      results: its records.
      written: share of each kind among the wrong replies of the Generator that learns,
        over the whole game; empty where there is none.
      seeds: of the runs that the records are means of.
    """
    solved = config.evaluate.splits if config.domain.name != "labelled" else ()
    tables = [
        *(_differences(config, results, seeds, *own) for own in _own(config) if solved),
        *([_other_sizes(config, results)] if solved else []),
        *([_pressure(config, results)] if solved else []),
        *(_winners(config, results, written, split) for split in solved),
        *([_aggregations(config, results)] if solved else []),
        *([_steps(config, results)] if solved else []),
        *(_kinds(config, results, split) for split in solved),
        _attacks(config, results),
        _outcome(config, results),
        *(
            set_tables.set_table(config, results, name)
            for name in set_tables.set_names(config)
        ),
        set_tables.first_error_means(config, results),
    ]
    return [table for table in tables if any(any(row.cells) for row in table.rows)]


def as_text(table: Table) -> str:
    """A table for the console: fractions in percent, intervals in brackets."""
    table = printed(table)
    head = [table.corner, *(column.name for column in table.columns)]
    styles = [column.style for column in table.columns]
    body = [
        [row.name, *(_text(*pair) for pair in zip(row.cells, styles, strict=True))]
        for row in table.rows
    ]
    widths = [max(len(line[k]) for line in [head, *body]) for k in range(len(head))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in [head, *body]
    ]
    return "\n".join([lines[0], "-" * sum([*widths, 2 * len(widths) - 2]), *lines[1:]])


def _text(value: Cell | float | None, style: str) -> str:
    if not isinstance(value, Cell):
        return "-"
    if style == "count":  # of several seeds it may be a half
        return f"{value.value:,.{0 if float(value.value).is_integer() else 1}f}"
    if style == "number":
        return f"{value.value:.4g}"
    if math.isnan(value.low):
        return f"{100 * value.value:.1f}"
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _differences(
    config: Config, results: Results, seeds: int, own: Verifier, part: str
) -> Table:
    methods = [(("", "greedy"), "greedy")]
    sizes = _shown_sizes(config)
    methods += [(("", f"majority@{n}"), f"majority of {n}") for n in sizes]
    for v in verifiers(config):
        for n in () if v.own else sizes:
            name = v.name if n == sizes[0] else f"{v.name}, best of {n}"
            methods.append(((v.key, f"{v.aggregation}@{n}"), name))
    return Table(
        title=f"{own.name} minus the others at the same n, problem by problem",
        columns=[Column(split, "points", "") for split in config.evaluate.splits],
        rows=[
            Row(
                name,
                [
                    cell(results.find(selection.DIFFERENCE, split, *method, part))
                    for split in config.evaluate.splits
                ],
            )
            for method, name in methods
        ],
        note="95 % intervals by bootstrap over problems; one run, so the variance "
        "between training seeds is not in them."
        if seeds == 1
        else "95 % intervals over seeds, by Student's t.",
    )


def _other_sizes(config: Config, results: Results) -> Table:
    figures = [
        Figure(Column(f"{split}, {n}"), selection.SET, split, f"{OWN}@{n}")
        for n in config.evaluate.samples[1:-1]
        for split in config.evaluate.splits
    ]
    return by_verifier(config, results, "Best of more samples", figures)


def _pressure(config: Config, results: Results) -> Table:
    figures = []
    for split in config.evaluate.splits:
        column = Column(f"{split}: best n", "count", "")
        figures.append(Figure(column, pressure.SET, split, f"{OWN}.peak"))
        column = Column("fall", "points", "min")
        figures.append(Figure(column, pressure.SET, split, f"{OWN}.fall"))
    return by_verifier(
        config,
        results,
        "Under pressure: the n at which accuracy peaks, and its fall from there to "
        f"best of {config.evaluate.samples[-1]}",
        figures,
        "A verifier that is searched harder than it can bear chooses worse.",
    )


def _winners(
    config: Config,
    results: Results,
    written: Mapping[str, float],
    split: str,
) -> Table:
    """Kinds of error of wrong winners, beside how often G writes them."""
    shown = verifiers(config)
    kinds = results.parts(pressure.WINNERS, split)
    results = Results([*results, *pressure.zero_counts(results, results)])
    return Table(
        title=f"The first error of what wins and is wrong, best of "
        f"{config.evaluate.samples[-1]}, {split}",
        columns=[
            *(Column(v.name, "count", "") for v in shown),
            *([Column("of G's errors", "percent", "")] if written else []),
        ],
        rows=[
            Row(
                kind.replace("_", " "),
                [
                    *(
                        cell(
                            results.find(pressure.WINNERS, split, v.key, "count", kind)
                        )
                        for v in shown
                    ),
                    *([written.get(kind, 0.0)] if written else []),
                ],
            )
            for kind in kinds
        ],
        note="Problems whose winner is wrong, by the oracle's kind of its first wrong "
        "step. What G never writes, R cannot have learned from it.",
    )


def _aggregations(config: Config, results: Results) -> Table:
    n, first = config.evaluate.samples[0], config.evaluate.splits[0]
    figures = [
        Figure(Column(how), selection.SET, first, f"{how}@{n}")
        for how in config.evaluate.aggregations
    ]
    title = f"Aggregation of step scores, best of {n}, {first}"
    return by_verifier(config, results, title, figures)


def _steps(config: Config, results: Results) -> Table:
    figures = []
    for split in config.evaluate.splits:
        for column, metric in (
            (Column(f"{split}: AUC", "number", share=True), "auc"),
            (Column("F1"), "f1"),
            (Column("ECE", "number", "min", share=True), "ece"),
        ):
            if (split, metric) != (DEV, "f1"):  # it chose the threshold
                figures.append(Figure(column, step_labels.SET, split, metric))
    return by_verifier(
        config,
        results,
        "Right and wrong steps told apart, on the solver's own samples",
        figures,
        "F1 of catching wrong steps, threshold from the dev split, which has no F1 "
        "itself; ECE: expected calibration error.",
    )


def _kinds(config: Config, results: Results, split: str) -> Table:
    figures = [
        Figure(
            Column(kind.replace("_", " "), "number", share=True),
            "kinds",
            split,
            "auc",
            kind,
        )
        for kind in results.parts("kinds", split)
    ]
    title = f"AUC by kind of error, {split}"
    return by_verifier(config, results, title, figures)


def _attacks(config: Config, results: Results) -> Table:
    rates = {
        "start_fool_rate": "fooled before",
        "fool_rate": "fooled after",
        robustness.SEARCHED_RATE: f"by the best of {robustness.SEARCHED}",
        "success_rate": "wrong and accepted",
        "still_correct_rate": "not wrong at all",
    }
    figures = [
        Figure(
            Column(name, best="min" if key != "still_correct_rate" else ""),
            robustness.SET,
            "",
            key,
        )
        for key, name in rates.items()
    ]
    title = (
        f"A fresh attacker, {config.evaluate.attack_updates} rounds against a frozen R"
    )
    return by_verifier(config, results, title, figures)


def _outcome(config: Config, results: Results) -> Table:
    figures = [
        Figure(column, outcome.SET, "", metric)
        for column, metric in (
            (Column("all", "number", share=True), "auc"),
            (Column("within a writer", "number", share=True), "auc_within"),
            (Column("best of a question's"), "chosen"),
            (Column("one of them", best=""), "one_right"),
            (Column("any of them", best=""), "any_right"),
            (Column("not scored", "count", ""), "unscored"),
        )
    ]
    return by_verifier(
        config,
        results,
        "AUC of the outcome from the minimum step score, solutions of other models",
        figures,
        "A solution that is not scored whole is a miss: it loses against every other. "
        "Where several solve one question: how often the best by the score is right, "
        "one drawn blindly, and any.",
    )


def mean(values: Iterable[float]) -> float:
    """The mean of what is not NaN, NaN of nothing."""
    kept = [v for v in values if not math.isnan(v)]
    return float(np.mean(kept)) if kept else math.nan
