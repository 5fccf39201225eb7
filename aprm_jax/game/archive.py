"""What fooled R, by kind of error, for G to imitate.

A kind of error that G writes once in a thousand replies hardly moves its policy
gradient, whatever it pays. Kept, and learned by imitation in proportion to how often
its kind fools R *now*, it comes back until R sees through it: self-imitation (Oh et al.
2018, arXiv:1806.05635), with more weight on the kinds with more loss, as in group-DRO
(Sagawa et al. 2020, arXiv:1911.08731).
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import numpy as np
from jaxtyping import Float32

from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import StepBuilder
from aprm_jax.game.replay import ReplayBuffer
from aprm_jax.game.rollouts import THRESHOLD, Perturbation
from aprm_jax.oracle.verdict import Label

DECAY = 0.9  # of a kind's fool rate, a round in which it was written


@flax.struct.dataclass
class Archive:
    """Replies that fooled R, a buffer a kind. K kinds.

    Attributes:
      buffers: rows of a prompt and its reply, of each kind.
      fool_rates: of each kind, a running mean; 1 before it was first written.
    """

    buffers: tuple[ReplayBuffer, ...]
    fool_rates: Float32[np.ndarray, " K"]

    @classmethod
    def empty(cls, kinds: int, capacity: int, length: int) -> Archive:
        """For `capacity` rows of each kind, of at most `length` tokens."""
        empty = ReplayBuffer.empty(capacity, length)
        return cls((empty,) * kinds, np.ones(kinds, np.float32))

    def add(
        self,
        perturbations: Sequence[Perturbation],
        p_correct: Float32[np.ndarray, " N"],
        kinds: Sequence[str],
        builder: StepBuilder,
    ) -> Archive:
        """A new archive with those of a round that fooled R.

        Args:
          perturbations: of the round.
          p_correct: R's probability of correct for each.
          kinds: names of the K kinds; others are passed over.
          builder: G's.
        """
        rates, buffers = self.fool_rates.copy(), list(self.buffers)
        for k, kind in enumerate(kinds):
            of_kind = [
                i
                for i, p in enumerate(perturbations)
                if p.verdict.label == Label.INCORRECT and p.verdict.kind == kind
            ]
            if not of_kind:
                continue
            fooled = [i for i in of_kind if p_correct[i] >= THRESHOLD]
            rate = len(fooled) / len(of_kind)
            rates[k] = DECAY * rates[k] + (1 - DECAY) * rate
            if fooled:
                buffers[k] = buffers[k].add(
                    [_row(perturbations[i], builder) for i in fooled]
                )
        return Archive(tuple(buffers), rates)

    def sample(self, rng: np.random.Generator, count: int) -> list[StepRow]:
        """Up to `count` distinct rows, from kinds in proportion to their fool rates."""
        weights = self.fool_rates * [buffer.size > 0 for buffer in self.buffers]
        if not count or not weights.sum():
            return []
        shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)
        wanted = rng.multinomial(count, shares)
        return [
            row
            for buffer, n in zip(self.buffers, wanted, strict=True)
            for row in buffer.sample(rng, int(n))
        ]


def _row(perturbation: Perturbation, builder: StepBuilder) -> StepRow:
    return builder.continuation(perturbation.prompt.ids, perturbation.reply.ids)
