"""Masked reductions in float32: the one home of every mean that leaves things out."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def masked_sum(
    values: Shaped[Array, "*s"], mask: Shaped[Array, "*s"]
) -> Float[Array, ""]:
    """Sum of `values * mask`; what is masked out may be NaN."""
    mask = mask.astype(jnp.float32)
    return jnp.sum(jnp.where(mask != 0, values.astype(jnp.float32), 0.0) * mask)


def masked_mean(
    values: Shaped[Array, "*s"], mask: Shaped[Array, "*s"]
) -> Float[Array, ""]:
    """Mean weighted by `mask`; 0 where nothing is kept."""
    weight = jnp.sum(mask.astype(jnp.float32))
    return masked_sum(values, mask) / jnp.maximum(weight, 1e-8)


def mean_or_nan(
    values: Shaped[Array, "*s"], mask: Shaped[Array, "*s"]
) -> Float[Array, ""]:
    """Mean weighted by `mask`; NaN where nothing is kept. For metrics, not losses."""
    weight = jnp.sum(mask.astype(jnp.float32))
    return jnp.where(weight > 0, masked_mean(values, mask), jnp.nan)
