"""ReST-MCTS*'s value labels against their definition, on small trees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aprm_jax.search.values import reasoning_distances, value_labels

NONE = None


def _children(parents, node):
    return [k for k, above in enumerate(parents) if above == node]


def _distance(parents, right, node) -> float:
    """Brute force: every path below a node."""
    if right[node]:
        return 0.0
    below = [1 + _distance(parents, right, k) for k in _children(parents, node)]
    return min(below, default=math.inf)


def _goes_through(parents, right, node) -> bool:
    below = (_goes_through(parents, right, k) for k in _children(parents, node))
    return right[node] is not None or any(below)


def _reference(parents, right, node) -> tuple[float, float]:
    """(V, m) of a node, by the recursion up to the question."""
    if node == 0:
        return 0.0, _distance(parents, right, 0)
    before, left = _reference(parents, right, parents[node])
    mine = _distance(parents, right, node)
    r, m = (1, mine) if np.isfinite(mine) else (-1, left)
    return max(0.0, before + (1 - before) * r / (1 + m)), m


def test_a_right_chain_rises_in_even_steps():
    parents, right = [-1, 0, 1, 2, 3], [NONE, NONE, NONE, NONE, True]
    np.testing.assert_allclose(value_labels(parents, right), [0, 0.25, 0.5, 0.75, 1])
    assert reasoning_distances(parents, right) == [4, 3, 2, 1, 0]


def test_a_wrong_step_falls_by_the_distance_before_it():
    #  0 -> 1 -> 2 -> 3 (right), 1 -> 4 -> 5 (wrong), and 6, never concluded
    parents = [-1, 0, 1, 2, 1, 4, 1]
    right = [NONE, NONE, NONE, True, NONE, False, NONE]
    values = value_labels(parents, right)
    third, fallen = 1 / 3, 1 / 3 - (2 / 3) / 3
    np.testing.assert_allclose(
        values[:6], [0, third, 2 * third, 1, fallen, max(0, fallen - (1 - fallen) / 3)]
    )
    assert math.isnan(values[6])


def test_of_two_right_ways_the_shorter_counts():
    #  0 -> 1 -> 2 (right), 1 -> 3 -> 4 (right)
    parents, right = [-1, 0, 1, 1, 3], [NONE, NONE, True, NONE, True]
    assert reasoning_distances(parents, right) == [2, 1, 0, 1, 0]
    # From 1 the detour has two steps left and so gains half as much with the first.
    np.testing.assert_allclose(value_labels(parents, right), [0, 0.5, 1, 0.75, 1])


@pytest.mark.parametrize(
    ("parents", "right"),
    [([-1], [NONE]), ([-1, 0, 0], [NONE, False, NONE]), ([], [])],
)
def test_without_a_right_answer_nothing_is_known(parents, right):
    values = value_labels(parents, right)
    assert len(values) == len(parents) and np.isnan(values).all()


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_as_by_the_definition(seed):
    rng = np.random.default_rng(seed)
    parents = [-1] + [int(rng.integers(k)) for k in range(1, 14)]
    inner = set(parents)
    right = [
        NONE if k in inner or rng.random() < 0.2 else bool(rng.random() < 0.4)
        for k in range(len(parents))
    ]
    expected = [
        _reference(parents, right, k)[0] if _goes_through(parents, right, k) else np.nan
        for k in range(len(parents))
    ]
    if not any(right):
        expected = [np.nan] * len(parents)
    np.testing.assert_allclose(value_labels(parents, right), expected, atol=1e-12)
    known = np.array(value_labels(parents, right))
    known = known[~np.isnan(known)]
    assert ((known >= 0) & (known <= 1)).all()
