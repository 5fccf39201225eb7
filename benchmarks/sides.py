"""The sides of a comparison, each in a process of its own by its own Python.

A side may live in an environment that has nothing of ours, so neither this module nor
the scripts that use it import anything else at their top. A script calls itself with
`--side=NAME`; the child sets itself up and answers by one line of JSON. It may answer
further ones: turns, each of which it takes when asked, so that two sides that are both
warm run one after the other, never at once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SHOWN = 4000  # characters of what a side that failed has said

Turns = Mapping[str, Callable[[], dict[str, Any]]]


def answer(
    side: Callable[..., dict[str, Any] | tuple[dict[str, Any], Turns]],
    *args: Any,
) -> None:
    """In a child: what `side(*args)` gives is the first answer, then turns by name.

    Whatever libraries print goes to stderr.
    """
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    made = side(*args)
    about, turns = made if isinstance(made, tuple) else (made, {})
    print(json.dumps(about), file=channel, flush=True)
    for line in sys.stdin:
        print(json.dumps(turns[line.strip()]()), file=channel, flush=True)


class Side(contextlib.AbstractContextManager["Side"]):
    """A child that sets itself up; it ends with the context.

    Args:
      python: that runs it.
      script: the file, which gets `--side=NAME` and the options.
      name: of the side.
      options: further arguments.
      cores: that it may use; None for all. As many threads do torch and XLA take.
    """

    def __init__(
        self,
        python: str,
        script: str,
        name: str,
        options: Sequence[str],
        cores: Sequence[int] | None = None,
    ):
        self.name = name
        self._about: dict[str, Any] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until it ends
        self._process = subprocess.Popen(
            [python, script, f"--side={name}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(cores),
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )

    @property
    def about(self) -> dict[str, Any]:
        """The first answer; waits until the side is set up."""
        if self._about is None:
            self._about = self._read()
        return self._about

    def turn(self, name: str) -> dict[str, Any]:
        """Has the side take a turn, and returns what it says of it."""
        assert self.about is not None and self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read()[-_SHOWN:]
            raise SystemExit(f"{self.name} failed:\n{said}")
        return json.loads(line)

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()


def run(
    python: str,
    script: str,
    name: str,
    options: Sequence[str],
    cores: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The first answer of a side that takes no turns."""
    with Side(python, script, name, options, cores) as side:
        return side.about


def versions(*packages: str) -> dict[str, str]:
    """Of packages of this Python."""
    return {name: importlib.metadata.version(name) for name in packages}


def _environment(cores: Sequence[int] | None) -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    threads = {"OMP_NUM_THREADS": str(len(cores))} if cores else {}
    return {**os.environ, "PYTHONPATH": str(ROOT), **offline, **threads}
