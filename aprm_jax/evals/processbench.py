"""ProcessBench: the first error from scores, the metric, and the best threshold.

The metric (Zheng et al., arXiv 2412.06559) is not an ordinary F1: it is the harmonic
mean of the accuracy on erroneous rows (the exact index of the first error) and the
accuracy on correct rows (no error found). Indices are 0-based, -1 is "none".

A score is NaN where the verifier gave none. A solution of which it said nothing wrong
so far has no verdict then, and counts as a miss, whatever is true.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped

NO_ERROR = -1
UNSCORED = -2  # no verdict: the scores end before an error was found


def first_error(scores: Shaped[np.ndarray, " S"], threshold: float) -> int:
    """Index of the first step with score < threshold, else -1; -2 without a verdict.

    There is no verdict where a step has no score (NaN) and no step before it is below
    the threshold.
    """
    # In float64: NumPy would round the threshold to the scores' float32.
    values = np.asarray(scores, np.float64)
    stops = np.flatnonzero((values < float(threshold)) | np.isnan(values))
    if not len(stops):
        return NO_ERROR
    return UNSCORED if np.isnan(values[stops[0]]) else int(stops[0])


def processbench_score(
    predictions: Sequence[int] | Int[np.ndarray, " N"],
    labels: Sequence[int] | Int[np.ndarray, " N"],
) -> dict[str, float]:
    """ProcessBench's metric.

    Args:
      predictions: 0-based first errors, -1 for none, -2 for no verdict: a miss.
      labels: the true ones.

    Returns:
      `error_accuracy`, `correct_accuracy`, their harmonic mean `f1` (0 where either
      is 0), and the counts `num_error`, `num_correct` and `unscored` (those without a
      verdict). The accuracy over no rows is 0.
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
        "unscored": float((guess == UNSCORED).sum()),
    }


def best_threshold(
    scores: Sequence[Shaped[np.ndarray, " _"]],
    labels: Sequence[int] | Int[np.ndarray, " N"],
) -> float:
    """The threshold with the highest `f1`, exactly, for a validation set.

    A row is right for an interval of thresholds: a correct one up to the minimum of
    its scores; an erroneous one above the score of its first error, up to the minimum
    before it. So the best threshold lies between two neighbours among these bounds;
    of equally good gaps the widest wins, and its middle is returned. Where a score that
    this needs is missing, the row is right for no threshold.
    """
    if len(scores) != len(labels) or not len(scores):
        raise ValueError(f"{len(scores)} rows of scores for {len(labels)} labels")
    lows, highs, wrong = [], [], []
    for row, label in zip(scores, labels, strict=True):
        values = np.asarray(row, np.float64)
        if not NO_ERROR <= label < len(values):
            raise ValueError(f"label {label} for {len(values)} steps")
        before, error = values, -np.inf
        if label != NO_ERROR:
            before, error = values[:label], values[label]
        missing = np.isnan(before).any() or np.isnan(error)
        lows.append(np.inf if missing else error)
        highs.append(-np.inf if missing else before.min(initial=np.inf))
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


def _harmonic(a: float, b: float) -> float:
    return float(2 * a * b / (a + b)) if a > 0 and b > 0 else 0.0
