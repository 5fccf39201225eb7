"""Losses of policies on tokens that were drawn from them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from aprm_jax.training.masked import MeanMetric

AGGREGATIONS = ("token", "sequence", "constant")


def clipped_surrogate(
    logprobs: Float32[Array, "*b T"],
    old_logprobs: Float32[Array, "*b T"],
    advantages: Float32[Array, "*b T"],
    mask: Float32[Array, "*b T"],
    clip_ratio: float,
) -> tuple[MeanMetric, MeanMetric]:
    """PPO's clipped objective, a weighted mean over tokens, and the clipped share.

    References:
      Schulman et al., 2017, eq. 7.
    """
    objective, outside = token_objective(
        logprobs, old_logprobs, advantages, low=clip_ratio, high=clip_ratio
    )
    return MeanMetric.of(objective, mask), MeanMetric.of(outside, mask)


def token_objective(
    logprobs: Float32[Array, "*b T"],
    old_logprobs: Float32[Array, "*b T"],
    advantages: Float32[Array, "*b T"],
    *,
    low: float,
    high: float,
    dual: float = 0.0,
) -> tuple[Float32[Array, "*b T"], Float32[Array, "*b T"]]:
    """PPO's clipped objective of each token, and whether its ratio is outside.

    Args:
      logprobs: under the policy that is trained.
      old_logprobs: under the one that the ratio is of.
      advantages: of the tokens.
      low: the ratio counts from 1 - low on.
      high: up to 1 + high; more than `low` leaves rare tokens room to become likely
        (clip-higher, Yu et al. 2025, arXiv:2503.14476).
      dual: above 1, a negative advantage counts `dual` times at most (dual clip, Ye et
        al. 2020, arXiv:1912.09729); 0 for none.

    References:
      Schulman et al., 2017, eq. 7.
    """
    ratio = jnp.exp(logprobs - old_logprobs)
    clipped = jnp.clip(ratio, 1.0 - low, 1.0 + high)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)
    if dual:
        floor = jnp.maximum(objective, dual * advantages)
        objective = jnp.where(advantages < 0, floor, objective)
    outside = (ratio < 1.0 - low) | (ratio > 1.0 + high)
    return objective, outside.astype(jnp.float32)


def importance_weights(
    logprobs: Float32[Array, "*b T"],
    sampler_logprobs: Float32[Array, "*b T"],
    cap: float,
) -> Float32[Array, "*b T"]:
    """Truncated importance weights of tokens, from the sampler to a policy.

    Token by token, because the ratio of a whole sequence falls with its length. They
    have no gradient. `cap` is the largest; 0 leaves the tokens as they are, all 1.
    """
    if not cap:
        return jnp.ones_like(logprobs)
    ratio = jnp.exp(jax.lax.stop_gradient(logprobs) - sampler_logprobs)
    return jnp.minimum(ratio, cap)


def aggregated(
    values: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    weights: Float32[Array, " B"],
    how: str,
    constant: float = 1.0,
) -> MeanMetric:
    """The mean of what tokens have, over a batch of sequences.

    Args:
      values: of the tokens.
      mask: 1 on the tokens that count.
      weights: of the sequences; 0 leaves one out.
      how: "token" (long sequences count more), "sequence" (the mean of each sequence's
        mean: tokens of a long one count less), "constant" (each sequence's sum over
        the same number: neither; Liu et al. 2025, "Dr. GRPO", arXiv:2503.20783).
      constant: that number.
    """
    kept = mask * weights[:, None]
    if how == "token":
        return MeanMetric.of(values, kept)
    lengths = jnp.sum(mask, axis=1)
    if how == "sequence":
        share = kept / jnp.maximum(lengths, 1.0)[:, None]
        return MeanMetric.of(values, share)
    if how != "constant":
        raise ValueError(f"aggregation {how!r} is none of {', '.join(AGGREGATIONS)}")
    weight = jnp.sum(weights * (lengths > 0)) * constant
    return MeanMetric(MeanMetric.of(values, kept).total, weight)


def squared_kl(
    logprobs: Float32[Array, "B T"], ref_logprobs: Float32[Array, "B T"]
) -> Float32[Array, "B T"]:
    """Half the squared log-ratio of each token: the KL estimator k2, as a loss.

    On tokens that the policy drew its gradient is that of KL(policy || reference). The
    gradient of k1, the log-ratio, is 0 in expectation, noise alone, and that of k3 is
    the other KL's, KL(reference || policy).
    """
    return 0.5 * jnp.square(logprobs - ref_logprobs)


def value_loss(
    values: Float32[Array, "*b T"],
    returns: Float32[Array, "*b T"],
    mask: Float32[Array, "*b T"],
) -> MeanMetric:
    """Half the squared distance of a critic to the returns, a mean over tokens."""
    return MeanMetric.of(0.5 * jnp.square(values - returns), mask)
