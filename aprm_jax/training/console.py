"""What a person sees while a job trains: a bar, or lines now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import tqdm

from aprm_jax.training.metrics import MeanMetric, to_scalar

_SHOWN = 4  # metrics per line
_TIME = "time/"
_NOT_SHOWN = ("nonfinite",)


class Console:
    """Progress of one job on stdout, where the time goes included."""

    def __init__(
        self,
        name: str,
        start: int,
        num_steps: int,
        log_every: int,
        enabled: bool = True,
    ) -> None:
        self._name = name
        self._num_steps = num_steps
        self._log_every = log_every
        self._enabled = enabled
        self._bar = None
        if enabled and sys.stdout.isatty():
            self._bar = tqdm.tqdm(
                total=num_steps,
                initial=start,
                desc=name,
                file=sys.stdout,
                dynamic_ncols=True,
                mininterval=0.5,
            )
        self._clock = time.perf_counter()
        self._clear()

    def update(
        self, step: int, metrics: Mapping[str, Any], times: Mapping[str, float]
    ) -> None:
        """Takes in one step; prints at multiples of log_every and at the end."""
        for key, value in metrics.items():
            if key in _NOT_SHOWN:
                continue
            mean = isinstance(value, MeanMetric) and key in self._values
            self._values[key] = self._values[key] + value if mean else value
        for phase, seconds in times.items():
            self._times[phase] = self._times.get(phase, 0.0) + seconds
        self._steps += 1
        due = step % self._log_every == 0 or step == self._num_steps
        if due and self._enabled:
            self._show(step)
        elif self._bar is not None:
            self._bar.update(step - self._bar.n)
        if due:
            self._clear()

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        if self._enabled:
            self._print(f"[{self._name}] {text}")

    def close(self) -> None:
        """Leaves the bar where it is and ends its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, step: int) -> None:
        elapsed = time.perf_counter() - self._clock
        per_step = elapsed / self._steps
        shown = list(self._values.items())[:_SHOWN]
        values = "  ".join(f"{key} {to_scalar(value):.4g}" for key, value in shown)
        split = " ".join(
            f"{phase.removeprefix(_TIME)} {100 * seconds / max(elapsed, 1e-9):.0f}%"
            for phase, seconds in self._times.items()
        )
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(f"{values}  {split}")
            return
        left = duration((self._num_steps - step) * per_step)
        parts = [
            f"step {step}/{self._num_steps}",
            values,
            f"{per_step:.3g} s/step" + (f": {split}" if split else ""),
            f"{left} left",
        ]
        self._print(f"[{self._name}] " + " | ".join(part for part in parts if part))

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def _clear(self) -> None:
        self._clock = time.perf_counter()
        self._steps = 0
        self._values: dict[str, Any] = {}
        self._times: dict[str, float] = {}


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45s, 3m12s, 2h05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
