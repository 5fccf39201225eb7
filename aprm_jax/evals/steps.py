"""How well a verifier judges single steps: classification, ranking, calibration.

A score is the probability of "correct"; labels are 1 correct, 0 incorrect; a step is
called correct where score >= threshold. The unqualified `precision`, `recall` and
`f1` speak of *catching wrong steps* (the positive class is "incorrect"): recall is
the share of wrong steps caught, precision the share of alarms that are right. The
other orientation carries the suffix `_correct`. What is 0/0 is 0 for those six, and
NaN for the AUC.

A score is NaN where the verifier gave none (the solution does not fit a row). Such a
step is a *miss* in whatever is counted or ranked: called the other way, and ranked at
the wrong end. Else a verifier would gain by not reading what is hard. Calibration (ece,
brier, the diagram) is of the scored steps; `unscored` says how many were not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram over equal-width bins of the score. K bins.

    Attributes:
      edges: bin borders, 0 to 1.
      score: mean score of each bin, NaN where empty.
      correct: share of correct steps in each bin, NaN where empty.
      weight: share of all the weight in each bin; sums to 1.
      ece: expected calibration error, sum of weight * |correct - score|.
    """

    edges: Float[np.ndarray, " K+1"]
    score: Float[np.ndarray, " K"]
    correct: Float[np.ndarray, " K"]
    weight: Float[np.ndarray, " K"]
    ece: float


# What of the reports below is at a threshold.
AT_THRESHOLD = frozenset(
    {
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
        "precision_correct",
        "recall_correct",
        "f1_correct",
        "threshold",
    }
)


def classification_report(
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Every number about one set of steps, flat, ready for `summary.json`.

    Args:
      scores: probabilities of "correct", within [0, 1]; NaN where unscored.
      labels: 1 correct, 0 incorrect.
      weights: non-negative weights of the steps; all 1 by default.
      threshold: a step is called correct where score >= threshold.

    Returns:
      accuracy, balanced_accuracy; precision, recall, f1 of catching wrong steps;
      precision_correct, recall_correct, f1_correct of recognising correct ones; auc;
      ece (10 equal-width bins), brier; count (of all steps), unscored,
      incorrect_share, threshold.

    Raises:
      ValueError: no steps, out-of-range scores, labels other than 0 and 1.
    """
    scores, labels, weights = _checked(scores, labels, weights)
    is_correct = labels == 1
    unscored = np.isnan(scores)
    called_correct = np.where(unscored, ~is_correct, scores >= threshold)
    kept = float(weights[called_correct & is_correct].sum())
    caught = float(weights[~called_correct & ~is_correct].sum())
    fooled = float(weights[called_correct & ~is_correct].sum())
    rejected = float(weights[~called_correct & is_correct].sum())
    total = kept + caught + fooled + rejected
    recalls = (_ratio(caught, caught + fooled), _ratio(kept, kept + rejected))
    return {
        "accuracy": (kept + caught) / total,
        "balanced_accuracy": sum(recalls) / 2,
        "precision": _ratio(caught, caught + rejected),
        "recall": recalls[0],
        "f1": _ratio(2 * caught, 2 * caught + rejected + fooled),
        "precision_correct": _ratio(kept, kept + fooled),
        "recall_correct": recalls[1],
        "f1_correct": _ratio(2 * kept, 2 * kept + rejected + fooled),
        "auc": auc(scores, labels, weights),
        "ece": reliability(scores, labels, weights).ece,
        "brier": brier(scores, labels, weights),
        "count": float(len(scores)),
        "unscored": float(unscored.sum()),
        "incorrect_share": (caught + fooled) / total,
        "threshold": float(threshold),
    }


def auc(
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
) -> float:
    """P(a correct step scores above an incorrect one), ties counting one half.

    Any real scores, log-odds included: they separate where probabilities saturate.
    A NaN was not scored, and loses against every score and every other NaN. NaN when a
    class is missing.
    """
    labels = np.asarray(labels)
    scores = np.asarray(scores, np.float64)
    scores = np.where(np.isnan(scores), np.where(labels == 1, -np.inf, np.inf), scores)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    _, group = np.unique(scores, return_inverse=True)
    size = int(group.max(initial=-1)) + 1
    correct = np.bincount(group, weights * (labels == 1), minlength=size)
    wrong = np.bincount(group, weights * (labels == 0), minlength=size)
    pairs = correct.sum() * wrong.sum()
    if pairs == 0:
        return math.nan
    wrong_below = np.cumsum(wrong) - wrong
    return float((correct * (wrong_below + 0.5 * wrong)).sum() / pairs)


def reliability(
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
    bins: int = 10,
) -> Reliability:
    """The reliability diagram and the expected calibration error, of scored steps.

    Without any of them, every bin is empty and the error is NaN.
    """
    scores, labels, weights = _scored(*_checked(scores, labels, weights))
    index = np.minimum((scores * bins).astype(int), bins - 1)  # 1.0: the last bin
    mass = np.bincount(index, weights, minlength=bins)
    score_sum = np.bincount(index, weights * scores, minlength=bins)
    label_sum = np.bincount(index, weights * labels, minlength=bins)
    filled = np.where(mass > 0, mass, np.nan)
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        score=score_sum / filled,
        correct=label_sum / filled,
        weight=mass / (mass.sum() or 1.0),
        ece=float(np.abs(label_sum - score_sum).sum() / (mass.sum() or math.nan)),
    )


def brier(
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
) -> float:
    """Mean squared error of the scored steps' probabilities; NaN of none."""
    scores, labels, weights = _scored(*_checked(scores, labels, weights))
    total = float(weights.sum())
    return float((weights * (scores - labels) ** 2).sum() / (total or math.nan))


_THRESHOLD_METRICS = ("accuracy", "balanced_accuracy", "f1", "f1_correct")


def best_threshold(
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    metric: str = "accuracy",
) -> float:
    """The threshold with the highest metric; for a development split only.

    Candidates lie midway between neighbouring scores, and at both ends; of equally
    good ones the nearest to 0.5 is taken.

    Args:
      scores: probabilities of "correct"; what was not scored (NaN) is left out, for no
        threshold changes it.
      labels: 1 correct, 0 incorrect.
      metric: "accuracy", "balanced_accuracy", "f1" (catching wrong steps) or
        "f1_correct".
    """
    if metric not in _THRESHOLD_METRICS:
        raise ValueError(f"{metric!r} is none of {', '.join(_THRESHOLD_METRICS)}")
    scores, labels, _ = _scored(*_checked(scores, labels, None))
    if not len(scores):
        raise ValueError("no scored steps to choose a threshold on")
    distinct, group = np.unique(scores, return_inverse=True)
    middles = (distinct[:-1] + distinct[1:]) / 2
    # Neighbouring floats have no middle: the upper one separates them just as well.
    middles = np.where(middles > distinct[:-1], middles, distinct[1:])
    thresholds = np.concatenate([[0.0], middles, [np.nextafter(1.0, 2.0)]])
    size = len(distinct)
    below = [
        np.concatenate([[0], np.cumsum(np.bincount(group, labels == c, size))])
        for c in (0, 1)
    ]
    caught, rejected = below
    wrong, right = caught[-1], rejected[-1]
    fooled, kept = wrong - caught, right - rejected
    values = {
        "accuracy": (caught + kept) / len(scores),
        "balanced_accuracy": (caught / max(wrong, 1) + kept / max(right, 1)) / 2,
        "f1": 2 * caught / np.maximum(2 * caught + rejected + fooled, 1),
        "f1_correct": 2 * kept / np.maximum(2 * kept + rejected + fooled, 1),
    }[metric]
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])


