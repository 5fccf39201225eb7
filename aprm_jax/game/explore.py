"""A solver helps G to errors that it would not write by itself.

A Generator that starts naive hardly ever writes what its solver gets wrong most, and
what it does not write it cannot learn to write more of. A solver is asked for two
things, neither of which is in the papers: to begin some of the replies, so that G goes
on from where the solver would go (what the solver drew counts by its importance), and
how plausible it finds a wrong step, which is paid besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from aprm_jax.config.game import ExploreConfig
from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import StepBuilder
from aprm_jax.game.rollouts import Opening, Perturbation, Prompt
from aprm_jax.models.decoder import Decoder
from aprm_jax.oracle.verdict import Label
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.verifiers.scoring import Scorer, likelihood_scorer

NATS = 6.0  # a step with a token that is less likely than e^-6 is not plausible at all


class Explorer:
    """What a solver does for G in a game. N perturbations.

    Args:
      config: what it is asked for.
      solver: its parameters.
      builder: its prompts and rows.
      decoder: its architecture.
      sampler: draws from it; of G's tokens, where it begins replies.
    """

    def __init__(
        self,
        config: ExploreConfig,
        solver: Any,
        builder: StepBuilder,
        decoder: Decoder,
        sampler: Sampler,
    ):
        self.config, self._solver = config, solver
        self._builder, self._sampler = builder, sampler
        self._scorer = Scorer(
            likelihood_scorer(decoder), builder, max_steps=1, batch_sizes=(16, 128)
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest opening."""
        return self.config.forced_tokens if self.config.forced else 0

    def openings(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        key: Any,
        rng: np.random.Generator,
    ) -> list[Opening]:
        """One for each of `group_size` replies to each prompt; most may be empty.

        The first situations of a round are opened, which are drawn like all others, if
        the solver has room for them. The token that ends its step is left to G.

        Args:
          prompts: of the round.
          group_size: replies to each.
          key: of the solver's draws.
          rng: says how long each opening is.
        """
        count = self.config.opened(len(prompts)) * group_size
        points = [prompts[i // group_size].situation for i in range(count)]
        contexts = [self._builder.context(p.question, p.prefix) for p in points]
        longest = self._sampler.prompt_buckets[-1]
        fitting = [i for i, ids in enumerate(contexts) if len(ids) <= longest]
        asked = [contexts[i] for i in fitting]
        samples = self._sampler.sample(
            self._solver["backbone"], asked, key, draws=fitting
        )
        wanted = rng.integers(1, self.config.forced_tokens + 1, size=count)
        opened = [Opening()] * (len(prompts) * group_size)
        for k, i in enumerate(fitting):
            reply = samples.reply(k)
            n = min(int(wanted[i]), len(reply.ids) - 1)
            opened[i] = Opening(reply.ids[:n], reply.logprobs[:n])
        return opened

    def bonus(
        self, perturbations: Sequence[Perturbation]
    ) -> Float32[np.ndarray, " N"] | None:
        """What each is paid besides; None where nothing is.

        A wrong step whose least likely token has the log-probability l under the
        solver gets `plausible` * max(0, 1 + l / NATS); any other, 0.
        """
        if not self.config.plausible:
            return None
        rows = self._wrong(perturbations)
        said = self._scorer.rows(self._solver, rows)
        out = np.zeros(len(perturbations), np.float32)
        for i in rows:
            out[i] = max(0.0, 1.0 + float(said[i][0]) / NATS)
        return self.config.plausible * out

    def _wrong(self, perturbations: Sequence[Perturbation]) -> dict[int, StepRow]:
        """Wrong steps as the solver reads them, by their index; those that fit."""
        rows = {
            i: self._builder.step(
                p.situation.question, p.situation.prefix, p.reply.text
            )
            for i, p in enumerate(perturbations)
            if p.verdict.label == Label.INCORRECT
        }
        return {i: row for i, row in rows.items() if self._builder.fits(row)}
