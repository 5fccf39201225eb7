"""Advantages of tokens: GAE over a critic's values, or a baseline of the group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32


def gae(
    rewards: Float32[Array, "B T"],
    values: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    *,
    gamma: float,
    lam: float,
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"]]:
    """Generalised advantage estimation over the masked tokens of each row.

    `values[:, t]` estimates the return from token t on, before it is drawn. Tokens
    between the masked ones (a prompt's, a tool's) take no time: each masked token is
    followed by the next masked one. The value after the last one is 0.

    Returns:
      Advantages and returns (`advantages + values`), 0 where masked.

    References:
      Schulman et al., 2016, eq. 16.
    """

    def backward(after, column):
        next_advantage, next_value = after
        reward, value, keep = column
        delta = reward + gamma * next_value - value
        advantage = delta + gamma * lam * next_advantage
        chosen = keep > 0
        here = (
            jnp.where(chosen, advantage, next_advantage),
            jnp.where(chosen, value, next_value),
        )
        return here, jnp.where(chosen, advantage, 0.0)

    start = jnp.zeros_like(rewards[:, 0])
    columns = (rewards.T, values.T, mask.T)
    _, advantages = jax.lax.scan(backward, (start, start), columns, reverse=True)
    advantages = advantages.T
    return advantages, jnp.where(mask > 0, advantages + values, 0.0)


def group_advantages(
    totals: Float32[Array, " B"],
    groups: Int32[Array, " B"],
    weights: Float32[Array, " B"],
) -> Float32[Array, " B"]:
    """Each sequence's total reward less the mean of its group.

    Args:
      totals: summed token rewards of a sequence.
      groups: index of the prompt that a sequence answers, below B.
      weights: how often a sequence was drawn; 0 leaves it out of the mean.
    """
    size = totals.shape[0]
    weight = jax.ops.segment_sum(weights, groups, size)
    total = jax.ops.segment_sum(weights * totals, groups, size)
    baseline = total / jnp.maximum(weight, 1e-8)
    return totals - baseline[groups]
