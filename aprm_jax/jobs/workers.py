"""Processes that compute tasks of a run side by side, each on cores of its own.

Two processes with a core each do twice as much as one of them, which one process with
two devices does not come near for models as small as the embedded problems' are. A
worker is a fresh interpreter; tasks and answers are pickles on a pipe, what it prints
is printed here, a line at a time. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import Any

from aprm_jax.children import command
from aprm_jax.config import Config
from aprm_jax.config.errors import UserError
from aprm_jax.jobs.schedule import Task


class WorkerLostError(UserError, RuntimeError):
    """A process ended without an answer; the message says which, and how."""


@dataclasses.dataclass(frozen=True)
class Took:
    """What tasks took, in seconds; added up, they are those of a stage's pieces."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Took) -> Took:
        return Took(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


class Workers(contextlib.AbstractContextManager["Workers"]):
    """So many processes at most, which start when they are needed.

    Leaving the context by an exception asks whoever is at work to stop, and waits until
    what is worth it has been saved; otherwise nobody is at work any more.

    Args:
      config: of the whole run.
      root: the workdir, which the caller has locked.
      count: processes; the cores of this one are dealt out among them.
    """

    def __init__(self, config: Config, root: Path, count: int):
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // count
        self._cores = [cores[k * share : (k + 1) * share] for k in range(count)]
        self._start = dataclasses.asdict(config), root.absolute()
        self._workers: list[_Worker] = []

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        at_work = [worker for worker in self._workers if worker.task is not None]
        for worker in at_work:
            worker.process.terminate()
        for worker in self._workers:
            worker.close()

    @property
    def tasks(self) -> set[Task]:
        """What is computed now."""
        return {w.task for w in self._workers if w.task is not None}

    @property
    def free(self) -> bool:
        """Whether one more task may be given."""
        return len(self.tasks) < len(self._cores)

    def give(self, task: Task, before: Took) -> None:
        """Has a task computed; `before` is what its stage's pieces took."""
        idle = next((w for w in self._workers if w.task is None), None)
        if idle is None:
            idle = _Worker(self._cores[len(self._workers)], self._start)
            self._workers.append(idle)
        idle.task = task
        idle.connection.send((task, before))

    def answers(self) -> Iterator[tuple[Task, Took]]:
        """Waits until a task is done, or several are.

        Raises:
          WorkerLostError: a process ended; or whatever a task raised.
        """
        at_work = {w.connection: w for w in self._workers if w.task is not None}
        for connection in wait(list(at_work)):
            worker = at_work[connection]  # pyright: ignore[reportArgumentType]
            task, worker.task = worker.task, None
            assert task is not None
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                raise worker.lost(task) from None
            if isinstance(answer, BaseException):
                raise answer
            yield task, answer


class _Worker:
    """A process, and what it is at work on."""

    def __init__(self, cores: Sequence[int], start: Any):
        self.task: Task | None = None
        self.connection, theirs = Pipe()
        with theirs, _on(cores):  # a child inherits them: JAX counts its own
            self.process = subprocess.Popen(
                command("aprm_jax.jobs.worker", os.getpid(), theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is told to the parent alone
            )
        self._printing = threading.Thread(target=self._print, daemon=True)
        self._printing.start()
        self.connection.send(start)

    def lost(self, task: Task) -> WorkerLostError:
        """What to say of its end."""
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = ", which is what a machine without memory sends" if code == -9 else ""
        return WorkerLostError(
            f"{task.stage}: its process ended by {how}{hint}. The same command goes on "
            "from there; --config.processes=1 computes one stage after the other, with "
            "less memory"
        )

    def close(self) -> None:
        """Waits for its end, which an idle one reads from the pipe."""
        self.connection.close()
        self.process.wait()
        self._printing.join()

    def _print(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                print(line, end="", flush=True)


@contextlib.contextmanager
def _on(cores: Sequence[int]) -> Iterator[None]:
    """This thread, and what it starts, runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