def per_kind_report(
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    kinds: Sequence[str],
    threshold: float = 0.5,
) -> dict[str, dict[str, float]]:
    """Recall and AUC of each kind of wrong step, against *all* the correct steps.

    Args:
      scores: probabilities of "correct".
      labels: 1 correct, 0 incorrect.
      kinds: the oracle's kind of each step; ignored where the step is correct.
      threshold: a wrong step is caught where score < threshold.

    Returns:
      kind → {"recall", "auc", "count"}, kinds in alphabetical order. The AUC is NaN
      where there are no correct steps.
    """
    scores, labels, _ = _checked(scores, labels, None)
    if len(kinds) != len(scores):
        raise ValueError(f"{len(scores)} scores but {len(kinds)} kinds")
    names = np.asarray(kinds, dtype=object)
    correct = labels == 1
    result = {}
    for kind in sorted({str(k) for k in names[~correct]}):
        chosen = ~correct & (names == kind)
        both = chosen | correct
        result[kind] = {
            # Not so of NaN: an unscored step was not caught.
            "recall": float((scores[chosen] < threshold).mean()),
            "auc": auc(scores[both], labels[both]),
            "count": float(chosen.sum()),
        }
    return result


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _checked(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores = np.asarray(scores, np.float64)
    labels = np.asarray(labels, np.float64)
    weights = np.ones(scores.shape) if weights is None else np.asarray(weights, float)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape}")
    if weights.shape != scores.shape or (weights < 0).any():
        raise ValueError("weights must be non-negative, one a step")
    if not weights.sum() > 0:
        raise ValueError("no steps to report on")
    known = scores[~np.isnan(scores)]
    if not ((known >= 0) & (known <= 1)).all():
        raise ValueError("step scores must be probabilities, within [0, 1]")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1; mask unlabelled steps first")
    return scores, labels, weights


def _scored(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = ~np.isnan(scores)
    return scores[known], labels[known], weights[known]
