"""How rows are drawn: in epochs shuffled by seed, and held out by hash."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np

from aprm_jax.data.jsonl import DataError

Item = TypeVar("Item")


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

    Raises:
      DataError: nothing would be left.
    """
    distinct = set(keys)
    if count >= len(distinct):
        raise DataError(
            f"{source}: {len(distinct)} questions, too few to hold {count} out "
            "(domain.dev_count)"
        )
    ranked = sorted(distinct, key=lambda k: (hashlib.sha256(k.encode()).digest(), k))
    return ranked[len(ranked) - count :]
