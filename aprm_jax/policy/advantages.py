"""Advantages of tokens: GAE over a critic's values, or baselines of the samples.

Without a critic, returns of steps [B, S] are compared with those of other samples at
the same step. Where there are several sources of reward, each is compared by itself,
and the results are added: a sum of rewards that is compared once has lost which step
earned them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

BASELINES = ("grpo", "rloo", "reinforce++")
_EPSILON = 1e-6  # beside a standard deviation


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


def returns_to_go(
    rewards: Float32[Array, "B S"], mask: Float32[Array, "B S"], gamma: float = 1.0
) -> Float32[Array, "B S"]:
    """The discounted sum of a step's reward and those of the steps after it."""

    def backward(after, column):
        reward, keep = column
        here = jnp.where(keep > 0, reward + gamma * after, after)
        return here, jnp.where(keep > 0, here, 0.0)

    start = jnp.zeros_like(rewards[:, 0])
    _, out = jax.lax.scan(backward, start, (rewards.T, mask.T), reverse=True)
    return out.T


def baselined(
    returns: Float32[Array, "B S"],
    mask: Float32[Array, "B S"],
    groups: Int32[Array, " B"],
    how: str,
    scaled: bool = True,
) -> Float32[Array, "B S"]:
    """Returns of one source, compared with those of other samples.

    Args:
      returns: of the steps; of a source that pays whole sequences, S is 1.
      mask: 1 where a sequence has the step and takes part.
      groups: index of the prompt that a sequence answers, below B.
      how: "grpo": less the group's mean at that step, over the group's standard
        deviation (ddof 1, pooled over steps). "rloo": less the mean of the others.
        "reinforce++": whitened over the whole batch.
      scaled: False leaves out the division: for a penalty that has a scale of its own,
        as KL. "reinforce++" is then less the batch's mean.

    Returns:
      Advantages, 0 where masked. A group of one keeps its returns: there is nothing to
      compare them with. In a larger one a step that no other sample has got to is 0.

    References:
      Shao et al., 2024, arXiv:2402.03300 (GRPO); Ahmadian et al., 2024,
      arXiv:2402.14740 (RLOO); Hu, 2025, arXiv:2501.03262 (REINFORCE++).
    """
    if how not in BASELINES:
        raise ValueError(f"baseline {how!r} is none of {', '.join(BASELINES)}")
    here = mask > 0
    kept = jnp.where(here, returns, 0.0)
    if how == "reinforce++":
        out = _whitened(kept, here, scaled)
    else:
        out = _compared(kept, here, groups, how, scaled)
    return jnp.where(here, out, 0.0)


def _compared(kept: Array, here: Array, groups: Array, how: str, scaled: bool) -> Array:
    rows = kept.shape[0]

    def of_group(x: Array) -> Array:
        return jax.ops.segment_sum(x, groups, rows)[groups]

    count = of_group(here.astype(jnp.float32))  # at each step
    members = of_group(jnp.any(here, axis=1).astype(jnp.float32))[:, None]
    total = of_group(kept)
    if how == "rloo":
        others = (total - kept) / jnp.maximum(count - 1.0, 1.0)
        out = jnp.where(count > 1, kept - others, 0.0)
    else:
        out = jnp.where(here, kept - total / jnp.maximum(count, 1.0), 0.0)
        if scaled:
            squares = jnp.sum(of_group(jnp.square(out)), axis=1, keepdims=True)
            free = jnp.sum(jnp.maximum(count - 1.0, 0.0), axis=1, keepdims=True)
            deviation = jnp.sqrt(squares / jnp.maximum(free, 1.0))
            out = out / (deviation + _EPSILON)
    return jnp.where(members > 1, out, kept)


def _whitened(kept: Array, here: Array, scaled: bool) -> Array:
    count = jnp.sum(here.astype(jnp.float32))
    centred = jnp.where(here, kept - jnp.sum(kept) / jnp.maximum(count, 1.0), 0.0)
    square = jnp.sum(jnp.square(centred)) / jnp.maximum(count - 1.0, 1.0)
    out = centred / (jnp.sqrt(square) + _EPSILON) if scaled else centred
    return jnp.where(count > 1, out, kept)


def of_tokens(
    steps: Float32[Array, "B S"], step_ids: Int32[Array, "B T"]
) -> Float32[Array, "B T"]:
    """Each token has what its step has; 0 for one of no step."""
    ids = jnp.asarray(step_ids)
    at = jnp.clip(ids, 0, steps.shape[1] - 1)  # S is 1 where a sequence is one step
    return jnp.where(ids >= 0, jnp.take_along_axis(steps, at, axis=1), 0.0)
