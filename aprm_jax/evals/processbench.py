"""ProcessBench: reading its rows, the first error from scores, and its metric.

The metric (Zheng et al., arXiv 2412.06559) is not an ordinary F1: it is the harmonic
mean of the accuracy on erroneous rows (the exact index of the first error) and the
accuracy on correct rows (no error found). Indices are 0-based, -1 is "none".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from aprm_jax.data.jsonl import (
    RowError,
    require_bool,
    require_int,
    require_str,
    require_strings,
)
from aprm_jax.data.sources import read_source

NO_ERROR = -1


@dataclasses.dataclass(frozen=True)
class ProcessBenchRow:
    """One solution with the place of its first error.

    Attributes:
      problem: the question.
      steps: the solution's steps; a step may hold several lines.
      label: 0-based index of the first wrong step, -1 for none.
      final_answer_correct: the outcome; may be true although a step is wrong.
      generator: the model that wrote it, if recorded.
    """

    problem: str
    steps: tuple[str, ...]
    label: int
    final_answer_correct: bool
    generator: str = ""


def read_processbench(
    source: str | Path,
    *,
    split: str = "gsm8k",
    quarantine_dir: str | Path | None = None,
    max_bad_share: float = 0.01,
) -> list[ProcessBenchRow]:
    """Reads a ProcessBench split from a path or a name; see `read_source`."""
    return read_source(
        str(source),
        split,
        _parse,
        quarantine_dir=quarantine_dir,
        max_bad_share=max_bad_share,
    )


def first_error(scores: Shaped[np.ndarray, " S"], threshold: float) -> int:
    """Index of the first step with score < threshold, else -1.

    Raises:
      ValueError: a score is NaN, which would pass as correct.
    """
    # In float64: NumPy would round the threshold to the scores' float32.
    values = _checked(scores)
    below = np.flatnonzero(values < float(threshold))
    return int(below[0]) if len(below) else NO_ERROR


def processbench_score(
    predictions: Sequence[int] | Int[np.ndarray, " N"],
    labels: Sequence[int] | Int[np.ndarray, " N"],
) -> dict[str, float]:
    """ProcessBench's metric.

    Args:
      predictions: 0-based first errors, -1 for none.
      labels: the true ones.

    Returns:
      `error_accuracy`, `correct_accuracy`, their harmonic mean `f1` (0 where either
      is 0), and the counts `num_error` and `num_correct`. The accuracy over no rows
      is 0.
    """
    guess, truth = np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
    if guess.shape != truth.shape or guess.ndim != 1:
        raise ValueError(f"{guess.shape} predictions for {truth.shape} labels")
    wrong = truth != NO_ERROR
    hits = guess == truth
    num_error, num_correct = int(wrong.sum()), int((~wrong).sum())
    error = float(hits[wrong].mean()) if num_error else 0.0
    correct = float(hits[~wrong].mean()) if num_correct else 0.0
    return {
        "error_accuracy": error,
        "correct_accuracy": correct,
        "f1": _harmonic(error, correct),
        "num_error": float(num_error),
        "num_correct": float(num_correct),
    }


def best_threshold(
    scores: Sequence[Shaped[np.ndarray, " _"]],
    labels: Sequence[int] | Int[np.ndarray, " N"],
) -> float:
    """The threshold with the highest `f1`, exactly, for a validation set.

    A row is right for an interval of thresholds: a correct one up to the minimum of
    its scores; an erroneous one above the score of its first error, up to the minimum
    before it. So the best threshold lies between two neighbours among these bounds;
    of equally good gaps the widest wins, and its middle is returned.
    """
    if len(scores) != len(labels) or not len(scores):
        raise ValueError(f"{len(scores)} rows of scores for {len(labels)} labels")
    lows, highs, wrong = [], [], []
    for row, label in zip(scores, labels, strict=True):
        values = _checked(row)
        if not NO_ERROR <= label < len(values):
            raise ValueError(f"label {label} for {len(values)} steps")
        known = values if label == NO_ERROR else values[:label]
        lows.append(-np.inf if label == NO_ERROR else values[label])
        highs.append(known.min(initial=np.inf))
        wrong.append(label != NO_ERROR)
    low, high, is_wrong = np.array(lows), np.array(highs), np.array(wrong)
    edges = np.unique(np.concatenate([low, high]))
    edges = edges[np.isfinite(edges)]
    if not len(edges):
        return 0.5
    # Gap i holds the thresholds in (edges[i - 1], edges[i]], the last has no end.
    rights = np.append(edges, np.inf)
    hits = []
    for group in (is_wrong, ~is_wrong):
        inside = group & (low < high)
        opened = np.searchsorted(np.sort(low[inside]), rights, side="left")
        closed = np.searchsorted(np.sort(high[inside]), rights, side="left")
        hits.append((opened - closed) / max(int(group.sum()), 1))
    f1 = np.array([_harmonic(e, c) for e, c in zip(*hits, strict=True)])
    widths = np.diff(edges, prepend=-np.inf, append=np.inf)
    widths[~np.isfinite(widths)] = 0.0  # an open gap has no middle
    best = np.flatnonzero(f1 == f1.max())
    at = int(best[np.argmax(widths[best])])
    if at == len(edges):
        return float(np.nextafter(edges[-1], np.inf))
    if at == 0:
        return float(edges[0])
    middle = (edges[at - 1] + edges[at]) / 2
    return float(middle if middle > edges[at - 1] else edges[at])


def minimum_scores(
    scores: Sequence[Shaped[np.ndarray, " _"]],
) -> Float[np.ndarray, " N"]:
    """The minimum step score of each solution; +inf of one without steps."""
    return np.array([_checked(row).min(initial=np.inf) for row in scores], np.float64)


def auc(scores: Shaped[np.ndarray, " N"], positives: Shaped[np.ndarray, " N"]) -> float:
    """Chance that a positive scores above a negative, ties half; NaN without both."""
    values, is_positive = _checked(scores), np.asarray(positives, bool)
    if values.shape != is_positive.shape:
        raise ValueError(f"{values.shape} scores for {is_positive.shape} outcomes")
    above, below = values[is_positive], np.sort(values[~is_positive])
    if not len(above) or not len(below):
        return float("nan")
    beaten = np.searchsorted(below, above, side="left")
    not_beaten_by = np.searchsorted(below, above, side="right")
    return float((beaten + not_beaten_by).mean() / (2 * len(below)))


def _parse(row: dict) -> ProcessBenchRow:
    steps = tuple(require_strings(row, "steps"))
    label = require_int(row, "label")
    if not NO_ERROR <= label < len(steps):
        raise RowError(f"label {label} is no step of {len(steps)} and not -1")
    generator = require_str(row, "generator") if "generator" in row else ""
    return ProcessBenchRow(
        require_str(row, "problem"),
        steps,
        label,
        require_bool(row, "final_answer_correct"),
        generator,
    )


def _harmonic(a: float, b: float) -> float:
    return float(2 * a * b / (a + b)) if a > 0 and b > 0 else 0.0


def _checked(scores: Shaped[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    values = np.asarray(scores, np.float64)
    if np.isnan(values).any():
        raise ValueError("a score is NaN")
    return values
