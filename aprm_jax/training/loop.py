"""The loop that every training job runs: restore, step, log, checkpoint, stop."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.config.errors import UserError
from aprm_jax.files import atomic_write
from aprm_jax.training import hosts, sharing
from aprm_jax.training.checkpoints import Checkpointer, CheckpointError
from aprm_jax.training.console import Console
from aprm_jax.training.lines import LineLog, check_lines
from aprm_jax.training.metrics import FILE, Metrics, to_scalar
from aprm_jax.training.signals import Interrupted, deferred_stop
from aprm_jax.training.timing import PhaseTimer

State = TypeVar("State")
MetricsHook = Callable[[int, dict[str, float]], Mapping[str, Any] | None]

_MAX_DUMPS = 20  # batches written out per run: a long bad run must not fill the disk


class NonFiniteError(UserError, RuntimeError):
    """Too many updates in a row were not finite; the last good state was saved."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long to train, and what to write while doing so."""

    num_steps: int
    log_every: int = 10  # steps between console lines
    checkpoint_every: int = 100  # steps between checkpoints; the last step has one too
    keep_last: int = 2  # checkpoints
    max_nonfinite: int = 5  # updates in a row that may be non-finite before stopping
    restore_step: int | None = None  # go back to this checkpoint instead of the newest
    async_checkpoints: bool = True
    tensorboard: bool = True
    wandb: str | None = None  # project
    shown: tuple[tuple[str, str], ...] = ()  # (label, metric) on the console's lines


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


# (state, step, timer) → output. Steps count from 0, and `state` may be donated.
StepFn = Callable[[Any, int, PhaseTimer], StepOutput]


def run_loop(
    state: State,
    step_fn: StepFn,
    *,
    workdir: str | os.PathLike,
    config: LoopConfig,
    name: str,
    console: bool = True,
    metrics_hook: MetricsHook | None = None,
    samples: LineLog | None = None,
    finished: Callable[[State], bool] = lambda state: False,
) -> State:
    """Runs `step_fn` until `config.num_steps`, going on from the newest checkpoint.

    A checkpoint, and a line of metrics, is labelled by the number of steps behind it.
    The result of a step depends on (state, step) alone, so a run that was killed at
    any moment ends with the same bits as one that was not. Of several hosts all run
    it, the leader writes, and a signal to any of them stops all at the same step.

    Args:
      state: the initial state, any pytree that `Checkpointer` takes; also the template
        of shardings and dtypes to restore onto.
      step_fn: the step; what it times with `timer` is logged as time/<phase>.
      workdir: an existing folder of this job's own.
      config: see LoopConfig.
      name: of the job, for the console.
      console: print progress.
      metrics_hook: called with (steps done, values) after each step; what it returns
        is logged with them.
      samples: a log that the steps write into; resumed and guarded as the metrics are.
      finished: whether a state is the last one, before all steps are done.

    Returns:
      The state after the last step.

    Raises:
      Interrupted: SIGTERM or SIGINT came; the state is saved.
      NonFiniteError: see `max_nonfinite`; the state is saved.
      CheckpointError, FileError, WorkdirError: as their messages say.
    """
    workdir = pathlib.Path(workdir)
    folder = workdir / "checkpoints"
    checkpointer = Checkpointer(
        folder, keep_last=config.keep_last, async_=config.async_checkpoints
    )
    state, start = _restore(state, checkpointer, config)
    if start == config.num_steps or finished(state):
        if hosts.leader():
            _check_logs(workdir, samples)
        return state
    checkpointer.check_room(state, _saves(start, config))
    console = console and hosts.leader()
    any_host = hosts.AnyHost()
    metrics = Metrics(workdir, config.tensorboard, config.wandb, start=start)
    screen = Console(
        name, start, config.num_steps, config.log_every, console, config.shown
    )
    log = _Log(workdir, metrics, screen, config.max_nonfinite, metrics_hook)
    # Left in the opposite order: a signal is still held back while the save ends.
    with (
        deferred_stop() as stop,
        contextlib.closing(metrics),
        _opened(samples, start),
        contextlib.closing(screen),
        contextlib.closing(checkpointer),
    ):
        if start:
            screen.say(f"going on from step {start}")
        states = _states(state, step_fn, range(start, config.num_steps), log)
        for state in states:
            asked = any_host(stop.signal or 0)
            if asked or log.gave_up or finished(state):
                break
            if log.step % config.checkpoint_every == 0:
                log.flush()  # a checkpoint never has steps that the log lacks
                _seal(metrics, samples)
                checkpointer.save(log.step, state)
        log.flush()
        _seal(metrics, samples)
        _save_last(log.step, state, checkpointer)
        if log.gave_up:
            raise log.nonfinite_error()
        # To any host, at any moment: in the last step or while its state is saved too.
        if received := max(hosts.exchange(f"a stop of {name}", stop.signal or 0)):
            stopped_by = signal.Signals(received)
            raise _interrupted(stopped_by, log.step, screen, console)
    sharing.share(f"the end of {name}")  # what the leader wrote may be read
    return state


def _saves(start: int, config: LoopConfig) -> int:
    """How many checkpoints are written after step `start`; the last step has one."""
    every = config.checkpoint_every
    return -(-config.num_steps // every) - start // every


def _states(
    state: State, step_fn: StepFn, steps: Iterable[int], log: _Log
) -> Iterator[State]:
    """The state after each step; what the step tells of itself goes to the log."""
    for step in steps:
        output = step_fn(state, step, log.timer)
        state = output.state
        log.add(step + 1, output)
        yield state


def _check_logs(workdir: pathlib.Path, samples: LineLog | None) -> None:
    for path in (workdir / FILE, *([samples.path] if samples else [])):
        check_lines(path)


def _interrupted(
    received: signal.Signals, step: int, screen: Console, console: bool
) -> Interrupted:
    """What to raise where a signal came, once the screen has said so."""
    interrupted = Interrupted(
        f"Stopped by {received.name} after step {step}, which is saved. The same "
        "command goes on from there.",
        received,
    )
    screen.say(str(interrupted))
    interrupted.said = console
    return interrupted


def _restore(
    state: State, checkpointer: Checkpointer, config: LoopConfig
) -> tuple[State, int]:
    """The state to start from, and the number of steps behind it."""
    # A later stage of the same command, which never began, has nothing to go back to.
    begun = hosts.from_leader("begun", checkpointer.begun)
    asked = config.restore_step if begun else None
    step = hosts.from_leader("newest", checkpointer.latest) if asked is None else asked
    if step is None:
        return state, 0
    if step > config.num_steps:
        raise CheckpointError(
            f"The checkpoint of step {step} is past the end of this job, which has "
            f"{config.num_steps} steps. Choose another --workdir, or more steps."
        )
    state = checkpointer.restore(step, state)
    if asked is not None:
        # The newest one decides where the next start goes on: leave it no newer one.
        checkpointer.set_aside_after(step)
    return state, step


@contextlib.contextmanager
def _opened(samples: LineLog | None, start: int) -> Iterator[None]:
    if samples is None:
        yield
        return
    samples.open(start)
    with contextlib.closing(samples):
        yield


def _seal(metrics: Metrics, samples: LineLog | None) -> None:
    metrics.seal()
    if samples is not None:
        samples.seal()


def _save_last(step: int, state: Any, checkpointer: Checkpointer) -> None:
    checkpointer.wait()
    if hosts.from_leader("newest", checkpointer.latest) != step:
        checkpointer.save(step, state)
        checkpointer.wait()


class _Log:
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
