"""Choosing one of several sampled solutions, and what choosing is worth.

Votes and best-of-n pick an answer; `expected_best_of_n` and `pass_at_n` are exact
expectations over random n-subsets of M >= n samples, so 32 samples a problem give
unbiased best-of-8 numbers of low variance.

Axes: P problems, M samples of a problem.
"""

from __future__ import annotations

import heapq
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped

Answer = TypeVar("Answer", bound=Hashable)

MOST_COMPARED = 64  # answers that one is compared with, by what they mean
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")


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
    for weight in weights:
        if not weight >= 0.0:  # NaN as well
            raise ValueError(f"a vote's weight is {weight}")
    winner = heaviest(groups(answers, same), weights)
    return None if winner is None else answers[winner]


def heaviest(
    groups: Sequence[int | None], weights: Sequence[float] | Float[np.ndarray, " N"]
) -> int | None:
    """The group with the largest sum of weights, the first of equals.

    Whoever has no group, or NaN for a weight, abstains; None where all do.
    """
    sums: dict[int, list[float]] = {}
    for group, weight in zip(groups, weights, strict=True):
        if group is not None and not math.isnan(weight):
            sums.setdefault(group, []).append(float(weight))
    # fsum: equal votes tie, in whatever order they were cast.
    return max(sums, key=lambda group: math.fsum(sums[group]), default=None)


def groups(
    answers: Sequence[Answer | None],
    same: Callable[[Answer, Answer], bool] = operator.eq,
) -> list[int | None]:
    """For each answer the place of the first one that means the same; None for None.

    Answers that differ in their blanks alone are alike, and integers of different
    values are not: about neither `same` is asked. About other pairs it is asked once,
    and of an answer about the `MOST_COMPARED` that most others are spelt like, at most:
    N answers of N meanings cost 64 N questions, and an answer that means the same as a
    rarer one, spelt otherwise, is then a group of its own.
    """
    keys = [None if a is None else _key(a) for a in answers]
    spelt: dict[int, Answer] = {}  # the first of each group
    counts = Counter(keys)
    firsts: dict[Hashable, int] = {}  # of one key for each group
    of_key: dict[Hashable, int] = {}
    for place, (answer, key) in enumerate(zip(answers, keys, strict=True)):
        if answer is None or key in of_key:
            continue
        near = [(at, k) for k, at in firsts.items() if not _differ(k, key)]
        near = heapq.nlargest(MOST_COMPARED, near, key=lambda n: (counts[n[1]], -n[0]))
        known = (at for at, _ in sorted(near) if same(answer, spelt[at]))
        of_key[key] = at = next(known, place)
        if at == place:
            firsts[key], spelt[place] = place, answer
    return [None if key is None else of_key[key] for key in keys]


def _key(answer: Hashable) -> Hashable:
    """An answer without what certainly changes nothing in it."""
    return " ".join(answer.split()) if isinstance(answer, str) else answer


def _differ(one: Hashable, other: Hashable) -> bool:
    """Whether two keys are integers of different values."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    integers = _INTEGER.fullmatch(one) and _INTEGER.fullmatch(other)
    return bool(integers) and int(one) != int(other)


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
