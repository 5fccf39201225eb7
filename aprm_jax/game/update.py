"""The joint update: both players' gradients at the same iterate, then both OGDA steps.

One compiled, donated function holds G's PPO loss, R's loss and both optimisers.
Sampling and the oracle sit outside it (see `aprm_jax.game.rollouts`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int32

from aprm_jax.data.steps import StepBatch
from aprm_jax.game import ppo
from aprm_jax.game.ogda import ogda_adam
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.lora import LoraConfig, materialise
from aprm_jax.training.masked import masked_mean, mean_or_nan
from aprm_jax.training.mesh import pin
from aprm_jax.training.schedules import warmup_cosine
from aprm_jax.verifiers.objective import PrmObjective, prm_loss

Params = Any
Metrics = dict[str, Float32[Array, ""]]
SOURCES = ("clean", "fresh", "replayed")


@flax.struct.dataclass
class GameState:
    """Everything of the game that a joint update changes.

    Attributes:
      generator: `{"backbone", "value_head"}`, or with LoRA `{"lora", "value_head"}`:
        an adapter on the backbone of its reference.
      prm: `{"backbone", "head"}`, or with LoRA `{"lora", "head"}`.
      generator_opt: optimiser state of G; None where it is not trained.
      prm_opt: optimiser state of R; likewise.
    """

    generator: Params
    prm: Params
    generator_opt: optax.OptState | None
    prm_opt: optax.OptState | None


@flax.struct.dataclass
class References:
    """The fixed policies that both players are regularised towards.

    With LoRA they are also the frozen bases under the players' adapters.
    """

    generator: Params
    prm: Params


@flax.struct.dataclass
class GeneratorBatch:
    """Distinct perturbations of one round."""

    rows: StepBatch  # the reply is the scored step
    # r_G, expected over R\'s verdict.
    reward: Float32[Array | np.ndarray, " B"]
    # How often it was drawn; 0 is padding, or masked.
    weight: Float32[Array | np.ndarray, " B"]
    group: Int32[Array | np.ndarray, " B"]  # index of its (Q, S, s), below B
    # Of the sampler; 0 off the reply.
    sampler_logprobs: Float32[Array | np.ndarray, "B T"]
    # None: those of this iterate.
    old_logprobs: Float32[Array | np.ndarray, "B T"] | None


@flax.struct.dataclass
class PrmBatch:
    """Labelled steps for R: the mixture of clean, fresh and replayed ones."""

    rows: StepBatch
    source: Int32[Array | np.ndarray, " B"]  # index into SOURCES


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """What the joint update needs of a config; see `aprm_jax.config`."""

    reading: str
    advantage: str
    normalise_advantage: bool
    gae_lambda: float
    gamma: float
    value_weight: float
    clip_ratio: float
    beta_generator: float
    eta_generator: float
    prm: PrmObjective
    train_generator: bool = True
    train_prm: bool = True
    lora: LoraConfig | None = None  # None: players are full parameters


def policy(
    decoder: Decoder, params: Params, rows: StepBatch
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"], Float32[Array, "B T"] | None]:
    """Log-probability and entropy of each reply token, and the value before it.

    All three are 0 where a token is not part of a reply; values are None for a tree
    without a value head.
    """
    tokens = jnp.asarray(rows.tokens)
    hidden = decoder.apply(
        {"params": params["backbone"]},
        tokens,
        jnp.asarray(rows.positions),
        jnp.asarray(rows.segment_ids),
    )
    assert isinstance(hidden, jax.Array)
    logits = decoder.apply(
        {"params": params["backbone"]}, hidden[:, :-1], method=Decoder.logits
    )
    assert isinstance(logits, jax.Array)
    logp = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A one-hot product instead of a gather: its gradient is no scatter, which XLA
    # runs on one CPU thread.
    hot = jax.nn.one_hot(tokens[:, 1:], logp.shape[-1], dtype=jnp.float32)
    chosen = jnp.sum(logp * hot, axis=-1)
    entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
    reply = jnp.asarray(rows.step_ids)[:, 1:] >= 0

    def place(x: Array) -> Array:
        return jnp.pad(jnp.where(reply, x, 0.0), ((0, 0), (1, 0)))

    values = None
    if "value_head" in params:
        values = place(heads.values(params["value_head"], hidden[:, :-1]))
    return place(chosen), place(entropy), values


def generator_loss(
    params: Params,
    ref_logprobs: Float32[Array, "B T"],
    batch: GeneratorBatch,
    decoder: Decoder,
    config: UpdateConfig,
) -> tuple[Float32[Array, ""], Metrics]:
    """PPO's loss for G with both players' kind of regulariser as token rewards."""
    logprobs, entropy, values = policy(decoder, params, batch.rows)
    reply = (jnp.asarray(batch.rows.step_ids) >= 0).astype(jnp.float32)
    weight, reward = jnp.asarray(batch.weight), jnp.asarray(batch.reward)
    mask = reply * weight[:, None]
    here = jax.lax.stop_gradient(logprobs)
    old = here if batch.old_logprobs is None else jnp.asarray(batch.old_logprobs)
    rewards = ppo.token_rewards(
        reward,
        old,
        ref_logprobs,
        reply,
        beta=config.beta_generator,
        eta=config.eta_generator,
    )
    value_loss = jnp.zeros((), jnp.float32)
    if config.advantage == "gae":
        assert values is not None
        advantages, returns = ppo.gae(
            rewards,
            jax.lax.stop_gradient(values),
            reply,
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        value_loss = masked_mean(0.5 * jnp.square(values - returns), mask)
    else:
        totals = jnp.sum(rewards, axis=1)
        advantage = ppo.group_advantages(totals, jnp.asarray(batch.group), weight)
        advantages = jnp.broadcast_to(advantage[:, None], logprobs.shape)
    if config.normalise_advantage:
        mean = masked_mean(advantages, mask)
        spread = jnp.sqrt(masked_mean(jnp.square(advantages - mean), mask))
        advantages = advantages / (spread + 1e-6)
    surrogate, clipped = ppo.clipped_surrogate(
        logprobs, old, advantages, mask, config.clip_ratio
    )
    loss = -surrogate + config.value_weight * value_loss
    kl = jnp.sum((here - ref_logprobs) * reply, axis=1)
    gap = jnp.abs(here - batch.sampler_logprobs)
    metrics = {
        "loss": loss,
        "value_loss": value_loss,
        "clipped": clipped,
        "reward": masked_mean(reward, weight),
        "kl_sequence": masked_mean(kl, weight),
        "kl_token": masked_mean(here - ref_logprobs, mask),
        "entropy_token": masked_mean(entropy, mask),
        "sampler_gap_mean": masked_mean(gap, mask),
        "sampler_gap_max": jnp.max(jnp.where(mask > 0, gap, 0.0)),
    }
    return loss, metrics


def _prm_step_loss(params, ref_logits, batch: PrmBatch, decoder, config, key):
    logits = heads.step_logits(decoder, params, batch.rows, config.reading)
    labels, mask = jnp.asarray(batch.rows.labels), jnp.asarray(batch.rows.label_mask)
    loss, metrics = prm_loss(logits, ref_logits, labels, mask, config.prm, key)
    right = (logits > 0) == (labels > 0.5)
    for index, name in enumerate(SOURCES):
        of_source = mask * (batch.source == index)[:, None]
        metrics[f"accuracy_{name}"] = mean_or_nan(right, of_source)
    return loss, metrics


def gradient_change(gradient: Params, previous: Params) -> Float32[Array, ""]:
    """||g_t - g_{t-1}|| / ||g_t||: how far optimism looks ahead."""
    change = jax.tree.map(jnp.subtract, gradient, previous)
    return optax.tree.norm(change) / (optax.tree.norm(gradient) + 1e-12)


def _step(tx, gradient, opt_state, params):
    """One optimiser step, its new state, and the gradient change where it is kept."""
    updates, new_state = tx.update(gradient, opt_state, params)
    change = jnp.full((), jnp.nan, jnp.float32)
    previous = optax.tree_utils.tree_get(opt_state, "previous")
    if previous is not None:
        current = optax.tree_utils.tree_get(new_state, "previous")
        change = gradient_change(current, previous)
    return optax.apply_updates(params, updates), new_state, change


def make_update(
    decoder: Decoder,
    config: UpdateConfig,
    generator_tx: optax.GradientTransformation,
    prm_tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
    prm_decoder: Decoder | None = None,
) -> Callable[..., tuple[GameState, Metrics]]:
    """Compiles `update(state, refs, generator_batch, prm_batch, key)`.

    The state is donated. Where any loss or gradient is not finite the old state
    comes back and `metrics["nonfinite"]` is 1. A player that is not trained
    (`train_generator`, `train_prm`) keeps its parameters, and its batch may be None.
    On a `mesh` the state stays where `training.mesh` puts it. `prm_decoder` is R's
    architecture where it is not G's.
    """
    prm_decoder = decoder if prm_decoder is None else prm_decoder

    def update(
        state: GameState,
        refs: References,
        generator_batch: GeneratorBatch | None,
        prm_batch: PrmBatch | None,
        key: Array,
    ) -> tuple[GameState, Metrics]:
        metrics: Metrics = {}
        new = {}
        finite = jnp.asarray(True)
        if config.train_generator:
            assert generator_batch is not None
            ref_logprobs, _, _ = policy(decoder, refs.generator, generator_batch.rows)

            def loss_of_generator(trained):
                params = materialise(refs.generator, trained, config.lora)
                return generator_loss(
                    params, ref_logprobs, generator_batch, decoder, config
                )

            (_, g_metrics), g_grad = jax.value_and_grad(
                loss_of_generator, has_aux=True
            )(state.generator)
            g_norm = optax.tree.norm(g_grad)
            finite &= jnp.isfinite(g_norm) & jnp.isfinite(g_metrics["loss"])
            new["generator"], new["generator_opt"], change = _step(
                generator_tx, g_grad, state.generator_opt, state.generator
            )
            g_metrics |= {"grad_norm": g_norm, "grad_change": change}
            metrics |= {f"generator/{k}": v for k, v in g_metrics.items()}
        if config.train_prm:
            assert prm_batch is not None
            ref_logits = jnp.zeros_like(jnp.asarray(prm_batch.rows.labels))
            if config.prm.beta > 0:
                ref_logits = heads.step_logits(
                    prm_decoder, refs.prm, prm_batch.rows, config.reading
                )

            def loss_of_prm(trained):
                params = materialise(refs.prm, trained, config.lora)
                return _prm_step_loss(
                    params, ref_logits, prm_batch, prm_decoder, config, key
                )

            (_, r_metrics), r_grad = jax.value_and_grad(loss_of_prm, has_aux=True)(
                state.prm
            )
            if config.prm.beta == 0:
                del r_metrics["kl"]  # of no reference: nothing was measured
            r_norm = optax.tree.norm(r_grad)
            finite &= jnp.isfinite(r_norm) & jnp.isfinite(r_metrics["loss"])
            new["prm"], new["prm_opt"], change = _step(
                prm_tx, r_grad, state.prm_opt, state.prm
            )
            r_metrics |= {"grad_norm": r_norm, "grad_change": change}
            metrics |= {f"prm/{k}": v for k, v in r_metrics.items()}
        after = dataclasses.replace(state, **new)
        after = jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, state)
        metrics["nonfinite"] = 1.0 - finite.astype(jnp.float32)
        return pin(mesh, after), metrics

    return jax.jit(update, donate_argnums=0)


def game_optimiser(
    learning_rate: float,
    *,
    warmup: int,
    total: int,
    b1: float,
    b2: float,
    clip_norm: float,
    optimistic: bool = True,
) -> optax.GradientTransformation:
    """OGDA on Adam's preconditioned gradient; plain Adam where not `optimistic`.

    The learning rate warms up over `warmup` steps and falls along a cosine.
    """
    schedule = warmup_cosine(learning_rate, warmup, total)
    if optimistic:
        return ogda_adam(schedule, b1=b1, b2=b2, clip_norm=clip_norm)
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), optax.adam(schedule, b1=b1, b2=b2)
    )
