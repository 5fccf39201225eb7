"""The tables of a run, from its numbers: methods by split, and what explains them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from aprm_jax.config import for_stage, stages
from aprm_jax.evals import intervals
from aprm_jax.jobs.backbones import BACKBONE
from aprm_jax.report.contents import Cell, Column, Row, Table

LIKELIHOOD = "likelihood"
MAIN_AGGREGATION = "min"

Numbers = Mapping[str, float]
NO_TRAINING, TRAINED, UPPER_BOUND = "No training", "PRM", "Upper bound"
_NEGATIVES = {
    "static": "PRM, static corruptions",
    "monte_carlo": "PRM, Monte-Carlo labels",
    "oracle": "PRM, oracle labels",
    "labels": "PRM, labels of the data",
}


@dataclasses.dataclass(frozen=True)
class Verifier:
    """What a table says of a stage that trained a PRM, or of the likelihood.

    Attributes:
      key: its name in `summary.json`.
      name: for people.
      group: heading that it stands under.
      own: whether it is APRM.
    """

    key: str
    name: str
    group: str
    own: bool = False


def verifiers(config: ml_collections.ConfigDict) -> list[Verifier]:
    """The likelihood and `evaluate.prms`, upper bounds last; no two names are equal."""
    jobs = dict(stages(config))
    found = []
    if config.evaluate.solver:
        found.append(Verifier(LIKELIHOOD, "likelihood of the solver", NO_TRAINING))
    for key in config.evaluate.prms:
        job = jobs.get(key)
        stage = for_stage(config, key) if job else config
        if job == "aprm" and stage.game.freeze_generator:
            found.append(Verifier(key, "PRM, frozen Generator", TRAINED))
        elif job == "aprm":
            found.append(Verifier(key, "APRM", TRAINED, own=True))
        elif job == "prm":
            negatives = stage.prm.negatives
            group = UPPER_BOUND if negatives == "oracle" else TRAINED
            found.append(Verifier(key, _NEGATIVES[negatives], group))
        else:
            name = "PRM, as published" if key == BACKBONE else f"PRM {_short(key)}"
            found.append(Verifier(key, name, TRAINED))
    shared = {v.name for v in found if sum(v.name == w.name for w in found) > 1}
    found = [
        dataclasses.replace(v, name=f"{v.name}: {v.key}") if v.name in shared else v
        for v in found
    ]
    order = (NO_TRAINING, TRAINED, UPPER_BOUND)
    return sorted(found, key=lambda v: (order.index(v.group), v.own))


def _short(folder: str) -> str:
    """RUN/STAGE of a model's folder that is no stage of this run."""
    parts = [part for part in Path(folder).parts if part != "model"]
    return "/".join(parts[-2:])


