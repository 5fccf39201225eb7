"""An implicit PRM: a language model that pays for tokens, and may learn from outcomes.

Its log-ratio to the solver's start, summed over a solution, is the log-odds that the
answer is right, so what it adds token by token is a process reward that no step was
labelled for (Cui et al. 2025, "PRIME", arXiv:2502.01456). A learning one learns a
round's outcomes before it pays for that round, as there (algorithm 1).

Axes: B rows of K solutions, of T sampled tokens.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float32

from aprm_jax.models import lora
from aprm_jax.models.decoder import Decoder
from aprm_jax.policy import rewards
from aprm_jax.policy.logprobs import read_replies
from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.task import Task
from aprm_jax.rl.trajectories import SolutionRows
from aprm_jax.rl.update import solutions
from aprm_jax.training.learner import LearnerState, Loss, make_update, start
from aprm_jax.training.masked import MeanMetric
from aprm_jax.training.mesh import shard_batch

AnyArray = Array | np.ndarray


@flax.struct.dataclass
class OutcomeBatch:
    """Solutions whose answers are known."""

    read: SolutionRows
    right: Bool[AnyArray, "B K"]
    weight: Float32[AnyArray, "B K"]  # 0 leaves a solution out
    ref_logprobs: Float32[AnyArray, "B K T"]  # of the solver's start; 0 past an end


def outcome_loss(
    trained: Any, batch: OutcomeBatch, base: Any, decoder: Decoder, config: RLConfig
) -> Loss:
    """Cross-entropy of P(right) = sigmoid(beta sum (log pi_phi - log pi_start)).

    Args:
      trained: the language model, or an adapter on `base`.
      batch: of solutions.
      base: what it starts from.
      decoder: the module.
      config: the settings; `pay.implicit_beta` is beta.
    """
    params = lora.materialise(base, trained, config.lora)
    read = batch.read
    tokens = read_replies(decoder, params, read.rows, read.columns)
    reply = (solutions(read.columns) >= 0).astype(jnp.float32)
    logprobs, ref = solutions(tokens.logprobs), solutions(batch.ref_logprobs)
    paid = rewards.implicit(logprobs, ref, reply, config.pay.implicit_beta)
    log_odds = jnp.sum(paid, axis=1)
    right = jnp.ravel(jnp.asarray(batch.right, jnp.float32))
    weight = jnp.ravel(jnp.asarray(batch.weight))
    loss = optax.sigmoid_binary_cross_entropy(log_odds, right)
    told = ((log_odds > 0) == (right > 0.5)).astype(jnp.float32)
    return MeanMetric.of(loss, weight), {"accuracy": MeanMetric.of(told, weight)}


class ImplicitPRM:
    """The language model behind "implicit" rewards.

    Args:
      task: whose solutions it reads.
      config: `implicit_learning_rate` 0 leaves it as it is.
      params: `{"backbone"}`; with LoRA the base of its adapter.
      key: of the adapter.
    """

    def __init__(self, task: Task, config: RLConfig, params: Any, key: Any):
        self._task, self._config, self._base = task, config, params
        self.learns = config.implicit_learning_rate > 0
        self.state: LearnerState | None = None
        if not self.learns:
            return
        tx = optax.chain(
            optax.clip_by_global_norm(config.clip_norm),
            optax.adam(config.implicit_learning_rate),
        )
        self.state = start(lora.player(key, params, config.lora), tx, task.mesh)
        self._update = make_update(
            functools.partial(outcome_loss, decoder=task.decoder, config=config),
            tx,
            task.mesh,
            microbatches=config.minibatches * config.microbatches,
            prefix="implicit/",
        )

    def learn(
        self, state: LearnerState, batch: OutcomeBatch
    ) -> tuple[LearnerState, dict[str, Any]]:
        """One update on a round's outcomes; `state` is donated."""
        placed = shard_batch(self._task.mesh, batch)
        return self._update(state, placed, self._base)

    def model(self, state: LearnerState | None) -> Any:
        """Parameters `{"backbone"}`, adapters applied."""
        if state is None:
            return self._base
        return lora.materialise(self._base, state.params, self._config.lora)

    def merged(self, state: LearnerState | None) -> Any:
        """The same in plain kernels, as folders of models hold them."""
        if state is None:
            return self._base
        return lora.merged(self._base, state.params, self._config.lora)
