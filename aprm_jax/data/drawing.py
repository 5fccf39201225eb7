"""How rows are drawn: in epochs shuffled by seed, and held out by hash."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np

from aprm_jax.data.jsonl import DataError

Item = TypeVar("Item")
_MOST, _FEW = 500, 20  # questions that are held out where nobody says how many


class Epochs(Generic[Item]):
    """An endless sequence: `items` again and again, each time in another order.

    A pure function of (items, seed, index): position in the data is one integer.
    """

    def __init__(self, items: Sequence[Item], seed: int):
        self.items, self.seed = items, seed
        self._order = functools.lru_cache(maxsize=4)(self._shuffled)

    def __len__(self) -> int:
        """Items of one epoch."""
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        """Item number `index`, which may be past the first epoch."""
        epoch, at = divmod(index, len(self.items))
        return self.items[self._order(epoch)[at]]

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.items))


def held_out(keys: Iterable[str], count: int, source: str) -> list[str]:
    """The `count` distinct keys whose hashes come last, in the order of the hashes.

    Neither the order of the rows nor a seed changes the choice.

    Args:
      keys: of the rows, such as their questions.
      count: 0 for a share that goes with how many there are: a tenth, up to 500, and
        of few a quarter.
      source: for the message.

    Raises:
      DataError: nothing would be left.
    """
    distinct = set(keys)
    total = len(distinct)
    if count == 0:
        count = max(1, min(_MOST, max(total // 10, min(_FEW, total // 4))))
    if count >= total:
        raise DataError(
            f"{source}: {total} question{'s' * (total != 1)}, too few to hold "
            f"{count} out (domain.dev_count)"
        )
    ranked = sorted(distinct, key=lambda k: (hashlib.sha256(k.encode()).digest(), k))
    return ranked[total - count :]
