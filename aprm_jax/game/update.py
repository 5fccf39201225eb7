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

from aprm_jax.data.rows import StepBatch
from aprm_jax.game.ogda import ogda_adam
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.lora import LoraConfig, materialise
from aprm_jax.policy.advantages import gae, group_advantages
from aprm_jax.policy.logprobs import PolicyTokens, read_replies
from aprm_jax.policy.losses import (
    clipped_surrogate,
    importance_weights,
    value_loss,
)
from aprm_jax.policy.rewards import regularised
from aprm_jax.training.learner import (
    LearnerState,
    Loss,
    Scalars,
    by_microbatch,
    guarded,
    learn,
)
from aprm_jax.training.masked import MaxMetric, MeanMetric, masked_mean
from aprm_jax.training.mesh import on_mesh
from aprm_jax.training.schedules import warmup_cosine
from aprm_jax.verifiers.objective import PrmObjective
from aprm_jax.verifiers.step_loss import PrmBatch, prepare_steps, step_loss

Params = Any


@flax.struct.dataclass
class GameState:
    """Everything of the game that a joint update changes.

    Attributes:
      generator: of `{"backbone", "value_head"}`, or with LoRA of
        `{"lora", "value_head"}`: an adapter on the backbone of its reference.
      prm: of `{"backbone", "head"}`, or with LoRA of `{"lora", "head"}`.
    """

    generator: LearnerState
    prm: LearnerState


@flax.struct.dataclass
class References:
    """The fixed policies that both players are regularised towards.

    With LoRA they are also the frozen bases under the players' adapters.
    """

    generator: Params
    prm: Params


@flax.struct.dataclass
class GeneratorBatch:
    """Distinct perturbations of one round: B rows of up to S replies of up to R tokens.

    Replies to one prompt branch off it where the model reads rows that branch: it is
    then read once for all of them.
    """

    rows: StepBatch  # the replies are its steps
    # Where in its row each token of a reply stands; -1 past its end.
    columns: Int32[Array | np.ndarray, "B S R"]
    # r_G, expected over R's verdict, at the reply's last token; 0 elsewhere.
    rewards: Float32[Array | np.ndarray, "B S R"]
    # How often it was drawn; 0 is padding, masked, or imitated.
    weight: Float32[Array | np.ndarray, "B S"]
    group: Int32[Array | np.ndarray, "B S"]  # index of its (Q, S, s), below B * S
    # Of the sampler; 0 past the reply's end.
    sampler_logprobs: Float32[Array | np.ndarray, "B S R"]
    # None: those of this iterate.
    old_logprobs: Float32[Array | np.ndarray, "B S R"] | None
    # 1 for replies of earlier rounds that are to be imitated; None: none are.
    imitation: Float32[Array | np.ndarray, "B S"] | None = None
    # 1 on tokens that another model drew, whose log-probabilities the sampler's are
    # there; None: none are.
    forced: Float32[Array | np.ndarray, "B S R"] | None = None

    @property
    def mask(self) -> Float32[Array, "B S R"]:
        """1 on the tokens of replies."""
        return (jnp.asarray(self.columns) >= 0).astype(jnp.float32)


_WEIGHT_CAP = 2.0  # the largest importance weight of a token that G did not draw


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """What the joint update needs of a config; see `aprm_jax.config`."""

    head: str
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
    microbatches: int = 1  # parts of each batch, for memory; see training/learner.py


def generator_loss(
    params: Params,
    ref_logprobs: Float32[Array, "B S R"],
    batch: GeneratorBatch,
    decoder: Decoder,
    config: UpdateConfig,
) -> Loss:
    """PPO's loss for G on replies that this iterate drew, all of a round at once.

    With several epochs `batch.old_logprobs` are those of the iterate that did.
    """
    tokens = read_replies(decoder, params, batch.rows, batch.columns)
    old, values = jax.lax.stop_gradient((tokens.logprobs, tokens.values))
    plan = _plan(batch, ref_logprobs, old, values, config)
    return _planned_loss(tokens, plan, config)


