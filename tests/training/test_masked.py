"""Masked reductions against NumPy, and what must not leak through a mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.training.masked import (
    MaxMetric,
    MeanMetric,
    SumMetric,
    masked_mean,
    masked_sum,
)


def test_weighted_reductions():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5)).astype(np.float32)
    mask = rng.integers(0, 3, size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        masked_sum(jnp.array(values), jnp.array(mask)), (values * mask).sum(), rtol=1e-5
    )
    for mean in (masked_mean, lambda *x: MeanMetric.of(*x).shown()):
        got = mean(jnp.array(values), jnp.array(mask))
        np.testing.assert_allclose(got, np.average(values, weights=mask), rtol=1e-5)
    flags = jnp.array([True, False, True])
    assert masked_mean(flags, jnp.array([True, True, False])) == 0.5


def test_half_precision_is_summed_in_single():
    ones = jnp.ones(4096, jnp.bfloat16)
    assert masked_sum(ones, ones) == 4096.0  # bfloat16 stops counting at 256
    assert masked_mean(ones, ones).dtype == jnp.float32


def test_what_is_masked_out_may_be_anything():
    values = jnp.array([1.0, jnp.nan, jnp.inf, 3.0])
    mask = jnp.array([1.0, 0.0, 0.0, 1.0])
    assert masked_mean(values, mask) == 2.0
    gradient = jax.grad(masked_mean)(values, mask)
    assert gradient.tolist() == [0.5, 0.0, 0.0, 0.5]
    assert np.isnan(masked_mean(values, jnp.ones(4)))


def test_nothing_kept():
    nothing = jnp.zeros(3)
    assert masked_mean(jnp.ones(3), nothing) == 0.0
    assert np.isnan(MeanMetric.of(jnp.ones(3), nothing).shown())
    assert MeanMetric.of(jnp.zeros(3), jnp.ones(3)).shown() == 0.0


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=9), rng.integers(0, 3, size=9)
    parts = [slice(0, 2), slice(2, 7), slice(7, 9)]
    mean, top = (
        kind.of(values[parts[0]], mask[parts[0]]) for kind in (MeanMetric, MaxMetric)
    )
    for part in parts[1:]:
        mean += MeanMetric.of(values[part], mask[part])
        top += MaxMetric.of(values[part], mask[part])
    np.testing.assert_allclose(
        mean.shown(), np.average(values, weights=mask), rtol=1e-5
    )
    np.testing.assert_allclose(top.shown(), values[mask > 0].max(), rtol=1e-6)
    assert (SumMetric(jnp.ones(())) + SumMetric(jnp.ones(()))).shown() == 2
