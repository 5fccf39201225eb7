"""What the report shows of an evaluation on labelled solutions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from aprm_jax.data.labelled import NEUTRAL
from aprm_jax.jobs import tables
from aprm_jax.jobs.evaluate_labelled import CHANCE, LIKELIHOOD, POSITION
from aprm_jax.report.contents import (
    Chart,
    Column,
    Row,
    ScoredStep,
    Series,
    Solution,
    Table,
)

NO_MODEL, GIVEN = "No model", "Scores from a file"
# What a set's kind is measured by: prefix in the summary, metric, name of the column.
_MAIN = {
    "steps": ("auc", "step AUC"),
    "first_error": ("f1", "F1"),
    "category": ("all.score", "PRM score"),
}


def verifiers(config: ml_collections.ConfigDict) -> list[tables.Verifier]:
    """Baselines, the PRMs of the run, then what came from files."""
    own = [
        tables.Verifier(v.key, v.name, v.group, own=True)
        for v in tables.verifiers(config)
        if v.key != LIKELIHOOD
    ]
    files = [str(entry).partition("=")[0] for entry in config.evaluate.scores]
    return [
        tables.Verifier(CHANCE, "chance", NO_MODEL),
        tables.Verifier(POSITION, "position of the step", NO_MODEL),
        tables.Verifier(LIKELIHOOD, "likelihood of the language model", NO_MODEL),
        *own,
        *(tables.Verifier(name, name, GIVEN) for name in files),
    ]


def main_table(config: ml_collections.ConfigDict, numbers: tables.Numbers) -> Table:
    """One figure a set for every verifier, 95 % intervals."""
    columns, patterns = [], []
    for kind, name in _sets(config, numbers):
        metric, heading = _MAIN[kind]
        style = "number" if kind == "steps" else "percent"
        columns.append(Column(f"{name}: {heading}", style))
        patterns.append(f"{kind}.{name}.{{}}.{metric}")
    return _table(
        config,
        numbers,
        "Wrong steps found. Step AUC: a right step scores above a wrong one; F1: "
        "ProcessBench's, on the first error; 95 % intervals over questions and rows.",
        columns,
        patterns,
    )


def more_tables(
    config: ml_collections.ConfigDict, numbers: tables.Numbers
) -> list[Table]:
    """Everything about each set."""
    makers = {"steps": _steps, "first_error": _first_errors, "category": _categories}
    return [
        makers[kind](config, numbers, name) for kind, name in _sets(config, numbers)
    ]


def charts(config: ml_collections.ConfigDict, evaluation: Path) -> list[Chart]:
    """Reliability diagrams of each set, as stated and calibrated."""
    out = []
    names = {v.key: v.name for v in verifiers(config) if v.key != CHANCE}
    for part in _parts(config, evaluation):
        for how in ("stated", "calibrated"):
            series = [Series("perfect", [0, 100], [0.0, 1.0])]
            for key, diagrams in part.get("reliability", {}).items():
                if key in names:
                    diagram = diagrams[how]
                    x = [100 * value for value in diagram["score"]]
                    series.append(Series(names[key], x, diagram["correct"]))
            if len(series) > 1:
                out.append(
                    Chart(
                        f"Steps that are right, scores {how}",
                        series,
                        "score, %",
                        group=f"calibration: {part['name']}",
                        note="Mean of ten bins of equal width, those that are filled.",
                    )
                )
    return out


def solutions(config: ml_collections.ConfigDict, evaluation: Path) -> list[Solution]:
    """Some of each set, scored by the last PRM of the run."""
    key = next(iter(reversed(config.evaluate.prms)), LIKELIHOOD)
    return [
        _solution(row, key, part["name"])
        for part in _parts(config, evaluation)
        for row in part.get("solutions", ())
    ]


def _solution(row: Mapping[str, Any], key: str, name: str) -> Solution:
    scores = row["scores"][key]
    return Solution(
        question=row["question"],
        steps=[
            ScoredStep(
                text,
                scores[k] if k < len(scores) else math.nan,
                None if label is None else label >= NEUTRAL,
            )
            for k, (text, label) in enumerate(
                zip(row["steps"], row["labels"], strict=True)
            )
        ],
        answer=None,
        expected=None,
        correct=row["correct"],
        split=name,
        method=f"scores: {key}",
    )


def _parts(config: ml_collections.ConfigDict, evaluation: Path) -> list[dict[str, Any]]:
    found = []
    for entry in config.evaluate.sets:
        name = str(entry).partition("=")[0]
        path = evaluation / "parts" / f"{name}.json"
        if path.is_file():
            found.append({"name": name, **json.loads(path.read_text())})
    return found


def _sets(
    config: ml_collections.ConfigDict, numbers: tables.Numbers
) -> list[tuple[str, str]]:
    """(kind, name) of each set that was measured."""
    names = [str(entry).partition("=")[0] for entry in config.evaluate.sets]
    return [
        (kind, name)
        for name in names
        for kind in _MAIN
        if any(key.startswith(f"{kind}.{name}.") for key in numbers)
    ]


def _table(
    config: ml_collections.ConfigDict,
    numbers: tables.Numbers,
    title: str,
    columns: Sequence[Column],
    patterns: Sequence[str],
    note: str = "",
) -> Table:
    rows = [
        Row(
            v.name,
            [tables.cell(numbers, pattern.format(v.key)) for pattern in patterns],
            group=v.group,
            own=v.own,
            note="" if v.group in (NO_MODEL, GIVEN) else v.key,
        )
        for v in verifiers(config)
    ]
    return Table(title, columns, rows, corner="Scores by", note=note)


def _steps(config, numbers, name: str) -> Table:
    chosen = [
        ("accuracy", Column("accuracy")),
        ("precision", Column("precision")),
        ("recall", Column("recall")),
        ("f1", Column("F1")),
        ("f1_correct", Column("F1 of right steps")),
        ("auc", Column("AUC", "number")),
        ("ece", Column("ECE", "number", "min")),
        ("ece_calibrated", Column("ECE, calibrated", "number", "min")),
        ("threshold", Column("threshold", "number", "")),
    ]
    count = max(numbers.get(f"steps.{name}.{CHANCE}.count", 0.0), 0.0)
    share = numbers.get(f"steps.{name}.{CHANCE}.incorrect_share", math.nan)
    return _table(
        config,
        numbers,
        f"Single steps, {name}",
        [column for _, column in chosen],
        [f"steps.{name}.{{}}.{metric}" for metric, _ in chosen],
        f"{count:.0f} labelled steps, {share:.0%} of them wrong. Precision, recall and "
        "F1 are of catching wrong steps. Threshold (the best balanced accuracy) and "
        "calibration (Platt) from the dev questions. Steps that do not fit a row are "
        "left out.",
    )


def _first_errors(config, numbers, name: str) -> Table:
    chosen = [
        ("f1", Column("F1")),
        ("error_accuracy", Column("erroneous")),
        ("correct_accuracy", Column("correct")),
        ("threshold", Column("threshold", "number", "")),
        ("oracle_threshold_f1", Column("F1, best threshold", best="")),
    ]
    return _table(
        config,
        numbers,
        f"First errors, {name}",
        [column for _, column in chosen],
        [f"first_error.{name}.{{}}.{metric}" for metric, _ in chosen],
        "Thresholds from the dev questions; the last column chooses its own in "
        "hindsight.",
    )


def _categories(config, numbers, name: str) -> Table:
    start = f"category.{name}."
    kinds = sorted(
        {key.removeprefix(start).split(".")[1] for key in numbers if start in key}
    )
    return _table(
        config,
        numbers,
        f"Categories of errors, {name}",
        [Column(kind.replace("_", " ")) for kind in kinds],
        [f"{start}{{}}.{kind}.score" for kind in kinds],
        "The benchmark's score: the mean of the F1 of right and of wrong steps.",
    )
