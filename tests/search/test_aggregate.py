"""Aggregation of step scores against loops over plain lists."""

import math

import numpy as np
import pytest

from aprm_jax.search import aggregate as agg
from aprm_jax.verifiers.protocol import Scale

REFERENCE = {
    "min": lambda p: min(p),
    "product": lambda p: math.prod(p),
    "mean": lambda p: sum(p) / len(p),
    "last": lambda p: p[-1],
}


@pytest.mark.parametrize("how", agg.AGGREGATIONS)
def test_equals_a_loop_over_lists(how):
    rng = np.random.default_rng(0)
    rows = [list(rng.uniform(0.01, 1.0, size=n)) for n in (1, 5, 3, 7)]
    expected = [REFERENCE[how](row) for row in rows]
    scores = [[math.log(p) for p in row] for row in rows]
    np.testing.assert_allclose(np.exp(agg.aggregate_lists(scores, how)), expected)
    # Padded, with garbage under the padding and a leading axis.
    padded = np.full((2, 2, 9), np.nan)
    mask = np.zeros((2, 2, 9), np.float32)
    for k, row in enumerate(scores):
        padded[k // 2, k % 2, : len(row)] = row
        mask[k // 2, k % 2, : len(row)] = 1
    result = agg.aggregate(padded, mask, how)
    np.testing.assert_allclose(np.exp(result).ravel(), expected)


def test_the_option_changes_the_choice():
    a, b = [0.6, 0.6, 0.6], [0.5, 0.9, 0.7]
    scores = [np.log(a), np.log(b)]
    best = {h: int(np.argmax(agg.aggregate_lists(scores, h))) for h in REFERENCE}
    assert best == {"min": 0, "product": 1, "mean": 1, "last": 1}


@pytest.mark.parametrize("how", agg.AGGREGATIONS)
def test_order_survives_saturation(how):
    logits = np.array([[20.0, 20.0], [40.0, 40.0]])
    assert (1 / (1 + np.exp(-logits, dtype=np.float32))).min() > 1 - 1e-7
    low, high = agg.aggregate(
        Scale.LOG_ODDS.log_probability(logits), np.ones((2, 2)), how
    )
    assert low < high <= 0
    # ... and at the other end.
    low, high = agg.aggregate(
        Scale.LOG_ODDS.log_probability(-logits[::-1]), np.ones((2, 2)), how
    )
    assert low < high


@pytest.mark.parametrize("how", agg.AGGREGATIONS)
def test_no_steps_is_the_worst(how):
    scores = agg.aggregate_lists([[], [-50.0]], how)
    assert scores[0] == -np.inf < scores[1]
    assert np.all(agg.aggregate_lists([[], []], how) == -np.inf)


@pytest.mark.parametrize("how", agg.AGGREGATIONS)
def test_a_hopeless_step(how):
    assert agg.aggregate_lists([[-np.inf]], how)[0] == -np.inf


def test_refuses_what_is_not_a_log_probability():
    with pytest.raises(ValueError, match="LOG_ODDS"):
        agg.aggregate_lists([[3.0, -1.0]], "min")
    with pytest.raises(ValueError, match="NaN"):
        agg.aggregate_lists([[math.nan]], "min")
    with pytest.raises(ValueError, match="'max' is none of min"):
        agg.aggregate_lists([[-1.0]], "max")
