"""The PRM's loss: a verdict on each step, by exact expectation, PPO or cross-entropy.

R's action on a step is one of two verdicts, so its policy is one number,
p = P(correct). It maximises E[r_R] - beta KL(R || R_ref) + eta H(R).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from aprm_jax.training.learner import Loss
from aprm_jax.training.masked import MeanMetric


@dataclasses.dataclass(frozen=True)
class PrmObjective:
    """How R learns from labelled steps.

    Attributes:
      name: `expected` (the expectation over both verdicts), `ppo` (a sampled
        verdict and the clipped ratio) or `cross_entropy` on the label.
      beta: weight of KL(R || R_ref), a mean over steps in nats.
      eta: weight of R's entropy.
      right: reward of a verdict that agrees with the oracle.
      wrong: reward of one that does not.
      clip_ratio: PPO's epsilon.
    """

    name: str = "cross_entropy"
    beta: float = 0.0
    eta: float = 0.0
    right: float = 1.0
    wrong: float = 0.0
    clip_ratio: float = 0.2


def bernoulli_kl(
    logits: Float32[Array, "*s"], ref_logits: Float32[Array, "*s"]
) -> Float32[Array, "*s"]:
    """KL(sigmoid(logits) || sigmoid(ref_logits)) in nats, exact, from log-odds."""
    p = jax.nn.sigmoid(logits)
    log_p, log_1p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    ref_p, ref_1p = jax.nn.log_sigmoid(ref_logits), jax.nn.log_sigmoid(-ref_logits)
    return p * (log_p - ref_p) + (1.0 - p) * (log_1p - ref_1p)


def bernoulli_entropy(logits: Float32[Array, "*s"]) -> Float32[Array, "*s"]:
    """Entropy of sigmoid(logits) in nats."""
    p = jax.nn.sigmoid(logits)
    return -(p * jax.nn.log_sigmoid(logits) + (1.0 - p) * jax.nn.log_sigmoid(-logits))


def prm_loss(
    logits: Float32[Array, "B S"],
    ref_logits: Float32[Array, "B S"],
    labels: Float32[Array, "B S"],
    mask: Float32[Array, "B S"],
    objective: PrmObjective,
    draws: Float32[Array, "B S"],
) -> Loss:
    """The loss that R descends on, and what it is made of.

    Args:
      logits: log-odds of "correct".
      ref_logits: those of the fixed reference.
      labels: the oracle's verdicts, 1 correct, 0 incorrect; soft ones in between.
      mask: weight of each step; 0 leaves it out.
      objective: which objective, and the weights of its regularisers.
      draws: uniform in [0, 1), what the verdicts of `ppo` are drawn with.

    Returns:
      The loss, a mean over steps, and its metrics.
    """
    # Before anything is computed of them: 0 times the gradient of a NaN is a NaN.
    keep = mask != 0
    logits, ref_logits = jnp.where(keep, logits, 0.0), jnp.where(keep, ref_logits, 0.0)
    labels = jnp.where(keep, labels, 0.0)
    gap = objective.right - objective.wrong
    # r(correct | y) - r(incorrect | y); for a soft label its expectation.
    advantage_of_correct = gap * (2.0 * labels - 1.0)
    p = jax.nn.sigmoid(logits)
    expected = objective.wrong + gap * (labels * p + (1.0 - labels) * (1.0 - p))
    if objective.name == "expected":
        utility = expected
    elif objective.name == "cross_entropy":
        utility = gap * (
            labels * jax.nn.log_sigmoid(logits)
            + (1.0 - labels) * jax.nn.log_sigmoid(-logits)
        )
    elif objective.name == "ppo":
        old = jax.lax.stop_gradient(p)
        says_correct = draws < old
        log_p = jax.nn.log_sigmoid(jnp.where(says_correct, logits, -logits))
        # Not a quotient of probabilities: of a certain verdict that is 0 / 0.
        ratio = jnp.exp(log_p - jax.lax.stop_gradient(log_p))
        # The baseline is the exact expected reward, so the advantage of saying
        # "correct" is (1 - p) of the gap between the two, and of the other, -p.
        advantage = advantage_of_correct * jnp.where(says_correct, 1.0 - old, -old)
        clipped = jnp.clip(
            ratio, 1.0 - objective.clip_ratio, 1.0 + objective.clip_ratio
        )
        utility = jnp.minimum(ratio * advantage, clipped * advantage)
    else:
        raise ValueError(f"unknown PRM objective {objective.name!r}")
    kl = bernoulli_kl(logits, jax.lax.stop_gradient(ref_logits))
    entropy = bernoulli_entropy(logits)
    regularised = utility - objective.beta * kl + objective.eta * entropy
    metrics = {
        "reward": MeanMetric.of(expected, mask),
        "kl": MeanMetric.of(kl, mask),
        "entropy": MeanMetric.of(entropy, mask),
        "accuracy": MeanMetric.of((logits > 0) == (labels > 0.5), mask),
    }
    return -MeanMetric.of(regularised, mask), metrics
