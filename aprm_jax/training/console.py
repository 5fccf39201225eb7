"""What a person sees while a job trains: a bar, or lines now and then."""

from __future__ import annotations

import math
import statistics
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tqdm

from aprm_jax.training.metrics import MeanMetric, to_scalar

_SHOWN = 4  # metrics per line where nobody says which
_TIME = "time/"
_STEP = "time/step"
_REST = "rest"  # of a step's time: what no phase has
_NOT_SHOWN = ("nonfinite",)
_REMEMBERED = 256  # steps whose times tell how long the others will take
_ORDINARY = 3.0  # times the median: a step that takes longer has compiled something


class Console:
    """Progress of one job on stdout, where the time goes included.

    Args:
      name: of the job.
      start: the step that it goes on from.
      num_steps: in all.
      log_every: steps between lines.
      enabled: print at all.
      shown: (label, metric) of what a line has, in order, as far as a step has it; ()
        for whatever comes first. A label that ends in "/s" is of a sum over time.
    """

    def __init__(
        self,
        name: str,
        start: int,
        num_steps: int,
        log_every: int,
        enabled: bool = True,
        shown: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._name = name
        self._num_steps = num_steps
        self._log_every = log_every
        self._enabled = enabled
        self._shown = shown
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
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
        self._clear()

    def update(
        self, step: int, metrics: Mapping[str, Any], times: Mapping[str, float]
    ) -> None:
        """Takes in one step; prints at multiples of log_every and at the end.

        Args:
          step: steps behind it, itself included.
          metrics: of the step.
          times: seconds of "time/step", all of it, and of each phase in it.
        """
        for key, value in metrics.items():
            if key in _NOT_SHOWN or (len(self._sums) >= _SHOWN and not self._shown):
                continue
            # On the host: an operation of JAX would wait for the step that is running.
            if isinstance(value, MeanMetric):
                total, weight = float(value.total), float(value.weight)
            else:
                total, weight = float(to_scalar(value)), 1.0
            if weight and math.isfinite(total / weight):
                known = self._sums.get(key, (0.0, 0.0))
                self._sums[key] = (known[0] + total, known[1] + weight)
        for phase, seconds in times.items():
            self._times[phase] = self._times.get(phase, 0.0) + seconds
        self._recent.append(times[_STEP])
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
        values = "  ".join(f"{label} {value:.4g}" for label, value in self._values())
        split = " ".join(
            f"{phase} {percent}%" for phase, percent in shares(self._times).items()
        )
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(f"{values}  {split}")
            return
        per_step = self._times[_STEP] / self._steps
        parts = [
            f"step {step}/{self._num_steps}",
            values,
            f"{per_step:.3g} s/step" + (f": {split}" if split else ""),
            f"{duration((self._num_steps - step) * ordinary(self._recent))} left",
        ]
        self._print(f"[{self._name}] " + " | ".join(part for part in parts if part))

    def _values(self) -> Iterator[tuple[str, float]]:
        """Labels and means since the last line."""
        shown = self._shown or [(key, key) for key in self._sums]
        for label, key in shown:
            if key not in self._sums:
                continue
            total, weight = self._sums[key]
            per_second = total / max(self._times[_STEP], 1e-9)
            yield label, per_second if label.endswith("/s") else total / weight

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def _clear(self) -> None:
        self._steps = 0
        self._sums: dict[str, tuple[float, float]] = {}  # totals and weights
        self._times: dict[str, float] = {}


def shares(times: Mapping[str, float]) -> dict[str, int]:
    """Whole percents of "time/step" by phase, what no phase has included: 100 in all.

    Args:
      times: seconds by "time/<phase>" and of "time/step"; a phase is a part of it.
    """
    phases = {
        name.removeprefix(_TIME): value
        for name, value in times.items()
        if name != _STEP
    }
    if not phases:
        return {}
    total = max(times[_STEP], sum(phases.values()), 1e-9)
    phases[_REST] = total - sum(phases.values())
    exact = {name: 100 * value / total for name, value in phases.items()}
    whole = {name: int(value) for name, value in exact.items()}
    # The largest remainders are rounded up, as many as are missing.
    by_remainder = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in by_remainder[: 100 - sum(whole.values())]:
        whole[name] += 1
    return {name: value for name, value in whole.items() if value}


def ordinary(seconds: Sequence[float]) -> float:
    """The mean of the steps that compiled nothing, as far as their times tell.

    The first of several has compiled, and so has whatever takes far longer than most.
    """
    times = list(seconds)[1:] or list(seconds)
    limit = _ORDINARY * statistics.median(times)
    return statistics.fmean(time for time in times if time <= limit)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45s, 3m12s, 2h05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
