"""From rewards to a policy's update: advantages of a round, the loss, the step.

Axes: B solutions, S steps, T tokens; of what is read, B rows of K solutions.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Shaped

from aprm_jax.models.decoder import Decoder
from aprm_jax.models.lora import materialise
from aprm_jax.policy import losses, rewards
from aprm_jax.policy.advantages import baselined, gae, of_tokens, returns_to_go
from aprm_jax.policy.logprobs import read_replies
from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.sources import SOURCES
from aprm_jax.rl.trajectories import SolutionRows
from aprm_jax.training.learner import Loss, Metric, Scalars
from aprm_jax.training.masked import MaxMetric, MeanMetric, masked_mean

ESTIMATORS = ("grpo", "rloo", "reinforce++", "ppo")
AnyArray = Array | np.ndarray


@flax.struct.dataclass
class Payment:
    """What the sources pay for the solutions of a round.

    Attributes:
      sources: by name, float32 of steps [B, S] or of whole solutions [B, 1]; NaN where
        a source does not pay.
      steps: 1 where a solution has the step.
      weight: 0 leaves a solution out.
      groups: index of the problem that it solves, below B.
    """

    sources: dict[str, Any]
    steps: Float32[AnyArray, "B S"]
    weight: Float32[AnyArray, " B"]
    groups: Int32[AnyArray, " B"]


@flax.struct.dataclass
class Readings:
    """What models say of the sampled tokens; 0 off them."""

    ref_logprobs: Float32[AnyArray, "B T"]
    old_logprobs: Float32[AnyArray, "B T"] | None = None  # of the policy before
    values: Float32[AnyArray, "B T"] | None = None  # of its critic
    implicit: Float32[AnyArray, "B T"] | None = None  # of a language model that pays


@flax.struct.dataclass
class PolicyBatch:
    """Solutions to learn from: B rows of K, of T sampled tokens; 0 past their ends."""

    read: SolutionRows
    weight: Float32[AnyArray, "B K"]  # 0 leaves a solution out
    advantages: Float32[AnyArray, "B K T"]
    ref_logprobs: Float32[AnyArray, "B K T"]
    # None: those of this iterate.
    old_logprobs: Float32[AnyArray, "B K T"] | None
    returns: Float32[AnyArray, "B K T"] | None  # of a critic


def advantages_of(
    config: RLConfig,
    step_ids: Int32[AnyArray, "B T"],
    payment: Payment,
    read: Readings,
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"] | None]:
    """Advantages of a round's tokens, and a critic's returns.

    Each source's returns are compared with those of other samples by themselves, and
    the results are added; a critic learns the weighted sum. What pays a step by its
    own worth alone ("first_error", "progress") is no reward to go for either: summed
    over the steps to come, progress would telescope into a baseline and cancel.
    """
    step_ids = jnp.asarray(step_ids)
    reply = (step_ids >= 0).astype(jnp.float32)
    sources = {k: jnp.asarray(x) for k, x in payment.sources.items()}
    if read.implicit is not None:
        width = jnp.shape(payment.steps)[1]
        paid = rewards.implicit(
            jnp.asarray(read.implicit),
            jnp.asarray(read.ref_logprobs),
            reply,
            config.pay.implicit_beta,
        )
        sources["implicit"] = rewards.by_step(paid, step_ids, width)
    if config.estimator == "ppo":
        return _with_critic(config, step_ids, reply, sources, payment, read)
    total, weights = jnp.zeros_like(reply), config.weight_of()
    for name, paid in sources.items():
        found = _compared(config, name, paid, payment)
        total += weights[name] * of_tokens(found, step_ids)
    if config.kl_weight and config.kl_as == "reward":
        kl = rewards.by_step(_kl(config, reply, read), step_ids, payment.steps.shape[1])
        mask = jnp.asarray(payment.steps) * jnp.asarray(payment.weight)[:, None]
        togo = returns_to_go(kl, mask, config.gamma)
        groups = jnp.asarray(payment.groups)
        # It has a scale of its own, the weight, which no deviation is to undo.
        found = baselined(togo, mask, groups, config.estimator, scaled=False)
        total += of_tokens(found, step_ids)
    return total, None


def _kl(config: RLConfig, reply: Array, read: Readings) -> Array:
    """-weight k1 of each token, as a reward."""
    assert read.old_logprobs is not None
    gap = jnp.asarray(read.old_logprobs) - jnp.asarray(read.ref_logprobs)
    return -config.kl_weight * gap * reply


def _mask(paid: Array, payment: Payment) -> Array:
    steps = jnp.asarray(payment.steps)
    if paid.shape[1] == 1:
        steps = jnp.max(steps, axis=1, keepdims=True)
    return steps * jnp.asarray(payment.weight)[:, None] * jnp.isfinite(paid)


def _compared(config: RLConfig, name: str, paid: Array, payment: Payment) -> Array:
    mask = _mask(paid, payment)
    paid = jnp.where(mask > 0, paid, 0.0)
    togo = paid if SOURCES[name].own else returns_to_go(paid, mask, config.gamma)
    how, scaled = config.estimator, True
    if how == "ppo":  # what its critic does not see
        how, scaled = "reinforce++", False
    return baselined(togo, mask, jnp.asarray(payment.groups), how, scaled)


def _with_critic(
    config: RLConfig,
    step_ids: Array,
    reply: Array,
    sources: Mapping[str, Array],
    payment: Payment,
    read: Readings,
) -> tuple[Array, Array]:
    """GAE on the weighted sum of rewards to go, then whitened."""
    assert read.values is not None
    mask = reply * jnp.asarray(payment.weight)[:, None]
    tokens, beside = jnp.zeros_like(reply), jnp.zeros_like(reply)
    weights = config.weight_of()
    for name, paid in sources.items():
        weight = weights[name]
        if SOURCES[name].own:
            found = _compared(config, name, paid, payment)
            beside += weight * of_tokens(found, step_ids)
            continue
        known = jnp.where(_mask(paid, payment) > 0, paid, 0.0)
        if SOURCES[name].whole:
            tokens += weight * rewards.at_last_token(known[:, 0], reply)
        else:
            tokens += weight * rewards.at_step_ends(known, step_ids)
    if config.kl_weight and config.kl_as == "reward":
        tokens += _kl(config, reply, read)
    gains, returns = gae(
        tokens,
        jnp.asarray(read.values),
        reply,
        gamma=config.gamma,
        lam=config.gae_lambda,
    )
    gains += beside
    centred = gains - masked_mean(gains, mask)
    spread = jnp.sqrt(masked_mean(jnp.square(centred), mask))
    return centred / (spread + 1e-6) * reply, returns


def in_rows(
    config: RLConfig,
    step_ids: Int32[AnyArray, "B K T"],
    payment: Payment,
    read: Readings,
) -> tuple[Float32[Array, "B K T"], Float32[Array, "B K T"] | None]:
    """`advantages_of`, where solutions and what is read of them lie in rows of K."""
    found = advantages_of(
        config, solutions(step_ids), payment, jax.tree.map(solutions, read)
    )
    return jax.tree.map(lambda x: x.reshape(step_ids.shape), found)


def solutions(x: Shaped[AnyArray, "B K T"]) -> Shaped[Array, "B*K T"]:
    """What lies in rows of K solutions, solution by solution."""
    return jnp.asarray(x).reshape(-1, x.shape[-1])


def policy_loss(
    trained: Any,
    batch: PolicyBatch,
    base: Any,
    decoder: Decoder,
    config: RLConfig,
    most_tokens: int,
) -> Loss:
    """The loss of solutions, each by itself once their advantages are known.

    Args:
      trained: what is learned: a model, or an adapter on `base`.
      batch: of solutions.
      base: the reference.
      decoder: the module.
      config: the settings.
      most_tokens: of a solution: "constant" aggregation divides its sum by them.
    """
    params = materialise(base, trained, config.lora)
    read = batch.read
    tokens = jax.tree.map(
        solutions, read_replies(decoder, params, read.rows, read.columns)
    )
    here = jax.lax.stop_gradient(tokens.logprobs)
    old = here if batch.old_logprobs is None else solutions(batch.old_logprobs)
    sampler, ref = solutions(read.sampler_logprobs), solutions(batch.ref_logprobs)
    reply = (solutions(read.columns) >= 0).astype(jnp.float32)
    weight = jnp.ravel(jnp.asarray(batch.weight))
    objective, outside = losses.token_objective(
        tokens.logprobs,
        old,
        solutions(batch.advantages),
        low=config.clip_low,
        high=config.clip_high,
        dual=config.dual_clip,
    )
    trust = losses.importance_weights(old, sampler, config.importance_cap)

    def mean(values: Array) -> MeanMetric:
        how = config.aggregation
        return losses.aggregated(values, reply, weight, how, float(most_tokens))

    value = -objective * trust
    mask = reply * weight[:, None]
    written = jnp.max(reply, axis=1)  # also by whom nothing is learned from
    metrics: dict[str, Any] = {}
    if config.kl_weight and config.kl_as == "loss":
        value += config.kl_weight * trust * losses.squared_kl(tokens.logprobs, ref)
    if batch.returns is not None:
        assert tokens.values is not None
        returns = solutions(batch.returns)
        value += config.value_weight * 0.5 * jnp.square(tokens.values - returns)
        metrics["value_loss"] = losses.value_loss(tokens.values, returns, mask)
    gap = jnp.abs(old - sampler)
    return mean(value), metrics | {
        "clipped": MeanMetric.of(outside, mask),
        "drift_mean": MeanMetric.of(gap, mask),
        "drift_max": MaxMetric.of(gap, mask),
        "truncated": MeanMetric.of(_truncated(config, old - sampler), mask),
        "entropy_token": MeanMetric.of(tokens.entropy, mask),
        "kl_token": MeanMetric.of(here - ref, reply),
        "kl_sequence": MeanMetric.of(jnp.sum((here - ref) * reply, axis=1), written),
    }


def _truncated(config: RLConfig, log_ratio: Array) -> Array:
    """Whether an importance weight was cut at the cap."""
    cap = config.importance_cap
    over = jnp.exp(log_ratio) > cap if cap else jnp.zeros_like(log_ratio)
    return over.astype(jnp.float32)


def over_updates(metrics: Sequence[Mapping[str, Any]]) -> Scalars:
    """Metrics of a round from those of its updates.

    What adds up is that of all they counted, not a mean of their means; what does not,
    a gradient's norm, is the updates' mean, and a flag the largest.
    """
    out: Scalars = {}
    for name, first in metrics[0].items():
        found = [of_update[name] for of_update in metrics]
        if isinstance(first, Metric):
            out[name] = functools.reduce(operator.add, map(_counted, found)).shown()
        elif name.endswith("nonfinite"):
            out[name] = jnp.max(jnp.stack(found))
        else:
            out[name] = jnp.nanmean(jnp.stack(found))
    return out


def _counted(metric: Any) -> Any:
    """An update's; of a mean that is no number, nothing."""
    if not isinstance(metric, MeanMetric):
        return metric
    known = ~jnp.isnan(metric.total)
    return jax.tree.map(lambda x: jnp.where(known, x, 0.0), metric)
