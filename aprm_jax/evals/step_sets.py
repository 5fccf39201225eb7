"""Sets of labelled solutions that verifiers are measured on, and the reports on them.

Three kinds, by the reader of their source: ProcessBench, Mr-Ben and MR-GSM8K locate the
first error, PRMBench plants errors of several categories, and any other set labels
single steps (PRM800K, Math-Shepherd, the step format). Thresholds and calibration come
from a validation set, never from the set that is reported on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from aprm_jax.data.labelled import NEUTRAL, LabelledSolution, question_id
from aprm_jax.evals import steps
from aprm_jax.evals.calibration import Platt
from aprm_jax.evals.intervals import Interval
from aprm_jax.evals.processbench import NO_ERROR, first_error, processbench_score
from aprm_jax.verifiers.labelled import LabelledRow, merge

FIRST_ERROR, CATEGORIES, STEPS = "first_error", "categories", "steps"
_KINDS = {
    "processbench": FIRST_ERROR,
    "mr_ben": FIRST_ERROR,
    "mr_gsm8k": FIRST_ERROR,
    "prmbench": CATEGORIES,
}
# PRMBench scores this category by the F1 of right steps: it has no wrong ones.
_RIGHT_ONLY = "multi_solutions"
_UNCOUNTED = "correct"  # PRMBench's originals are no part of its total
_CHUNK = 1 << 21  # resampled values held at a time


@dataclasses.dataclass(frozen=True)
class StepSet:
    """Solutions with what is known of their steps.

    Attributes:
      name: in summaries and file names.
      kind: "first_error", "categories" or "steps".
      rows: the solutions; labels are 0, 1 or NaN.
      categories: of each solution, "" where there are none.
    """

    name: str
    kind: str
    rows: tuple[LabelledRow, ...]
    categories: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """Names of the solutions: the set's and a number, counted from 0."""
        return [f"{self.name}-{k}" for k in range(len(self.rows))]

    @property
    def sizes(self) -> list[int]:
        """Numbers of steps."""
        return [len(row.steps) for row in self.rows]

    @property
    def first_errors(self) -> list[int]:
        """0-based index of the first wrong step of each solution, -1 for none."""
        return [
            next((k for k, v in enumerate(row.labels) if v == 0), NO_ERROR)
            for row in self.rows
        ]


def step_set(
    name: str,
    reader: str,
    solutions: Sequence[LabelledSolution],
    neutral: str = "correct",
    cut: float = NEUTRAL,
) -> StepSet:
    """A set from what its reader gave; labels are right from `cut` on.

    Solutions of single-step sets are merged, so that each labelled step counts once;
    those of benchmarks stay as they are, a repeated id left out.
    """
    kind = _KINDS.get(reader, STEPS)
    if kind == STEPS:
        rows = merge(solutions, neutral=neutral, soft=False, cut=cut)
        return StepSet(name, kind, tuple(rows), ("",) * len(rows))
    kept: dict[tuple[str, str], LabelledSolution] = {}
    for at, s in enumerate(solutions):
        # Two generators may share a ProcessBench question; an id is there once.
        key = (s.category, s.problem_id) if kind == CATEGORIES else ("", str(at))
        kept.setdefault(key, s)
    rows = [
        LabelledRow(
            s.question,
            s.steps,
            s.labels,
            (True,) * len(s.steps),
            s.problem_id,
        )
        for s in kept.values()
    ]
    return StepSet(name, kind, tuple(rows), tuple(s.category for s in kept.values()))


@dataclasses.dataclass(frozen=True)
class Judged:
    """The distinct labelled steps that were scored, and how many others there are.

    Attributes:
      scores: on the real line.
      labels: 1 correct, 0 incorrect.
      groups: number of the question that each belongs to.
      left_out: labelled steps that have no score: they did not fit a row.
    """

    scores: Float[np.ndarray, " N"]
    labels: Float[np.ndarray, " N"]
    groups: Int[np.ndarray, " N"]
    left_out: int


def judged(
    rows: Sequence[LabelledRow], scores: Sequence[Shaped[np.ndarray, " _"]]
) -> Judged:
    """Pairs labels with scores; a solution may be scored up to some step only."""
    # By what the question says: an id may be that of the row.
    ids = [question_id(row.question) for row in rows]
    groups = {name: k for k, name in enumerate(dict.fromkeys(ids))}
    found, left_out = [], 0
    for row, name, values in zip(rows, ids, scores, strict=True):
        for k, label in enumerate(row.labels):
            if math.isnan(label) or not row.first[k]:
                continue
            if k >= len(values):
                left_out += 1
                continue
            found.append((float(values[k]), label, groups[name]))
    table = np.array(found, np.float64).reshape(-1, 3)
    return Judged(table[:, 0], table[:, 1], table[:, 2].astype(np.int64), left_out)


