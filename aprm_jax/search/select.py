"""Choosing one of several sampled solutions, and what choosing is worth.

Votes and best-of-n pick an answer; `expected_best_of_n` and `pass_at_n` are exact
expectations over random n-subsets of M >= n samples, so 32 samples a problem give
unbiased best-of-8 numbers of low variance.

Axes: P problems, M samples of a problem.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar, cast

import numpy as np
import scipy.stats
from jaxtyping import Float, Shaped

Answer = TypeVar("Answer", bound=Hashable)

MOST_COMPARED = 64  # answers that one is compared with, by what they mean
_JUDGES = 8  # spellings of a group, the most frequent, that say who speaks for it
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")


def weighted_vote(
    answers: Sequence[Answer | None],
    weights: Sequence[float],
    same: Callable[[Answer, Answer], bool] = operator.eq,
) -> Answer | None:
    """The answer with the largest sum of weights; ties go to the first seen.

    It is spelt as by who speaks for its group. None (no answer found) never wins,
    unless every answer is None.

    Args:
      answers: answers; those that mean the same count together, see `groups`.
      weights: one non-negative weight an answer.
      same: whether an answer agrees with another; asked once about a pair of spellings
        in each direction.
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
    votes: Sequence[int] | None = None,
) -> list[int | None]:
    """For each answer the place of the one that speaks for its group; None for None.

    Two answers mean the same where either agrees with the other: 1/3 with a reference
    of 0.333, though 0.333 is no third. Each joins the most frequent answer that means
    the same, so that groups do not depend on the order of the answers. The one that
    agrees with most of a group, each vote taken for the reference, speaks for it; of
    equals the most frequent, and then the first.

    Answers that differ in their blanks alone are alike, and integers of different
    values are not: about neither `same` is asked. About other pairs it is asked once in
    each direction, and of an answer about the `MOST_COMPARED` most frequent others, at
    most: N answers of N meanings cost 128 N questions, and an answer that means the
    same as a rarer one, spelt otherwise, is then a group of its own.

    Args:
      answers: of each candidate; None for none.
      same: whether an answer agrees with another, which is taken for right.
      votes: of each; None for one each.
    """
    keys = [None if a is None else _key(a) for a in answers]
    counts: Counter[Hashable] = Counter()
    places: dict[Hashable, int] = {}  # of the first answer of a key
    for place, key in enumerate(keys):
        if key is not None:
            places.setdefault(key, place)
            counts[key] += 1 if votes is None else votes[place]

    @functools.cache
    def agrees(one: Hashable, other: Hashable) -> bool:
        given, expected = answers[places[one]], answers[places[other]]
        return one == other or bool(same(cast(Answer, given), cast(Answer, expected)))

    spokesman: dict[Hashable, int] = {}
    for members in _gathered(counts, agrees):
        judges = members[:_JUDGES]

        def backing(key: Hashable, judges: Sequence[Hashable] = judges) -> int:
            return sum(counts[judge] for judge in judges if agrees(key, judge))

        speaks = max(members, key=lambda k: (backing(k), counts[k], -places[k]))
        spokesman |= dict.fromkeys(members, places[speaks])
    return [None if key is None else spokesman[key] for key in keys]


def _gathered(
    counts: Counter[Hashable], agrees: Callable[[Hashable, Hashable], bool]
) -> Iterator[list[Hashable]]:
    """The keys of each group, the most frequent first."""
    values = {key: _integer(key) for key in counts}
    found: dict[Hashable, list[Hashable]] = {}
    # Of equals not the first: that would depend on the order.
    for key in sorted(counts, key=lambda k: (-counts[k], str(k))):
        mine = values[key], None
        near = (k for k in found if mine[0] is None or values[k] in mine)
        known = itertools.islice(near, MOST_COMPARED)
        first = next((k for k in known if agrees(key, k) or agrees(k, key)), key)
        found.setdefault(first, []).append(key)
    yield from found.values()


def _key(answer: Hashable) -> Hashable:
    """An answer without what certainly changes nothing in it."""
    return " ".join(answer.split()) if isinstance(answer, str) else answer


def _integer(key: Hashable) -> int | None:
    """The value of a key that is an integer."""
    spelt = isinstance(key, str) and _INTEGER.fullmatch(key)
    return int(spelt[0]) if spelt else None


def majority_vote(
    answers: Sequence[Answer | None],
    same: Callable[[Answer, Answer], bool] = operator.eq,
) -> Answer | None:
    """The most frequent answer; ties go to the first seen, None never wins."""
    return weighted_vote(answers, [1.0] * len(answers), same)


def expected_best_of_n(
    scores: Float[np.ndarray, "*P M"],
    correct: Shaped[np.ndarray, "*P M"],
    n: int,
) -> Float[np.ndarray, "*P"]:
    """Exact expected accuracy of best-of-n over all n-subsets of the M samples.

    A sample that ties with t - 1 others and has b strictly below it is chosen with
    probability (C(b + t, n) - C(b, n)) / (t C(M, n)): the best of the subset lies in
    its group, and the group's members are equally likely. Of a subset without any that
    may win none does, so it counts as wrong.

    Args:
      scores: solution scores, -inf for what may never win, NaN refused.
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
    return (chance * correct * (scores > -np.inf)).sum(axis=-1)


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
