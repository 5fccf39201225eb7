"""Batches made ahead: the next one is drawn while the devices work on this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """`make(step)`, with `make(step + 1)` begun in a thread of its own.

    A batch must depend on its step alone: what is made ahead is what would have been
    made then, so a run that is resumed sees the same. An error shows at its own step.

    Args:
      make: gives the batch of a step.
      last: the number of steps; nothing is made from there on.
    """

    def __init__(self, make: Callable[[int], Batch], last: int):
        self._make, self._last = make, last
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        known, self._next = self._next, None
        batch = known[1].result() if known and known[0] == step else self._make(step)
        if step + 1 < self._last:
            self._next = step + 1, self._pool.submit(self._make, step + 1)
        return batch
