"""Prepared rows as batches, through Grain: shuffled, packed, resumable.

Order is Grain's: all rows of a split are shuffled by seed, anew in each epoch. They are
packed a window at a time: the rows of a window are laid into rows of fixed length,
longest first, and these are shuffled. So position in the data is two numbers, a window
and a packed row of it, and a restored iterator goes on with the very next one.

Of several hosts each makes the whole batch, as `training.hosts` has it: shards of the
rows, packed by each host for itself, would be other batches with another number of
hosts, and a run could not go on on fewer of them with the same ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from aprm_jax.data.prepared import check_builder, open_split, to_row
from aprm_jax.data.rows import StepBatch, StepRow, TooLongError, pack
from aprm_jax.data.steps import RowFormat

WINDOW = 1024  # rows packed together: more waste less, and shuffle less finely


class PackedBatches(grain.IterDataset[StepBatch]):
    """Batches of packed rows.

    Args:
      rows: rows in their final order, endless or not.
      builder: pads and collates.
      batch_size: B, packed rows of a batch.
      length: T, tokens of a packed row.
      max_steps: S, most steps of a packed row.
      seed: of the order of the packed rows within a window.
      window: rows that are packed together.

    Iterating ends where `rows` end; the last batch may then hold rows of padding.
    """

    def __init__(
        self,
        rows: grain.MapDataset[StepRow],
        builder: RowFormat,
        *,
        batch_size: int,
        length: int,
        max_steps: int,
        seed: int,
        window: int = WINDOW,
    ):
        super().__init__()
        if min(batch_size, length, max_steps, window) < 1:
            raise ValueError("batch_size, length, max_steps and window are at least 1")
        self._rows = rows
        self._builder = builder
        self._batch_size = batch_size
        self._length = length
        self._max_steps = max_steps
        self._order_seed = seed
        self._window = window
        # Batches are asked for in turn, so one window is enough to keep.
        self._packed = functools.lru_cache(maxsize=1)(self._pack)

    def __iter__(self) -> PackedBatchIterator:
        return PackedBatchIterator(self)

    def batch_at(self, window: int, row: int) -> tuple[StepBatch | None, int, int]:
        """The batch from packed row `row` of a window on, and where the next starts.

        None instead of a batch where the data end.
        """
        taken: list[StepRow] = []
        while len(taken) < self._batch_size:
            rows = self._packed(window)
            if not rows:
                break
            more = rows[row:][: self._batch_size - len(taken)]
            taken += more
            row += len(more)
            if row >= len(rows):
                window, row = window + 1, 0
        if not taken:
            return None, window, row
        batch = self._builder.collate(
            taken,
            length=self._length,
            max_steps=self._max_steps,
            batch_size=self._batch_size,
        )
        return batch, window, row

    def _pack(self, window: int) -> list[StepRow]:
        """The packed rows of one window; none past the end of the data."""
        start = window * self._window
        end = min(start + self._window, len(self._rows))
        rows: list[Any] = [self._rows[i] for i in range(start, end)]
        # Longest first: what is short fills what long rows leave free.
        rows.sort(key=len, reverse=True)
        packed = pack(rows, self._length, self._max_steps)
        rng = np.random.default_rng([self._order_seed, window])
        return [packed[i] for i in rng.permutation(len(packed))]


class PackedBatchIterator(grain.DatasetIterator[StepBatch]):
    """Iterator of `PackedBatches`; its state is two integers."""

    def __init__(self, batches: PackedBatches):
        super().__init__()
        self._batches = batches
        self._window = 0
        self._row = 0  # next packed row of the window

    def __next__(self) -> StepBatch:
        batch, window, row = self._batches.batch_at(self._window, self._row)
        if batch is None:
            raise StopIteration
        self._window, self._row = window, row
        return batch

    def get_state(self) -> dict[str, int]:
        """Where the next batch starts: `window`, and `row` of its packed rows."""
        return {"window": self._window, "row": self._row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was called."""
        self._window, self._row = int(state["window"]), int(state["row"])


def load_batches(
    folder: str | Path,
    split: str,
    builder: RowFormat,
    *,
    batch_size: int,
    length: int,
    seed: int,
    rows: Sequence[StepRow] | None = None,
    max_steps: int | None = None,
    epochs: int | None = None,
    window: int = WINDOW,
) -> PackedBatches:
    """Batches of a prepared split.

    Args:
      folder: what job=prepare wrote.
      split: "train" or "dev".
      builder: must agree with the one that the data was prepared with.
      batch_size: B, packed rows of a batch.
      length: T, tokens of a packed row.
      seed: of the shuffle.
      rows: what is read of the split's rows, see `learned`; None for all as they are.
      max_steps: S, most steps of a packed row; by default half as many again as a
        full row has on average, and those of the longest solution on top.
      epochs: passes over the data, each in another order; None for no end.
      window: see `PackedBatches`.

    Raises:
      DataError: there is no such data set or split, or it was prepared otherwise.
      TooLongError: a row of it does not fit `length`.
    """
    metadata = check_builder(folder, builder)
    source: Sequence[Any] = open_split(folder, split) if rows is None else rows
    counts = metadata["splits"][split]
    longest = counts["longest"]
    if longest > length:
        raise TooLongError(
            f"{folder}, split {split!r}: a row has {longest} tokens, and a packed one "
            f"{length}: raise the longest of builder.buckets, or prepare the data "
            f"with prepare.max_tokens={length}"
        )
    usual = length * counts["steps"] / counts["tokens"]
    enough = counts["most_steps"] + math.ceil(1.5 * usual)
    drawn: grain.MapDataset[Any] = grain.MapDataset.source(source)
    order = drawn.seed(seed).shuffle().repeat(epochs)
    return PackedBatches(
        order.map(to_row) if rows is None else order,
        builder,
        batch_size=batch_size,
        length=length,
        max_steps=enough if max_steps is None else max_steps,
        seed=seed,
        window=window,
    )
