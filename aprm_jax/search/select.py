"""Choosing one of several sampled solutions, and what choosing is worth.

Votes and best-of-n pick an answer; `expected_best_of_n` and `pass_at_n` are exact
expectations over random n-subsets of M >= n samples, so 32 samples a problem give
unbiased best-of-8 numbers of low variance.

Axes: P problems, M samples of a problem.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped

Answer = TypeVar("Answer", bound=Hashable)


def weighted_vote(
    answers: Sequence[Answer | None],
    weights: Sequence[float],
    same: Callable[[Answer, Answer], bool] = operator.eq,
) -> Answer | None:
    """The answer with the largest sum of weights; ties go to the first seen.

    None (no answer found) never wins, unless every answer is None.

    Args:
      answers: answers, each counted with the first one before it that means the same.
      weights: one non-negative weight an answer.
      same: whether two answers mean the same; asked once about a pair of spellings.
    """
    if len(answers) != len(weights):
        raise ValueError(f"{len(answers)} answers but {len(weights)} weights")
    totals: dict[int, float] = {}
    for group, weight in zip(groups(answers, same), weights, strict=True):
        if not weight >= 0.0:  # NaN as well
            raise ValueError(f"a vote's weight is {weight}")
        if group is not None:
            totals[group] = totals.get(group, 0.0) + weight
    # max keeps the first of equals, and a dict keeps the order of first occurrence.
    return answers[max(totals, key=lambda group: totals[group])] if totals else None


def groups(
    answers: Sequence[Answer | None],
    same: Callable[[Answer, Answer], bool] = operator.eq,
) -> list[int | None]:
    """For each answer the place of the first one that means the same; None for None.

    `same` is asked once about a pair of spellings.
    """
    firsts: dict[Answer, int] = {}
    of_spelling: dict[Answer, int] = {}
    for place, answer in enumerate(answers):
        if answer is None or answer in of_spelling:
            continue
        known = (at for first, at in firsts.items() if same(answer, first))
        of_spelling[answer] = at = next(known, place)
        if at == place:
            firsts[answer] = place
    return [None if a is None else of_spelling[a] for a in answers]


def majority_vote(
    answers: Sequence[Answer | None],
    same: Callable[[Answer, Answer], bool] = operator.eq,
) -> Answer | None:
    """The most frequent answer; ties go to the first seen, None never wins."""
    return weighted_vote(answers, [1.0] * len(answers), same)


def best_of_n(scores: Float[np.ndarray, "*P M"]) -> Int[np.ndarray, "*P"]:
    """The index of the highest score along the last axis; ties go to the first.

    Raises:
      ValueError: a NaN score (`argmax` would silently prefer it), or no samples.
    """
    scores = np.asarray(scores)
    if scores.shape[-1] == 0:
        raise ValueError("best-of-n of no samples")
    if np.isnan(scores).any():
        raise ValueError("a solution score is NaN")
    return np.argmax(scores, axis=-1)


def expected_best_of_n(
    scores: Float[np.ndarray, "*P M"],
    correct: Shaped[np.ndarray, "*P M"],
    n: int,
) -> Float[np.ndarray, "*P"]:
    """Exact expected accuracy of best-of-n over all n-subsets of the M samples.

    A sample that ties with t - 1 others and has b strictly below it is chosen with
    probability (C(b + t, n) - C(b, n)) / (t C(M, n)): the best of the subset lies in
    its group, and the group's members are equally likely.

    Args:
      scores: solution scores, -inf allowed, NaN refused.
      correct: correctness of each sample, 0 or 1.
      n: size of the subset, 1 <= n <= M.
    """
    scores = np.asarray(scores, np.float64)
    correct = np.asarray(correct, np.float64)
    if scores.shape != correct.shape:
        raise ValueError(f"scores {scores.shape}, but correct {correct.shape}")
    samples = scores.shape[-1]
    _check_subset(n, samples)
    if np.isnan(scores).any():
        raise ValueError("a solution score is NaN")
    at_most = scipy.stats.rankdata(scores, method="max", axis=-1).astype(int)
    below = scipy.stats.rankdata(scores, method="min", axis=-1).astype(int) - 1
    # Python's integers: C(64, 32) / C(64, 8) is exact before it becomes a float.
    whole = math.comb(samples, n)
    share = np.array([math.comb(k, n) / whole for k in range(samples + 1)])
    chance = (share[at_most] - share[below]) / (at_most - below)
    return (chance * correct).sum(axis=-1)


def majority_of_n(
    answers: Sequence[Sequence[str | None]],
    n: int,
    same: Callable[[str, str], bool] = operator.eq,
) -> list[str | None]:
    """The majority of the first n samples of each problem; `same` as in a vote.

    A vote has no cheap exact expectation over subsets, so it uses the first n.
    """
    for row in answers:
        _check_subset(n, len(row))
    return [majority_vote(row[:n], same) for row in answers]


def pass_at_n(correct: Shaped[np.ndarray, "*P M"], n: int) -> Float[np.ndarray, "*P"]:
    """Unbiased pass@n: 1 - C(M - c, n) / C(M, n) with c correct of M samples.

    Chen et al. 2021 (arXiv 2107.03374), section 2.1.
    """
    correct = np.asarray(correct).astype(bool)
    samples = correct.shape[-1]
    _check_subset(n, samples)
    whole = math.comb(samples, n)
    fail = np.array([math.comb(samples - c, n) / whole for c in range(samples + 1)])
    return 1.0 - fail[correct.sum(axis=-1)]


def _check_subset(n: int, samples: int) -> None:
    if not 1 <= n <= samples:
        raise ValueError(f"n is {n}, but there are {samples} samples")
