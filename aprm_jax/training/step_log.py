"""What the steps of a loop say of themselves, written one step late.

Metrics are fetched once the next step is dispatched, so that the device never waits for
them. The batch of an update that was not finite is written out.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.config.errors import UserError
from aprm_jax.files import atomic_write
from aprm_jax.training import hosts
from aprm_jax.training.console import Console
from aprm_jax.training.metrics import Metrics, to_scalar
from aprm_jax.training.timing import PhaseTimer

MetricsHook = Callable[[int, dict[str, float]], Mapping[str, Any] | None]

_MAX_DUMPS = 20  # batches written out per run: a long bad run must not fill the disk


class NonFiniteError(UserError, RuntimeError):
    """Too many updates in a row were not finite; the last good state was saved."""


@flax.struct.dataclass
class StepOutput:
    """What one step returns.

    Attributes:
      state: the pytree that the next step starts from. If the update was not finite,
        the compiled update has kept the old one.
      metrics: scalars, 0-d arrays or MeanMetrics by name, on the device if you like;
        `nonfinite` is 1 where the update was not applied.
      batch: arrays to write out if it was not, else None. Not donated.
    """

    state: Any
    metrics: dict[str, Any]
    batch: Any = None


class StepLog:
    """Metrics, one step late: they are fetched once the next step is dispatched."""

    def __init__(
        self,
        workdir: pathlib.Path,
        metrics: Metrics,
        screen: Console,
        max_nonfinite: int,
        hook: MetricsHook | None,
    ) -> None:
        self.timer = PhaseTimer()
        self.step = 0  # steps behind the current state
        self._dumps = workdir / "nonfinite"
        self._metrics = metrics
        self._screen = screen
        self._max_nonfinite = max_nonfinite
        self._hook = hook
        self._waiting: tuple[int, StepOutput, dict[str, float]] | None = None
        self._clock = time.perf_counter()
        self._in_a_row = self._most_in_a_row = 0

    @property
    def gave_up(self) -> bool:
        """Whether too many updates in a row were not finite."""
        return self._most_in_a_row >= self._max_nonfinite

    def add(self, step: int, output: StepOutput) -> None:
        """Takes in what was just dispatched; writes what came before it."""
        self.step = step
        self.flush()
        now = time.perf_counter()
        times = self.timer.pop() | {"time/step": now - self._clock}
        self._clock = now
        # The state is the loop's, and may be donated by the next step.
        self._waiting = (step, dataclasses.replace(output, state=None), times)
        if self._in_a_row:
            self.flush()  # in trouble, know at once

    def flush(self) -> None:
        """Writes what is still waiting."""
        if self._waiting is None:
            return
        (step, output, times), self._waiting = self._waiting, None
        # Device work ends here at the latest; it is the update that was dispatched.
        with self.timer("update"):
            fetched = hosts.fetch(output.metrics)
        values = {name: to_scalar(value) for name, value in fetched.items()}
        if values.get("nonfinite", 0):
            self._in_a_row += 1
            # A finite one in flight behind them takes nothing back.
            self._most_in_a_row = max(self._most_in_a_row, self._in_a_row)
            self._dump(step, output.batch)
        else:
            self._in_a_row = 0
        extra = self._hook(step, dict(values)) if self._hook is not None else None
        self._metrics.write(step, values | dict(extra or {}) | times)
        self._screen.update(step, fetched | dict(extra or {}), times)

    def nonfinite_error(self) -> NonFiniteError:
        """What to raise once `gave_up`."""
        return NonFiniteError(
            f"Updates were not finite and were not applied, {self._most_in_a_row} in a "
            f"row. Their batches are in {self._dumps}; the last good state is the "
            f"checkpoint of step {self.step}. Look at the batches and at the metrics "
            "of the steps before; a lower learning rate or a gradient clip often "
            "helps."
        )

    def _dump(self, step: int, batch: Any) -> None:
        if batch is None:
            self._screen.say(f"step {step}: the update was not finite, not applied")
            return
        path = self._dumps / f"step_{step}.npz"
        if self._dumps.exists() and len(list(self._dumps.iterdir())) >= _MAX_DUMPS:
            self._screen.say(
                f"step {step}: the update was not finite, not applied; its batch is "
                f"not written out, {_MAX_DUMPS} are in {self._dumps}"
            )
            return
        buffer, arrays = io.BytesIO(), _arrays(batch)
        if not hosts.leader():
            return
        np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        self._dumps.mkdir(exist_ok=True)
        atomic_write(path, buffer.getvalue())
        self._screen.say(
            f"step {step}: the update was not finite, not applied; its batch is {path}"
        )


def _arrays(batch: Any) -> dict[str, np.ndarray]:
    """A batch as {path: array}, in dtypes that a .npz file knows."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(hosts.fetch(leaf))
        if array.dtype.kind == "V":  # bfloat16 and its kin
            array = array.astype(np.float32)
        arrays[jax.tree_util.keystr(path, simple=True, separator=".") or "batch"] = (
            array
        )
    return arrays
