"""Wall time per phase of an iteration: sample, verify, score, update."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax


class Phase:
    """A phase that is running; `wait` charges dispatched device work to it."""

    @staticmethod
    def wait(tree: Any) -> None:
        """Blocks until the arrays of `tree` are computed."""
        jax.block_until_ready(tree)


class PhaseTimer:
    """Adds up wall seconds by phase; an inner phase is taken off the outer one.

    JAX dispatches asynchronously: a phase counts the time until its calls return, and
    device work is counted where the host first waits for it. Call `phase.wait(result)`
    at the end of a phase to charge it there.

    Example:
      timer = PhaseTimer()
      with timer("sample") as phase:
          phase.wait(sampler.sample(...))
      timer.pop()  # {"time/sample": 0.21}
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inner: list[float] = []  # seconds spent in phases inside each open one

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[Phase]:
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield Phase()
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - self._inner.pop()
            self._seconds[name] = self._seconds.get(name, 0.0) + own
            if self._inner:
                self._inner[-1] += elapsed

    def pop(self) -> dict[str, float]:
        """Seconds by phase since the last pop, as metrics "time/<phase>"."""
        seconds = {f"time/{name}": value for name, value in self._seconds.items()}
        self._seconds = {}
        return seconds
