"""Rows in memory as an endless sequence of packed rows, found again by number."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from aprm_jax.data.rows import StepRow, pack

_WINDOW = 512  # rows that are packed together: more waste less, and take longer


class PackedEpochs:
    """All rows once, packed, in an order of their own; and again, in another one.

    Args:
      rows: at least one.
      length: most tokens of a packed row.
      max_steps: most steps of a packed row.
      seed: of the orders.
      window: rows that are packed together.

    Raises:
      TooLongError: a row alone is longer, or has more steps.
    """

    def __init__(
        self,
        rows: Sequence[StepRow],
        length: int,
        max_steps: int,
        seed: Sequence[int],
        window: int = _WINDOW,
    ):
        if not rows:
            raise ValueError("no rows")
        self._rows = rows
        self._length, self._max_steps = length, max_steps
        self._seed, self._window = list(seed), window
        self._starts = [0]  # number of the first packed row of each epoch
        self._epoch = functools.lru_cache(maxsize=2)(self._packed)

    def take(self, start: int, count: int) -> list[StepRow]:
        """Packed rows `start` to `start + count`, counted from the first epoch on."""
        out: list[StepRow] = []
        epoch = 0
        while len(out) < count:
            if len(self._starts) == epoch + 1:
                self._starts.append(self._starts[epoch] + len(self._epoch(epoch)))
            first, end = self._starts[epoch : epoch + 2]
            if start < end:
                found = self._epoch(epoch)[start - first :][: count - len(out)]
                out += found
                start += len(found)
            epoch += 1
        return out

    def _packed(self, epoch: int) -> list[StepRow]:
        rng = np.random.default_rng([*self._seed, epoch])
        order, packed = rng.permutation(len(self._rows)), []
        for start in range(0, len(order), self._window):
            part = [self._rows[i] for i in order[start : start + self._window]]
            # Longest first: what is short fills what long rows leave free.
            part.sort(key=len, reverse=True)
            packed += pack(part, self._length, self._max_steps)
        return [packed[i] for i in rng.permutation(len(packed))]
