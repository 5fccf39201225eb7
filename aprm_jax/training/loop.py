"""The loop that every training job runs: restore, step, log, checkpoint, stop."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from aprm_jax.training import hosts, sharing
from aprm_jax.training.checkpoints import Checkpointer, CheckpointError
from aprm_jax.training.console import Console
from aprm_jax.training.lines import LineLog, check_lines
from aprm_jax.training.metrics import FILE, Metrics
from aprm_jax.training.signals import Interrupted, deferred_stop
from aprm_jax.training.step_log import MetricsHook, StepLog, StepOutput
from aprm_jax.training.timing import PhaseTimer

State = TypeVar("State")


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
    log = StepLog(workdir, metrics, screen, config.max_nonfinite, metrics_hook)
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
        screen.say("compiling the first step")  # which may take minutes
        states = _states(state, step_fn, range(start, config.num_steps), log)
        for state in states:
            asked = any_host(stop.signal or 0)
            if asked or log.gave_up or finished(state):
                break
            if log.step % config.checkpoint_every == 0:
                _write(log, metrics, samples)
                checkpointer.save(log.step, state)
        _write(log, metrics, samples)
        _save_last(log.step, state, checkpointer)
        if log.gave_up:
            raise log.nonfinite_error()
        # To any host, at any moment: in the last step or while its state is saved too.
        if received := max(hosts.exchange(f"a stop of {name}", stop.signal or 0)):
            raise _interrupted(signal.Signals(received), log.step, screen, console)
    sharing.share(f"the end of {name}")  # what the leader wrote may be read
    return state


def _saves(start: int, config: LoopConfig) -> int:
    """How many checkpoints are written after step `start`; the last step has one."""
    every = config.checkpoint_every
    return -(-config.num_steps // every) - start // every


def _states(
    state: State, step_fn: StepFn, steps: Iterable[int], log: StepLog
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


def _write(log: StepLog, metrics: Metrics, samples: LineLog | None) -> None:
    """Before a checkpoint: it never has steps that the log lacks."""
    log.flush()
    metrics.seal()
    if samples is not None:
        samples.seal()


def _save_last(step: int, state: Any, checkpointer: Checkpointer) -> None:
    checkpointer.wait()
    if hosts.from_leader("newest", checkpointer.latest) != step:
        checkpointer.save(step, state)
        checkpointer.wait()