def steps_report(
    found: Judged,
    probability: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    platt: Platt,
    resamples: int,
) -> dict[str, float]:
    """`steps.classification_report`, an interval of the AUC, and calibration.

    The AUC is of the scores on the real line, which separate where probabilities
    saturate; `ece_calibrated` and `brier_calibrated` are those after `platt`.
    """
    values = probability(found.scores)
    out = steps.classification_report(values, found.labels, threshold=threshold)
    calibrated = steps.classification_report(platt(found.scores), found.labels)
    interval = auc_interval(found.scores, found.labels, found.groups, resamples)
    return out | {
        "auc": interval.mean,
        "auc.low": interval.low,
        "auc.high": interval.high,
        "ece_calibrated": calibrated["ece"],
        "brier_calibrated": calibrated["brier"],
        "left_out": float(found.left_out),
    }


def auc_interval(
    scores: Float[np.ndarray, " N"],
    labels: Float[np.ndarray, " N"],
    groups: Int[np.ndarray, " N"],
    resamples: int,
    seed: int = 0,
) -> Interval:
    """AUC with a 95 % percentile interval; questions are resampled, not steps.

    Steps of one question are no independent draws: they share its difficulty.
    """
    rng = np.random.default_rng(seed)
    size = int(groups.max(initial=-1)) + 1
    mean = steps.auc(scores, labels)
    drawn = []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(size, size=size), minlength=size)[groups]
        drawn.append(steps.auc(scores, labels, weights.astype(np.float64)))
    known = np.array(drawn)[~np.isnan(drawn)]
    if not len(known):
        return Interval(mean, math.nan, math.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(mean, float(low), float(high), float(known.std()))


def first_error_interval(
    predictions: Sequence[int] | Int[np.ndarray, " N"],
    labels: Sequence[int] | Int[np.ndarray, " N"],
    resamples: int,
    seed: int = 0,
) -> Interval:
    """ProcessBench's F1 with a 95 % percentile interval over its rows."""
    guess, truth = np.asarray(predictions), np.asarray(labels)
    hits, wrong = guess == truth, truth != NO_ERROR
    rng = np.random.default_rng(seed)
    drawn, count = [], len(truth)
    for start in range(0, resamples, max(1, _CHUNK // count)):
        size = min(max(1, _CHUNK // count), resamples - start)
        rows = rng.integers(count, size=(size, count))
        hit, is_wrong = hits[rows], wrong[rows]
        error = (hit & is_wrong).sum(1) / np.maximum(is_wrong.sum(1), 1)
        correct = (hit & ~is_wrong).sum(1) / np.maximum((~is_wrong).sum(1), 1)
        total = error + correct
        drawn.append(2 * error * correct / np.where(total > 0, total, 1.0))
    values = np.concatenate(drawn)
    low, high = np.quantile(values, [0.025, 0.975])
    f1 = processbench_score(guess, truth)["f1"]
    return Interval(f1, float(low), float(high), float(values.std()))


def validation_first_errors(
    rows: Sequence[LabelledRow], scores: Sequence[Shaped[np.ndarray, " _"]]
) -> tuple[list[np.ndarray], list[int]]:
    """Solutions of a single-step set as first-error rows, for a threshold.

    A row counts up to its first wrong step, if all steps before it are right, or whole,
    if all of its steps are; others, and those that were not scored so far, are left
    out.
    """
    kept: list[np.ndarray] = []
    labels: list[int] = []
    for row, values in zip(rows, scores, strict=True):
        wrong = next((k for k, v in enumerate(row.labels) if v == 0), None)
        size = len(row.steps) if wrong is None else wrong + 1
        known = all(v == 1 for v in row.labels[: size - (wrong is not None)])
        if known and 0 < size <= len(values):
            kept.append(np.asarray(values[:size], np.float64))
            labels.append(NO_ERROR if wrong is None else wrong)
    return kept, labels


def category_report(
    data: StepSet,
    scores: Sequence[Shaped[np.ndarray, " _"]],
    threshold: float,
) -> dict[str, float]:
    """PRMBench: per category and in all, `CATEGORY.score` and what it is made of.

    `score` is the benchmark's: the mean of `f1_correct` and `f1` (of wrong steps), for
    "multi_solutions" `f1_correct` alone. The total pools the steps of all categories
    but "correct", the originals. What is 0/0 is 0 here, where the benchmark's own code
    says -1.

    Args:
      data: of kind "categories".
      scores: probabilities.
      threshold: a step is called correct where its score is at least that.
    """
    pools: dict[str, tuple[list[float], list[float]]] = {}
    for row, category, values in zip(data.rows, data.categories, scores, strict=True):
        names = [category] if category == _UNCOUNTED else [category, "all"]
        for name in names:
            pool = pools.setdefault(name, ([], []))
            for value, label in zip(values, row.labels, strict=False):
                pool[0].append(float(value))
                pool[1].append(label)
    out: dict[str, float] = {}
    for name, (values, labels) in sorted(pools.items()):
        if not values:
            continue
        report = steps.classification_report(
            np.array(values), np.array(labels), threshold=threshold
        )
        both = (report["f1"] + report["f1_correct"]) / 2
        out[f"{name}.score"] = report["f1_correct"] if name == _RIGHT_ONLY else both
        for metric in ("f1", "f1_correct", "accuracy", "auc", "count"):
            out[f"{name}.{metric}"] = report[metric]
    return out


def first_error_predictions(
    scores: Sequence[Shaped[np.ndarray, " _"]], threshold: float
) -> list[int]:
    """`first_error` of each solution."""
    return [first_error(row, threshold) for row in scores]
