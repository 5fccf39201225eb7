"""Runs the command in processes of its own, without paying for imports each time."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = f"--config.compilation_cache={_caches / 'aprm_jax' / 'tests'}"
QUICKSTART = f"--config={REPOSITORY / 'configs' / 'quickstart.py'}:runlocal"
GSM8K = f"--config={REPOSITORY / 'configs' / 'gsm8k.py'}:runlocal"

# Of the command in a fresh Python: the package is found from any folder.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY)}

# The command where no file may grow past so many bytes: it fails as on a full disk.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from aprm_jax.main import entry
entry()
"""

# The server has imported the package, but has started no JAX backend: forks are safe.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["aprm_jax.main", "aprm_jax.jobs.start"])


@dataclasses.dataclass
class Running:
    """A command that was started; `log` gets its stdout and stderr."""

    process: BaseProcess
    log: Path

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, *texts: str, seconds: float = 600) -> None:
        """Until one of `texts` has been printed."""
        end = time.monotonic() + seconds
        while not self._has(texts):
            if not self.process.is_alive():
                if self._has(texts):
                    return
                raise AssertionError(f"ended without {texts}:\n{self.output()}")
            if time.monotonic() > end:
                raise AssertionError(f"no {texts} in time:\n{self.output()}")
            time.sleep(0.01)

    def _has(self, texts: tuple[str, ...]) -> bool:
        output = self.output()
        return any(text in output for text in texts)

    def send(self, number: signal.Signals) -> None:
        pid = self.process.pid
        assert pid is not None
        os.kill(pid, number)

    def end(self, seconds: float = 900) -> tuple[int, str]:
        """The exit code and all that was printed."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise AssertionError(f"still running:\n{self.output()}")
        return code, self.output()


def start(
    folder: Path,
    arguments: Sequence[str],
    log: str = "log",
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Starts `python -m aprm_jax.main` with `arguments` in `folder`.

    What it prints goes to the file `log`, or into a FIFO of that name.
    """
    path = folder / log
    if not path.is_fifo():
        path.unlink(missing_ok=True)
    process = context.Process(
        target=_run, args=(str(folder), list(arguments), path, environment or {})
    )
    process.start()
    return Running(process, path)


def call(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs it to its end; the exit code and all that was printed."""
    return start(folder, arguments).end()


def _run(
    folder: str, arguments: list[str], log: Path, environment: Mapping[str, str]
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = ["aprm_jax.main", *arguments]

    from aprm_jax.main import entry

    entry()
