"""Equivalence of mathematical texts, decided by Math-Verify in processes of our own.

Each worker is a fresh interpreter that runs `oracle.worker` and nothing of the caller's
`__main__`, so a script needs no guard and a notebook works. It has one job at a time,
is killed when the job's deadline passes, and is replaced after that, after a crash, and
after a number of jobs. What cannot be decided in time is None, never a guess.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import BinaryIO

from aprm_jax.children import command
from aprm_jax.oracle.worker import frame

Answer = bool | None

_START_SECONDS = 120.0  # a cold disk under load; imports, not jobs
_MAX_REPLY = 64
_MAX_FAILED_STARTS = 3
_MAX_NESTED = 24


class PoolError(RuntimeError):
    """The pool is closed, or its processes cannot start; the message says which."""


@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """Bounds of the pool.

    Attributes:
      workers: processes, each with one job at a time.
      deadline_s: seconds that a job may run before its process is killed.
      max_chars: longer texts are undecidable, unread.
      recycle_after: jobs after which a process is replaced; sympy's caches grow.
      memory_mb: address space of a process, in MiB.
    """

    workers: int = 2
    deadline_s: float = 1.0
    max_chars: int = 1_000
    recycle_after: int = 2_000
    memory_mb: int = 1_024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"pool.{field.name} must be positive, is {value}")
        if self.memory_mb < 256:
            raise ValueError(
                f"pool.memory_mb is {self.memory_mb}; Math-Verify needs 256 to start"
            )


class EquivalencePool:
    """Compares LaTeX texts in worker processes; use it as a context manager.

        with EquivalencePool() as pool:
            pool.equal(r"\\sqrt{8}", r"2\\sqrt{2}")  # True

    Processes start with the first job; jobs wait until one is ready.
    """

    def __init__(self, config: PoolConfig | None = None):
        if importlib.util.find_spec("math_verify") is None:
            raise PoolError("no math-verify: pip install 'aprm_jax[pool]'")
        self.config = config or PoolConfig()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Reentrant: the garbage collector may close a pool in the midst of anything.
        self._lock = threading.RLock()
        self._started = self._closed = False
        self._failure: str | None = None
        self._living = self.config.workers
        self._pids: dict[int, int] = {}
        # A worker is started, fed and killed by one thread: the kernel ties it to that.
        self._threads = [
            threading.Thread(
                target=self._serve, args=(k,), daemon=True, name=f"oracle-{k}"
            )
            for k in range(self.config.workers)
        ]

    def submit(self, a: str, b: str) -> concurrent.futures.Future[Answer]:
        """Queues a comparison; its future never raises on any text.

        Args:
          a: LaTeX without dollar signs; the reference.
          b: the text to compare with it.

        Returns:
          a future of True, False, or None for: too long, unreadable, out of time or
          memory, or a comparison that the two methods behind it answer differently.

        Raises:
          PoolError: the pool is closed or its processes cannot start.
        """
        future: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        if not _sendable(a, self.config.max_chars) or not _sendable(
            b, self.config.max_chars
        ):
            future.set_result(None)
            return future
        with self._lock:
            if self._closed:
                raise PoolError("the pool is closed")
            if self._failure is not None:
                raise PoolError(self._failure)
            self._jobs.put(_Job(a, b, future))
            if not self._started:
                self._started = True
                for thread in self._threads:
                    thread.start()
        return future

    def equal(self, a: str, b: str) -> Answer:
        """Whether two texts mean the same; see `submit`."""
        return self.submit(a, b).result()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        return tuple(self._pids.values())

    def close(self) -> None:
        """Stops the processes; jobs that no process has taken are undecided."""
        with self._lock:
            idle, self._closed = self._closed or not self._started, True
        if idle:
            return
        self._drop_waiting()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> EquivalencePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _drop_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    _answer(job, None)

    def _serve(self, k: int) -> None:
        """One thread's life: a worker, its jobs, the next worker."""
        failed = 0
        worker: _Worker | None = None
        try:
            while not self._closed:
                worker = worker or _Worker(self.config)
                self._pids[k] = worker.pid
                if not worker.ready(_START_SECONDS):
                    failed += 1
                    message = worker.stop()
                    worker = None
                    if failed == _MAX_FAILED_STARTS:
                        self._give_up(message)
                        return
                    continue
                failed = 0
                job = self._jobs.get()
                if job is None:
                    return
                answer, alive = worker.run(job, self.config.deadline_s)
                if not alive or worker.served >= self.config.recycle_after:
                    worker.stop()
                    worker = None
                _answer(job, answer)
        except OSError as error:
            self._give_up(f"cannot start {sys.executable}: {error}")
        finally:
            self._pids.pop(k, None)
            if worker is not None:
                worker.stop()

    def _give_up(self, message: str) -> None:
        with self._lock:
            self._living -= 1
            if self._living == 0:  # nobody is left to serve
                self._failure = f"no worker process starts: {message}"
                self._drop_waiting()


@dataclasses.dataclass(frozen=True)
class _Job:
    a: str
    b: str
    future: concurrent.futures.Future[Answer]


def _answer(job: _Job, answer: Answer) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        job.future.set_result(answer)


def _sendable(text: str, limit: int) -> bool:
    """Whether a text is worth sending; `$` would end the parser's mathematics.

    The parser's time grows exponentially with nested brackets.
    """
    if not 0 < len(text) <= limit or any(c == "$" or c < " " for c in text):
        return False
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest <= _MAX_NESTED


class _Worker:
    """One process; its methods belong to one thread."""

    def __init__(self, config: PoolConfig):
        self.served = 0
        self._is_ready = False
        memory = config.memory_mb * 2**20
        self._process = subprocess.Popen(
            command("aprm_jax.oracle.worker", os.getpid(), memory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # One thread each; no warnings on a pipe that nobody reads.
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self, seconds: float) -> bool:
        """Waits for the first frame, which says that the imports are done."""
        if not self._is_ready:
            self._is_ready = self._reply(seconds) == b"null"
        return self._is_ready

    def run(self, job: _Job, seconds: float) -> tuple[Answer, bool]:
        """The answer, and whether the process may serve on."""
        body = frame(json.dumps([job.a, job.b]).encode())
        try:
            _pipe(self._process.stdin).write(body)
            _pipe(self._process.stdin).flush()
        except OSError:
            return None, False
        reply = self._reply(seconds)
        self.served += 1
        answers: dict[bytes | None, Answer] = {b"true": True, b"false": False}
        return answers.get(reply), reply in (b"true", b"false", b"null")

    def stop(self) -> str:
        """Kills the process, waits for it, and returns what it complained about."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # a broken pipe with a job in its buffer
            _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()
        with _pipe(self._process.stderr) as errors:
            os.set_blocking(errors.fileno(), False)
            lines = (errors.read() or b"").decode("ascii", "replace").splitlines()
        return lines[-1][:200] if lines else "it did not say why"

    def _reply(self, seconds: float) -> bytes | None:
        """A frame's body; None when time is up or the process is gone."""
        until = time.monotonic() + seconds
        data = b""
        descriptor = _pipe(self._process.stdout).fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while True:
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(max(1, int(left * 1_000))):
                return None
            piece = os.read(descriptor, _MAX_REPLY)
            data += piece
            if not piece or len(data) > _MAX_REPLY:
                return None
            if len(data) >= 4 and len(data) == 4 + int.from_bytes(data[:4], "big"):
                return data[4:]


def _pipe(stream: object) -> BinaryIO:
    if stream is None:
        raise PoolError("a worker without pipes")
    return stream  # pyright: ignore[reportReturnType]
