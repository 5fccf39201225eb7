"""Evaluator of PRMBench (Song et al., arXiv 2501.03124): planted errors by category.

What is measured follows the benchmark's code (ssmisya/PRMBench, `prmtest_classified`).
Its positive class is the right step: its `f1` is our `f1_correct`, its `negative_f1`
our `f1`. PRM score: their mean; of "multi_solutions", which has no wrong steps, the F1
of right ones alone. First error: the share of solutions whose first wrong step is
called wrong. Similarity: how far the share of accepted steps of a modified solution is
from that of its original, |a - b| on average; near 0 the verifier hardly notices.

Two departures: what is 0/0 is 0 here, where the benchmark's code says -1; and steps
without a score, which it leaves out, are misses here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from aprm_jax.evals import steps
from aprm_jax.evals.processbench import NO_ERROR
from aprm_jax.evals.records import Record, metric_records
from aprm_jax.evals.step_sets import StepSet

SET, TOTAL = "category", "all"
# PRMBench scores this category by the F1 of right steps: it has no wrong ones.
_RIGHT_ONLY = "multi_solutions"
_ORIGINAL = "correct"  # PRMBench's originals are no part of its total
# The benchmark accepts what is above 0.5, not at it.
OFFICIAL = ("@0.5", float(np.nextafter(0.5, 1.0)))


@dataclasses.dataclass
class _Pool:
    """What a category gathers: steps, and what is counted by solution."""

    scores: list[float] = dataclasses.field(default_factory=list)
    labels: list[float] = dataclasses.field(default_factory=list)
    first: list[float] = dataclasses.field(default_factory=list)
    similarity: list[float] = dataclasses.field(default_factory=list)


def category_records(
    data: StepSet,
    verifier: str,
    scores: Sequence[Shaped[np.ndarray, " _"]],
    thresholds: Mapping[str, float],
) -> list[Record]:
    """PRMBench's metrics of every category, and of all but the originals.

    Args:
      data: of kind "categories".
      verifier: whose scores.
      scores: probabilities; NaN where unscored.
      thresholds: suffix of the metric -> threshold: a step is called right where its
        score is at least that. The benchmark's own, `OFFICIAL`, is always there.

    Returns:
      For each category and "all": `score`, `f1`, `f1_correct`, `accuracy`, `recall`
      (share of wrong steps caught), `recall_correct`, `first_error`, `similarity` and
      `threshold` with each suffix; `auc`, `count` and `unscored` once.
    """
    out: list[Record] = []
    for suffix, threshold in {**thresholds, **dict([OFFICIAL])}.items():
        for name, pool in sorted(_pools(data, scores, threshold).items()):
            values = _metrics(name, pool, threshold)
            once = {m: values.pop(m) for m in ("auc", "count", "unscored")}
            named = {f"{metric}{suffix}": value for metric, value in values.items()}
            if suffix == next(iter(thresholds), OFFICIAL[0]):
                named |= once
            out += metric_records(SET, data.name, verifier, named, part=name)
    return out


def _pools(
    data: StepSet, scores: Sequence[Shaped[np.ndarray, " _"]], threshold: float
) -> dict[str, _Pool]:
    accepted = {
        row.problem_id: _accepted(values, threshold)
        for row, category, values in zip(
            data.rows, data.categories, scores, strict=True
        )
        if category == _ORIGINAL
    }
    pools: dict[str, _Pool] = {}
    firsts = data.first_errors
    for k, (row, category) in enumerate(zip(data.rows, data.categories, strict=True)):
        values = np.asarray(scores[k], np.float64)
        share = _accepted(values, threshold)
        original = accepted.get(row.problem_id, float("nan"))
        for name in {category} if category == _ORIGINAL else {category, TOTAL}:
            pool = pools.setdefault(name, _Pool())
            pool.scores += values.tolist()
            pool.labels += row.labels
            if firsts[k] != NO_ERROR:  # not so of NaN: unscored is not found
                pool.first.append(float(values[firsts[k]] < threshold))
            # Likewise in the benchmark: an original without an accepted step is no
            # measure of anything.
            if category != _ORIGINAL and original > 0 and not np.isnan(share):
                pool.similarity.append(abs(share - original))
    return pools


def _accepted(values: Shaped[np.ndarray, " S"], threshold: float) -> float:
    """Share of steps called right; NaN of a solution that is not scored whole."""
    whole = len(values) and not np.isnan(values).any()
    return float((values >= threshold).mean()) if whole else float("nan")


def _metrics(name: str, pool: _Pool, threshold: float) -> dict[str, float]:
    report = steps.classification_report(
        np.array(pool.scores), np.array(pool.labels), threshold=threshold
    )
    both = (report["f1"] + report["f1_correct"]) / 2
    kept = (
        "f1",
        "f1_correct",
        "accuracy",
        "recall",
        "recall_correct",
        "auc",
        "count",
        "unscored",
        "threshold",
    )
    return {
        "score": report["f1_correct"] if name == _RIGHT_ONLY else both,
        "first_error": _mean(pool.first),
        "similarity": _mean(pool.similarity),
    } | {metric: report[metric] for metric in kept}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
