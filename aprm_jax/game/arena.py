"""Where a game is played: the problems, the models' architectures, the devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float32

from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.game.rollouts import Situation
from aprm_jax.models.decoder import Decoder
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.tasks.protocols import Corruptor, Problems, StepOracle
from aprm_jax.verifiers.protocol import Verifier, ends, logit


@dataclasses.dataclass(frozen=True)
class Player:
    """How a player reads text, and its architecture."""

    builder: RowFormat
    decoder: Decoder


@dataclasses.dataclass(frozen=True)
class Arena:
    """Where a game is played: the problems, the architecture, the devices.

    Attributes:
      problems: what is perturbed.
      corruptor: makes static negatives, for a probe of R.
      oracle: judges the steps.
      kinds: of wrong step that it tells apart.
      builder: G's; R's too, unless `prm` says otherwise.
      decoder: likewise.
      sampler: draws G's replies.
      mesh: the devices.
      prm: R's, where it reads with another tokenizer or is another model. The players
        share nothing but text.
      verifier: R where it is no model of this process, but scores text. It cannot
        learn, and a step that it has not read it does not believe; what fits G's rows
        reaches it.
    """

    problems: Problems
    corruptor: Corruptor
    oracle: StepOracle
    kinds: tuple[str, ...]
    builder: StepBuilder
    decoder: Decoder
    sampler: Sampler
    mesh: jax.sharding.Mesh
    prm: Player | None = None
    verifier: Verifier | None = None

    @property
    def prm_player(self) -> Player:
        """R's builder and decoder."""
        return self.prm or Player(self.builder, self.decoder)


def stated_log_odds(
    verifier: Verifier, points: Sequence[Situation]
) -> Float32[np.ndarray, " N"]:
    """A verifier's log-odds that steps are correct; least for one that is not read."""
    pairs = [(point.question, (*point.prefix, point.step)) for point in points]
    stated = verifier.scale.probability(ends(verifier, pairs))
    return logit(np.nan_to_num(stated, nan=0.0)).astype(np.float32)
