"""Rows of ids, and how they become batches: packed, padded, never cut.

Axes: B batch, T tokens, S steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import numpy as np
from jaxtyping import Float32, Int32

from aprm_jax.config.errors import UserError

UNLABELLED = math.nan


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One row of ids before padding. T tokens, S steps.

    Attributes:
      tokens: ids.
      positions: position within the segment; see `StepBuilder.positions`.
      segment_ids: segment of each token, from one; zero is padding.
      step_ids: index of the step that a token belongs to, its `<step>` included;
        -1 for context.
      labels: 1 correct, 0 incorrect, between them soft; NaN where unlabelled.
      ends: of a segment that branches (see `data/trees.py`), the last column that
        still sees each token; None where all later ones of the segment do.
    """

    tokens: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T"]
    segment_ids: Int32[np.ndarray, " T"]
    step_ids: Int32[np.ndarray, " T"]
    labels: Float32[np.ndarray, " S"]
    ends: Int32[np.ndarray, " T"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@flax.struct.dataclass
class StepBatch:
    """Rows padded to one shape."""

    tokens: Int32[np.ndarray, "B T"]
    positions: Int32[np.ndarray, "B T"]
    segment_ids: Int32[np.ndarray, "B T"]  # 0 is padding
    step_ids: Int32[np.ndarray, "B T"]  # -1 is context or padding
    labels: Float32[np.ndarray, "B S"]  # 0 where masked
    label_mask: Float32[np.ndarray, "B S"]  # 1 where labelled
    step_mask: Float32[np.ndarray, "B S"]  # 1 where the row has that step
    # The last column that sees each token, where a segment branches; else None.
    ends: Int32[np.ndarray, "B T"] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows, padding left out."""
        return int(np.count_nonzero(np.asarray(self.segment_ids)))


class TooLongError(UserError, ValueError):
    """A row does not fit the longest bucket."""


class Batcher:
    """Pads rows to one of a few lengths.

    Args:
      pad_id: stands behind a row's end.
      buckets: lengths that rows are padded to, ascending.
    """

    def __init__(self, pad_id: int, buckets: Sequence[int]):
        if list(buckets) != sorted(set(buckets)) or not buckets:
            raise ValueError(f"buckets must ascend and not be empty: {buckets}")
        self.pad_id = pad_id
        self.buckets = tuple(buckets)

    def bucket(self, length: int) -> int:
        """The smallest bucket that holds `length` tokens."""
        for size in self.buckets:
            if length <= size:
                return size
        raise TooLongError(
            f"a row of {length} tokens does not fit the longest bucket "
            f"({self.buckets[-1]}): shorten the text, or take a model that was trained "
            "with longer ones (builder.buckets)"
        )

    def fits(self, row: StepRow) -> bool:
        """Whether a row fits the longest bucket."""
        return len(row) <= self.buckets[-1]

    def collate(
        self,
        rows: Sequence[StepRow],
        *,
        length: int | None = None,
        max_steps: int | None = None,
        batch_size: int | None = None,
    ) -> StepBatch:
        """Pads rows to one shape.

        Args:
          rows: at least one row.
          length: T; by default the bucket of the longest row.
          max_steps: S; by default the most steps of any row.
          batch_size: B; by default `len(rows)`. Missing rows are padding.

        Raises:
          TooLongError: a row is longer than `length` or the longest bucket.
        """
        longest = max(len(row) for row in rows)
        length = self.bucket(longest) if length is None else length
        if longest > length:
            raise TooLongError(f"a row of {longest} tokens does not fit {length}")
        most = max(len(row.labels) for row in rows)
        max_steps = most if max_steps is None else max_steps
        if most > max_steps:
            raise TooLongError(f"a row of {most} steps does not fit {max_steps}")
        size = len(rows) if batch_size is None else batch_size
        if len(rows) > size:
            raise ValueError(f"{len(rows)} rows do not fit a batch of {size}")
        shape, steps = (size, length), (size, max_steps)
        labels = _padded([row.labels for row in rows], steps, math.nan, np.float32)
        known = ~np.isnan(labels)
        ends = None
        if any(row.ends is not None for row in rows):
            each = [
                len(row) * [length - 1] if row.ends is None else row.ends
                for row in rows
            ]
            ends = _padded(each, shape, length - 1)
        return StepBatch(
            tokens=_padded([row.tokens for row in rows], shape, self.pad_id),
            positions=_padded([row.positions for row in rows], shape, 0),
            segment_ids=_padded([row.segment_ids for row in rows], shape, 0),
            step_ids=_padded([row.step_ids for row in rows], shape, -1),
            labels=np.where(known, labels, np.float32(0)),
            label_mask=known.astype(np.float32),
            step_mask=_padded(
                [len(row.labels) * [1] for row in rows], steps, 0, np.float32
            ),
            ends=ends,
        )


def _padded(
    rows: Sequence[Any],
    shape: tuple[int, int],
    empty: int | float,
    dtype: Any = np.int32,
) -> np.ndarray:
    out = np.full(shape, empty, dtype)
    for padded, row in zip(out, rows, strict=False):
        padded[: len(row)] = row
    return out


def pack(
    rows: Sequence[StepRow], length: int, max_steps: int | None = None
) -> list[StepRow]:
    """Packs rows first-fit into rows of at most `length` tokens.

    Segments and steps are renumbered, so that no row attends to another and each label
    stays with its step. Arguments and errors are those of `packing`.
    """
    parts = packing(rows, length, max_steps)
    return [concatenate([rows[i] for i in part]) for part in parts]


def packing(
    rows: Sequence[StepRow], length: int, max_steps: int | None = None
) -> list[list[int]]:
    """Which rows stand together where rows are packed first-fit: their indices.

    Args:
      rows: any number of rows.
      length: most tokens of a packed row.
      max_steps: most steps of a packed row; None for no limit.

    Raises:
      TooLongError: a row alone is longer, or has more steps.
    """
    # A step has at least its `<step>` token, so `length` limits nothing.
    most = length if max_steps is None else max_steps
    bins: list[list[int]] = []
    free: list[int] = []
    free_steps: list[int] = []
    for number, row in enumerate(rows):
        size, steps = len(row), len(row.labels)
        if size > length:
            raise TooLongError(f"a row of {size} tokens does not fit {length}")
        if steps > most:
            raise TooLongError(f"a row of {steps} steps does not fit {most}")
        pairs = enumerate(zip(free, free_steps, strict=True))
        index = next((i for i, (n, s) in pairs if size <= n and steps <= s), None)
        if index is None:
            bins.append([])
            free.append(length)
            free_steps.append(most)
            index = len(bins) - 1
        bins[index].append(number)
        free[index] -= size
        free_steps[index] -= steps
    return bins


def one_of_few(count: int, multiple: int = 1) -> int:
    """The least batch size of a few that holds `count` rows.

    The sizes are 4, 6, 8, 12, 16, 24 ...: less than a third is padding, and what is
    compiled for a size serves most batches.

    Args:
      count: rows, at least one.
      multiple: sizes are rounded up to one of it.
    """
    step = 1 << max(0, (count - 1).bit_length() - 2)
    size = -(-count // step) * step
    return -(-size // multiple) * multiple


def concatenate(rows: Sequence[StepRow]) -> StepRow:
    """One row of several, whose segments and steps are numbered through."""
    segment_ids, step_ids, ends = [], [], []
    segments = steps = columns = 0
    for row in rows:
        # Of a row that does not branch, the last column of all: no other segment sees.
        last = np.full(len(row), len(row) - 1, np.int32)
        ends.append((last if row.ends is None else row.ends) + columns)
        columns += len(row)
        segment_ids.append(row.segment_ids + segments)
        step_ids.append(np.where(row.step_ids >= 0, row.step_ids + steps, -1))
        segments += int(row.segment_ids[-1])
        steps += len(row.labels)
    return StepRow(
        tokens=np.concatenate([row.tokens for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        segment_ids=np.concatenate(segment_ids).astype(np.int32),
        step_ids=np.concatenate(step_ids).astype(np.int32),
        labels=np.concatenate([row.labels for row in rows]),
        ends=np.concatenate(ends).astype(np.int32)
        if any(row.ends is not None for row in rows)
        else None,
    )
