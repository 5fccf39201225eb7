"""Batches made ahead: the next one is drawn while the devices work on this one.

Where the devices are the processor's own cores there is no time to win: a thread that
draws takes a core from a device, and the others wait for it (measured on two cores: as
many seconds an update with it as without).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import jax

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """`make(step)`, with `make(step + 1)` begun in a thread of its own.

    A batch must depend on its step alone: what is made ahead is what would have been
    made then, so a run that is resumed sees the same. An error shows at its own step.

    Args:
      make: gives the batch of a step.
      last: the number of steps; nothing is made from there on.
      host_idle: whether the host has time while the devices work; by default where
        they are not its own cores. If not, every batch is made when it is asked for.
    """

    def __init__(
        self,
        make: Callable[[int], Batch],
        last: int,
        host_idle: bool | None = None,
    ):
        if host_idle is None:
            host_idle = jax.default_backend() != "cpu"
        self._make, self._last = make, last if host_idle else 0
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        known, self._next = self._next, None
        batch = known[1].result() if known and known[0] == step else self._make(step)
        if step + 1 < self._last:
            self._next = step + 1, self._pool.submit(self._make, step + 1)
        return batch
