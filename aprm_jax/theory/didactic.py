r"""RL on the planted-subsequence task: outcomes alone, or with a prover's progress.

Setlur et al. 2024 (arXiv 2410.08146), section 3 and appendix B: a small autoregressive
policy, fine-tuned on samples of a weak prover, learns by

.. math:: \sum_h \nabla \log \pi(a_h \mid s_h) \, (R - b + \alpha A^\mu(s_h, a_h))

R is the outcome and b its mean over the batch; the prover's advantages are exact, by
the dynamic programme of `planted`.

Axes: B sequences, T tokens, A tokens of the vocabulary, N iterations.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int32

from aprm_jax.theory.planted import PlantedTask


@dataclasses.dataclass(frozen=True)
class Didactic:
    """The published setting.

    Attributes:
      task: what is rewarded.
      width: of the policy's three hidden layers.
      gamma_sft: the prover whose samples the policy is fine-tuned on.
      samples: how many of them.
      sft_updates: of fine-tuning.
      batch: sequences an update.
      learning_rate: of Adam.
      alpha: weight of the progress.
    """

    task: PlantedTask = dataclasses.field(default_factory=PlantedTask)
    width: int = 128
    gamma_sft: float = 5.0
    samples: int = 3200
    sft_updates: int = 50
    batch: int = 64
    learning_rate: float = 1e-3
    alpha: float = 1.0

    def rewards(
        self, gamma: float | None, iterations: int, seed: int
    ) -> Float32[np.ndarray, " N"]:
        """The share of each iteration's batch that is rewarded.

        Args:
          gamma: of the prover; None for outcomes alone.
          iterations: of RL.
          seed: of everything.

        Raises:
          ValueError: no iterations.
        """
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {iterations}")
        task, key = self.task, jax.random.key(seed)
        prover = task.prover(self.gamma_sft if gamma is None else gamma)
        gains = np.zeros_like(task.advantages(prover))
        if gamma is not None:
            gains = self.alpha * task.advantages(prover)
        rng = np.random.default_rng(seed)
        shown, _ = task.samples(task.prover(self.gamma_sft), self.samples, rng)
        found = self._train(
            key, jnp.asarray(shown), jnp.asarray(gains, jnp.float32), iterations
        )
        return np.asarray(found, np.float32)

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _train(self, key: Any, shown: Array, gains: Array, iterations: int) -> Array:
        policy, tx = (
            _Policy(self.task.tokens, self.width),
            optax.adam(self.learning_rate),
        )
        start, *keys = jax.random.split(key, 3)
        params = policy.init(start, jnp.asarray(shown[:1]), jnp.arange(shown.shape[1]))
        state = params, tx.init(params)

        def update(state, loss):
            params, opt = state
            step, opt = tx.update(jax.grad(loss)(params), opt, params)
            return optax.apply_updates(params, step), opt

        def imitate(state, key):
            rows = jax.random.choice(key, shown, (self.batch,))
            weights = jnp.ones(rows.shape)
            return update(state, lambda p: self._loss(policy, p, rows, weights)), None

        def learn(state, key):
            tokens = self._sampled(policy, state[0], key)
            matched = self._matched(tokens)
            arrived = matched[:, -1] == len(self.task.planted)
            outcome = arrived.astype(jnp.float32)
            before = jnp.pad(matched[:, :-1], ((0, 0), (1, 0)))
            time = jnp.arange(tokens.shape[1])[None]
            paid = gains[time, before, tokens] + (outcome - outcome.mean())[:, None]
            state = update(state, lambda p: self._loss(policy, p, tokens, paid))
            return state, outcome.mean()

        state, _ = jax.lax.scan(
            imitate, state, jax.random.split(keys[0], self.sft_updates)
        )
        _, found = jax.lax.scan(learn, state, jax.random.split(keys[1], iterations))
        return found

    def _loss(
        self, policy: _Policy, params: Any, tokens: Array, weights: Array
    ) -> Float32[Array, ""]:
        """Minus the weighted log-probability of tokens up to the first end."""
        logprobs = jax.nn.log_softmax(_logits(policy, params, tokens))
        chosen = jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]
        ended = jnp.cumsum(tokens == self.task.end, axis=1) - (tokens == self.task.end)
        mask = ended == 0
        return -(chosen * weights * mask).sum() / tokens.shape[0]

    def _sampled(self, policy: _Policy, params: Any, key: Any) -> Int32[Array, "B T"]:
        """Sequences of the policy; the end token fills what follows one."""
        end, length = self.task.end, self.task.length

        def write(tokens, at):
            t, key = at
            logits = _logits(policy, params, tokens, t[None])[:, 0]
            drawn = jax.random.categorical(key, logits)
            over = (tokens[:, jnp.maximum(t - 1, 0)] == end) & (t > 0)
            return tokens.at[:, t].set(jnp.where(over, end, drawn)), None

        empty = jnp.zeros((self.batch, length), jnp.int32)
        keys = jax.random.split(key, length)
        tokens, _ = jax.lax.scan(write, empty, (jnp.arange(length), keys))
        return tokens

    def _matched(self, tokens: Int32[Array, "B T"]) -> Int32[Array, "B T"]:
        """How much of the planted sequence is matched after each token."""
        table = jnp.asarray(self.task.automaton)

        def step(k, token):
            over = (token == self.task.end) & (k < len(self.task.planted))
            after = jnp.where(over, 0, table[k, token])
            return after, after

        _, out = jax.lax.scan(step, jnp.zeros(tokens.shape[0], int), tokens.T)
        return out.T


class _Policy(nn.Module):
    """Logits of each token from those before it: three hidden layers.

    Every position is read by the same layers, with what follows hidden and the
    position told, as a masked autoencoder (MADE) hides it in its weights.
    """

    tokens: int
    width: int

    @nn.compact
    def __call__(
        self, tokens: Int32[Array, "B T"], at: Int32[Array, " P"]
    ) -> Float32[Array, "B P A"]:
        rows, length = tokens.shape
        hot = jax.nn.one_hot(tokens, self.tokens)
        seen = jnp.arange(length)[None] < at[:, None]  # what stands before each
        x = hot[:, None] * seen[None, :, :, None]
        x = x.reshape(rows, at.size, -1)
        position = jax.nn.one_hot(at, length)[None]
        x = jnp.concatenate([x, jnp.repeat(position, rows, axis=0)], axis=-1)
        for _ in range(3):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.tokens)(x)


def _logits(
    policy: _Policy, params: Any, tokens: Array, at: Array | None = None
) -> Array:
    """Of the tokens at the positions `at`, [B, P, A]; None for all of them."""
    at = jnp.arange(tokens.shape[1]) if at is None else at
    return cast(Array, policy.apply(params, tokens, at))