def main_table(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    """Solver accuracy of every method on every split, 95 % intervals.

    Without splits there is no solver, and ProcessBench is what is left to compare.
    """
    if not config.evaluate.splits:
        return _processbench(config, numbers)
    splits, n = config.evaluate.splits, config.evaluate.samples[0]
    rows = [
        ("sample", "one sample", NO_TRAINING, "", False),
        ("greedy", "greedy", NO_TRAINING, "", False),
        (f"majority@{n}", f"majority of {n}", NO_TRAINING, "", False),
    ]
    for v in verifiers(config):
        method = f"{v.key}.{MAIN_AGGREGATION}@{n}"
        rows.append((method, v.name, v.group, f"best of {n}, {v.key}", v.own))
    rows.append((f"pass@{n}", f"any of {n} is right", UPPER_BOUND, "", False))
    return Table(
        title=f"Share of {config.evaluate.problems} problems a split that are solved, "
        "with 95 % intervals over problems. Best-of-n takes the sample whose least "
        "step score is highest.",
        corner="The answer is chosen by",
        columns=[Column(split) for split in splits],
        rows=[
            Row(
                name,
                [cell(numbers, f"solver.{split}.{method}") for split in splits],
                group=group,
                own=own,
                reference=group == UPPER_BOUND,
                note=note,
            )
            for method, name, group, note, own in rows
        ],
    )


def differences(
    config: ml_collections.ConfigDict, evaluation: Path
) -> dict[str, float]:
    """APRM minus every other method, problem by problem: `difference.SPLIT.METHOD`."""
    n = config.evaluate.samples[0]
    own = [v.key for v in verifiers(config) if v.own]
    out: dict[str, float] = {}
    for split in config.evaluate.splits:
        path = evaluation / "per_problem" / f"{split}.npz"
        if not own or not path.exists():
            continue
        with np.load(path) as rows:
            mine = rows[f"{own[0]}.{MAIN_AGGREGATION}@{n}"]
            others = [f"majority@{n}", "greedy"] + [
                f"{v.key}.{MAIN_AGGREGATION}@{n}"
                for v in verifiers(config)
                if v.key != own[0]
            ]
            for method in others:
                found = intervals.paired_difference(
                    mine, rows[method], resamples=config.evaluate.bootstrap
                )
                name = f"difference.{split}.{method}"
                out |= {
                    name: found.mean,
                    f"{name}.low": found.low,
                    f"{name}.high": found.high,
                }
    return out


def more_tables(config: ml_collections.ConfigDict, numbers: Numbers) -> list[Table]:
    """Everything that stands behind the main table; empty tables are left out."""
    found = [
        _differences(config, numbers),
        _other_sizes(config, numbers),
        _aggregations(config, numbers),
        _steps(config, numbers),
        *(_kinds(config, numbers, split) for split in config.evaluate.splits),
        _attacks(config, numbers),
        _outcome(config, numbers),
        *([_processbench(config, numbers)] if config.evaluate.splits else []),
    ]
    return [table for table in found if any(any(row.cells) for row in table.rows)]


def cell(numbers: Numbers, name: str) -> Cell | None:
    """A number with its interval, None where it was not measured."""
    if math.isnan(numbers.get(name, math.nan)):
        return None
    ends = (numbers.get(f"{name}.{end}", math.nan) for end in ("low", "high"))
    return Cell(numbers[name], *ends)


def as_text(table: Table) -> str:
    """A table for the console: fractions in percent, intervals in brackets."""
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
    if style in ("number", "count"):
        return f"{value.value:.3g}"
    if math.isnan(value.low):
        return f"{100 * value.value:.1f}"
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _by_verifier(
    config: ml_collections.ConfigDict,
    numbers: Numbers,
    title: str,
    columns: Sequence[tuple[Column, str]],
    note: str = "",
) -> Table:
    """A row a verifier; each column is a name with `{}` for the verifier's key."""
    return Table(
        title=title,
        columns=[column for column, _ in columns],
        rows=[
            Row(
                v.name,
                [cell(numbers, pattern.format(v.key)) for _, pattern in columns],
                own=v.own,
                reference=v.group == UPPER_BOUND,
                note=v.key,
            )
            for v in verifiers(config)
        ],
        note=note,
    )


def _differences(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    n, splits = config.evaluate.samples[0], config.evaluate.splits
    methods = [("greedy", "greedy"), (f"majority@{n}", f"majority of {n}")]
    methods += [
        (f"{v.key}.{MAIN_AGGREGATION}@{n}", v.name)
        for v in verifiers(config)
        if not v.own
    ]
    return Table(
        title="APRM minus the others, problem by problem",
        columns=[Column(split, "points", "") for split in splits],
        rows=[
            Row(name, [cell(numbers, f"difference.{s}.{method}") for s in splits])
            for method, name in methods
        ],
        note="95 % intervals by bootstrap over problems; one run, so the variance "
        "between training seeds is not in them.",
    )


def _other_sizes(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    sizes = config.evaluate.samples[1:]
    columns = [
        (Column(f"{split}, {n}"), f"solver.{split}.{{}}.{MAIN_AGGREGATION}@{n}")
        for n in sizes
        for split in config.evaluate.splits
    ]
    return _by_verifier(config, numbers, "Best of more samples", columns)


def _aggregations(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    n = config.evaluate.samples[0]
    first = config.evaluate.splits[:1]
    columns = [
        (Column(how), f"solver.{split}.{{}}.{how}@{n}")
        for split in first
        for how in config.evaluate.aggregations
    ]
    title = ", ".join(["Aggregation of step scores", f"best of {n}", *first])
    return _by_verifier(config, numbers, title, columns)


def _steps(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    columns = []
    for split in config.evaluate.splits:
        columns += [
            (Column(f"{split}: AUC", "number"), f"steps.{split}.{{}}.auc"),
            (Column("F1"), f"steps.{split}.{{}}.f1"),
            (Column("ECE", "number", "min"), f"steps.{split}.{{}}.ece"),
        ]
    return _by_verifier(
        config,
        numbers,
        "Right and wrong steps told apart, on the solver's own samples",
        columns,
        "F1 of catching wrong steps, threshold from the dev split; ECE: expected "
        "calibration error.",
    )


def _kinds(config: ml_collections.ConfigDict, numbers: Numbers, split: str) -> Table:
    start = f"kinds.{split}."
    names = {
        k.removeprefix(start).split(".")[1] for k in numbers if k.startswith(start)
    }
    columns = [
        (Column(kind.replace("_", " "), "number"), f"{start}{{}}.{kind}.auc")
        for kind in sorted(names)
    ]
    title = f"AUC by kind of error, {split}"
    return _by_verifier(config, numbers, title, columns)


def _attacks(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    rates = {
        "start_fool_rate": "fooled before",
        "fool_rate": "fooled after",
        "success_rate": "wrong and accepted",
        "still_correct_rate": "not wrong at all",
    }
    columns = [
        (
            Column(name, best="min" if key != "still_correct_rate" else ""),
            f"robustness.{{}}.{key}",
        )
        for key, name in rates.items()
    ]
    title = (
        f"A fresh attacker, {config.evaluate.attack_updates} rounds against a frozen R"
    )
    return _by_verifier(config, numbers, title, columns)


def _outcome(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    columns = [
        (Column("all", "number"), "outcome.{}.auc"),
        (Column("within a writer", "number"), "outcome.{}.auc_within"),
    ]
    return _by_verifier(
        config,
        numbers,
        "AUC of the outcome from the minimum step score, solutions of other models",
        columns,
    )


def _processbench(config: ml_collections.ConfigDict, numbers: Numbers) -> Table:
    columns = [
        (Column("F1"), "processbench.{}.f1"),
        (Column("erroneous"), "processbench.{}.error_accuracy"),
        (Column("correct"), "processbench.{}.correct_accuracy"),
        (Column("threshold", "number", ""), "processbench.{}.threshold"),
        (Column("F1, best threshold", best=""), "processbench.{}.oracle_threshold_f1"),
    ]
    note = (
        "Thresholds from the dev split; the last column chooses its own in hindsight."
    )
    return _by_verifier(config, numbers, "ProcessBench", columns, note)


def mean(values: Iterable[float]) -> float:
    """The mean of what is not NaN, NaN of nothing."""
    kept = [v for v in values if not math.isnan(v)]
    return float(np.mean(kept)) if kept else math.nan
