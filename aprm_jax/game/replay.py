"""A bounded buffer of past perturbations, kept as arrays for the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import numpy as np
from jaxtyping import Float32, Int32, Int64

from aprm_jax.data.rows import StepRow


@flax.struct.dataclass
class ReplayBuffer:
    """A ring of one-step rows. C capacity, T longest row.

    Attributes:
      tokens: ids, padded with 0.
      positions: of the ids, likewise.
      lengths: tokens of each row.
      starts: where the scored step begins in each row.
      ends: behind its last token; in some layouts more of the row follows.
      labels: the oracle's verdicts, 0 or 1.
      added: rows ever added; the next one goes to `added % C`.
    """

    tokens: Int32[np.ndarray, "C T"]
    positions: Int32[np.ndarray, "C T"]
    lengths: Int32[np.ndarray, " C"]
    starts: Int32[np.ndarray, " C"]
    ends: Int32[np.ndarray, " C"]
    labels: Float32[np.ndarray, " C"]
    added: Int64[np.ndarray, ""]

    @classmethod
    def empty(cls, capacity: int, length: int) -> ReplayBuffer:
        """A buffer for `capacity` rows of at most `length` tokens."""
        return cls(
            tokens=np.zeros((capacity, length), np.int32),
            positions=np.zeros((capacity, length), np.int32),
            lengths=np.zeros(capacity, np.int32),
            starts=np.zeros(capacity, np.int32),
            ends=np.zeros(capacity, np.int32),
            labels=np.zeros(capacity, np.float32),
            added=np.asarray(0, np.int64),
        )

    @property
    def size(self) -> int:
        """Rows held."""
        return min(int(self.added), len(self.lengths))

    def add(self, rows: Sequence[StepRow]) -> ReplayBuffer:
        """A new buffer with one-step rows added, the oldest dropped.

        The arrays are copied: an asynchronous save may still read the old ones.
        """
        tokens, positions = self.tokens.copy(), self.positions.copy()
        lengths, labels = self.lengths.copy(), self.labels.copy()
        starts, ends = self.starts.copy(), self.ends.copy()
        added = int(self.added)
        for row in rows:
            i, n = added % len(lengths), len(row)
            if n > tokens.shape[1]:
                raise ValueError(f"row of {n} tokens, room for {tokens.shape[1]}")
            tokens[i] = 0
            tokens[i, :n] = row.tokens
            positions[i, :n] = row.positions
            lengths[i] = n
            starts[i], ends[i] = np.flatnonzero(row.step_ids >= 0)[[0, -1]] + (0, 1)
            labels[i] = row.labels[0]
            added += 1
        count = np.asarray(added, np.int64)
        return ReplayBuffer(tokens, positions, lengths, starts, ends, labels, count)

    def sample(self, rng: np.random.Generator, count: int) -> list[StepRow]:
        """Up to `count` rows, uniform without replacement."""
        chosen = rng.permutation(self.size)[:count]
        return [self._row(int(i)) for i in chosen]

    def _row(self, i: int) -> StepRow:
        n = int(self.lengths[i])
        index = np.arange(n, dtype=np.int32)
        scored = (index >= self.starts[i]) & (index < self.ends[i])
        return StepRow(
            tokens=self.tokens[i, :n].copy(),
            positions=self.positions[i, :n].copy(),
            segment_ids=np.ones(n, np.int32),
            step_ids=np.where(scored, 0, -1).astype(np.int32),
            labels=self.labels[i : i + 1].copy(),
        )