@flax.struct.dataclass
class _Plan:
    """What G's loss needs of a whole round; each row can then be taken alone."""

    batch: GeneratorBatch
    ref_logprobs: Float32[Array, "B S R"]
    old_logprobs: Float32[Array, "B S R"]
    advantages: Float32[Array, "B S R"]
    returns: Float32[Array, "B S R"] | None  # of a critic


def _plan(
    batch: GeneratorBatch,
    ref_logprobs: Array,
    here: Array,
    values: Array | None,
    config: UpdateConfig,
) -> _Plan:
    """Rewards with both players' kind of regulariser, and the advantages of tokens."""
    reply, weight = batch.mask, jnp.asarray(batch.weight)
    old = here if batch.old_logprobs is None else jnp.asarray(batch.old_logprobs)
    rewards = regularised(
        jnp.asarray(batch.rewards),
        old,
        ref_logprobs,
        reply,
        beta=config.beta_generator,
        eta=config.eta_generator,
    )
    weights = jnp.asarray(1.0)
    if batch.forced is not None:
        weights = _forced_weights(batch.forced, here, batch.sampler_logprobs)
        # A token that G would not write says little of its distance to the reference.
        paid = jnp.asarray(batch.rewards)
        rewards = paid + weights * (rewards - paid)
    returns = None
    if config.advantage == "gae":
        assert values is not None
        found = gae(
            *(x.reshape(-1, x.shape[-1]) for x in (rewards, values, reply)),
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        advantages, returns = (x.reshape(old.shape) for x in found)
    else:
        totals, group = jnp.sum(rewards, axis=-1), jnp.asarray(batch.group)
        advantage = group_advantages(totals.ravel(), group.ravel(), weight.ravel())
        advantages = jnp.broadcast_to(
            advantage.reshape(weight.shape)[..., None], old.shape
        )
    if config.normalise_advantage:
        mask = reply * weight[..., None]
        mean = masked_mean(advantages, mask)
        spread = jnp.sqrt(masked_mean(jnp.square(advantages - mean), mask))
        advantages = advantages / (spread + 1e-6)
    return _Plan(batch, ref_logprobs, old, weights * advantages, returns)


def _forced_weights(forced: Any, here: Array, drawn_by: Any) -> Array:
    """Truncated importance weights of the tokens that another model drew, else 1."""
    weights = importance_weights(here, jnp.asarray(drawn_by), _WEIGHT_CAP)
    return jnp.where(jnp.asarray(forced) > 0, weights, 1.0)


def _planned_loss(tokens: PolicyTokens, plan: _Plan, config: UpdateConfig) -> Loss:
    batch = plan.batch
    reply, weight = batch.mask, jnp.asarray(batch.weight)
    mask = reply * weight[..., None]
    surrogate, clipped = clipped_surrogate(
        tokens.logprobs, plan.old_logprobs, plan.advantages, mask, config.clip_ratio
    )
    loss, metrics = -surrogate, {"clipped": clipped}
    if plan.returns is not None:
        assert tokens.values is not None
        of_values = value_loss(tokens.values, plan.returns, mask)
        metrics["value_loss"] = of_values
        scaled = config.value_weight * of_values.total
        loss = MeanMetric(loss.total + scaled, loss.weight)
    if batch.imitation is not None:
        # Each as one more draw whose advantage is 1, at the ratio 1.
        of_imitated = MeanMetric.of(
            tokens.logprobs, reply * jnp.asarray(batch.imitation)[..., None]
        )
        metrics["imitated_logprob"] = of_imitated
        total = loss.total - of_imitated.total
        loss = MeanMetric(total, loss.weight + of_imitated.weight)
    here = jax.lax.stop_gradient(tokens.logprobs)
    kl = here - plan.ref_logprobs
    gap = jnp.abs(here - batch.sampler_logprobs)
    own = mask if batch.forced is None else mask * (1.0 - batch.forced)
    return loss, metrics | {
        "reward": MeanMetric.of(jnp.sum(batch.rewards * reply, axis=-1), weight),
        "kl_sequence": MeanMetric.of(jnp.sum(kl * reply, axis=-1), weight),
        "kl_token": MeanMetric.of(kl, mask),
        "entropy_token": MeanMetric.of(tokens.entropy, mask),
        "sampler_gap_mean": MeanMetric.of(gap, own),
        "sampler_gap_max": MaxMetric.of(gap, own),
    }


def _learn_generator(
    state: LearnerState,
    ref: Params,
    batch: GeneratorBatch,
    decoder: Decoder,
    config: UpdateConfig,
    tx: optax.GradientTransformation,
):
    """G's step; in parts, its advantages are those of the whole round all the same."""

    def read(params) -> PolicyTokens:
        return by_microbatch(
            lambda part: read_replies(decoder, params, *part),
            (batch.rows, batch.columns),
            config.microbatches,
        )

    def model(trained):
        return materialise(ref, trained, config.lora)

    ref_logprobs = read(ref).logprobs
    if config.microbatches == 1:

        def whole(trained, batch):
            params = model(trained)
            return generator_loss(params, ref_logprobs, batch, decoder, config)

        return learn(tx, state, whole, batch)
    tokens = read(model(state.params))
    plan = _plan(batch, ref_logprobs, tokens.logprobs, tokens.values, config)

    def part(trained, plan):
        params, batch = model(trained), plan.batch
        tokens = read_replies(decoder, params, batch.rows, batch.columns)
        return _planned_loss(tokens, plan, config)

    return learn(tx, state, part, plan, config.microbatches)


def _learn_prm(
    state: LearnerState,
    ref: Params,
    batch: PrmBatch,
    decoder: Decoder,
    config: UpdateConfig,
    tx: optax.GradientTransformation,
    key: Array,
):
    def part(trained, prepared) -> Loss:
        params = materialise(ref, trained, config.lora)
        return step_loss(params, prepared, decoder, config.head, config.prm)

    parts = config.microbatches
    prepared = prepare_steps(decoder, ref, batch, config.head, config.prm, key, parts)
    return learn(tx, state, part, prepared, parts)


def make_update(
    decoder: Decoder,
    config: UpdateConfig,
    generator_tx: optax.GradientTransformation,
    prm_tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
    prm_decoder: Decoder | None = None,
) -> Callable[..., tuple[GameState, Scalars]]:
    """Compiles `update(state, refs, generator_batch, prm_batch, key)`.

    The state is donated. Where any loss or gradient is not finite the old state
    comes back and `metrics["nonfinite"]` is 1. A player whose batch weighs nothing
    keeps its state, optimiser included, while the other steps. One that is not trained
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
    ) -> tuple[GameState, Scalars]:
        metrics: Scalars = {}
        after, finite = [state.generator, state.prm], jnp.asarray(True)
        moves = [finite, finite]  # whether each has something to learn from
        # Both gradients are of `state`: neither player sees the other's step.
        if config.train_generator:
            assert generator_batch is not None
            after[0], learned, fine, moves[0] = _learn_generator(
                state.generator,
                refs.generator,
                generator_batch,
                decoder,
                config,
                generator_tx,
            )
            finite &= fine
            metrics |= {f"generator/{k}": v for k, v in learned.items()}
        if config.train_prm:
            assert prm_batch is not None
            after[1], learned, fine, moves[1] = _learn_prm(
                state.prm, refs.prm, prm_batch, prm_decoder, config, prm_tx, key
            )
            finite &= fine
            metrics |= {f"prm/{k}": v for k, v in learned.items()}
        before = [state.generator, state.prm]
        kept, flag = guarded(mesh, before, after, finite, moves)
        return GameState(*kept), metrics | flag

    return jax.jit(on_mesh(mesh, update), donate_argnums=0)


def game_optimiser(
    learning_rate: float,
    *,
    warmup: int,
    total: int,
    b1: float,
    b2: float,
    clip_norm: float,
    optimistic: bool = True,
    factored: bool = False,
) -> optax.GradientTransformation:
    """OGDA on Adam's preconditioned gradient; plain Adam where not `optimistic`.

    The learning rate warms up over `warmup` steps and falls along a cosine. `factored`
    is for OGDA's memory; see `ogda_adam`.
    """
    schedule = warmup_cosine(learning_rate, warmup, total)
    if optimistic:
        return ogda_adam(schedule, b1=b1, b2=b2, clip_norm=clip_norm, factored=factored)
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), optax.adam(schedule, b1=b1, b2=b2)
    )
