"""Masked reductions against NumPy, and what must not leak through a mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.training.masked import masked_mean, masked_sum, mean_or_nan


def test_weighted_reductions():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5)).astype(np.float32)
    mask = rng.integers(0, 3, size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        masked_sum(jnp.array(values), jnp.array(mask)), (values * mask).sum(), rtol=1e-5
    )
    for mean in (masked_mean, mean_or_nan):
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
    assert np.isnan(mean_or_nan(jnp.ones(3), nothing))
    assert mean_or_nan(jnp.zeros(3), jnp.ones(3)) == 0.0
