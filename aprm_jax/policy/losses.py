"""Losses of policies on tokens that were drawn from them."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float32

from aprm_jax.training.masked import MeanMetric


def clipped_surrogate(
    logprobs: Float32[Array, "B T"],
    old_logprobs: Float32[Array, "B T"],
    advantages: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    clip_ratio: float,
) -> tuple[MeanMetric, MeanMetric]:
    """PPO's clipped objective, a weighted mean over tokens, and the clipped share.

    References:
      Schulman et al., 2017, eq. 7.
    """
    ratio = jnp.exp(logprobs - old_logprobs)
    clipped = jnp.clip(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)
    outside = (jnp.abs(ratio - 1.0) > clip_ratio).astype(jnp.float32)
    return MeanMetric.of(objective, mask), MeanMetric.of(outside, mask)


def value_loss(
    values: Float32[Array, "B T"],
    returns: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
) -> MeanMetric:
    """Half the squared distance of a critic to the returns, a mean over tokens."""
    return MeanMetric.of(0.5 * jnp.square(values - returns), mask)
