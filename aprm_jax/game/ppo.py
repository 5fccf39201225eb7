"""PPO for the Generator: clipped token ratios, GAE or a group baseline, float32.

B sequences, T tokens. r_G arrives at the last token of s', and
the regularisers -beta KL(G || G_ref) + eta H(G) arrive at each token as the reward
`beta log G_ref - (beta + eta) log G`, whose expectation under G they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from aprm_jax.training.masked import masked_mean


def token_rewards(
    final: Float32[Array, " B"],
    logprobs: Float32[Array, "B T"],
    ref_logprobs: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    *,
    beta: float,
    eta: float,
) -> Float32[Array, "B T"]:
    """The reward of each token: regularisers everywhere, `final` at the last token.

    Args:
      final: reward of the whole perturbation.
      logprobs: of the tokens under the policy that drew them.
      ref_logprobs: under the fixed reference.
      mask: 1 on the tokens of s'.
      beta: weight of the KL to the reference.
      eta: weight of the entropy.
    """
    regulariser = beta * ref_logprobs - (beta + eta) * logprobs
    position = jnp.cumsum(mask, axis=1)
    is_last = mask * (position == jnp.sum(mask, axis=1, keepdims=True))
    return mask * regulariser + is_last * final[:, None]


def gae(
    rewards: Float32[Array, "B T"],
    values: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    *,
    gamma: float,
    lam: float,
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"]]:
    """Generalised advantage estimation over the masked tokens of each row.

    `values[:, t]` estimates the return from token t on, before it is drawn. Masked
    tokens must be contiguous; the value after the last one is 0.

    Returns:
      Advantages and returns (`advantages + values`), 0 where masked.

    References:
      Schulman et al., 2016, eq. 16.
    """

    def backward(carry, column):
        next_advantage, next_value = carry
        reward, value, keep = column
        delta = reward + gamma * next_value - value
        advantage = keep * (delta + gamma * lam * next_advantage)
        return (advantage, keep * value), advantage

    start = jnp.zeros_like(rewards[:, 0])
    columns = (rewards.T, values.T, mask.T)
    _, advantages = jax.lax.scan(backward, (start, start), columns, reverse=True)
    advantages = advantages.T
    return advantages, (advantages + values) * mask


def group_advantages(
    totals: Float32[Array, " B"],
    groups: Int32[Array, " B"],
    weights: Float32[Array, " B"],
) -> Float32[Array, " B"]:
    """Each sequence's total reward less the mean of its group.

    Args:
      totals: summed token rewards of a sequence.
      groups: index of the (Q, S, s) that a sequence perturbs, below B.
      weights: how often a sequence was drawn; 0 leaves it out of the mean.
    """
    size = totals.shape[0]
    weight = jax.ops.segment_sum(weights, groups, size)
    total = jax.ops.segment_sum(weights * totals, groups, size)
    baseline = total / jnp.maximum(weight, 1e-8)
    return totals - baseline[groups]


def clipped_surrogate(
    logprobs: Float32[Array, "B T"],
    old_logprobs: Float32[Array, "B T"],
    advantages: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    clip_ratio: float,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """PPO's clipped objective, a weighted mean over tokens, and the clipped share.

    References:
      Schulman et al., 2017, eq. 7.
    """
    ratio = jnp.exp(logprobs - old_logprobs)
    clipped = jnp.clip(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)
    outside = (jnp.abs(ratio - 1.0) > clip_ratio).astype(jnp.float32)
    return masked_mean(objective, mask), masked_mean(outside, mask)
