"""A log of JSON lines that a resumed run goes on with, and whose past is guarded.

At each checkpoint the log is sealed: size and SHA-256 of all its lines so far are
written beside it. A resumed run keeps the lines of the steps behind it, and stops where
they are not what was written. Of several hosts the leader alone writes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import pathlib
from typing import Any

from aprm_jax.files import (
    atomic_write,
    cannot_write,
    damaged,
    parse_json,
    read_sealed,
    write_sealed,
)
from aprm_jax.training import hosts


class LineLog:
    """Appends lines, each of a step, to a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Of the file `path`; `open` opens it."""
        self.path = pathlib.Path(path)
        self._file: Any = None
        self._digest = hashlib.sha256()
        self._bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether lines can be appended."""
        return self._file is not None

    def open(self, start: int) -> None:
        """Keeps the lines of steps up to `start`, and goes on behind them.

        Raises:
          DamagedFileError: those lines are not what was written.
          FileError: unwritable folder, full disk.
        """
        if not hosts.leader():
            return
        lines: list[bytes] = []
        if start:
            lines = check_lines(self.path).splitlines(keepends=True)
        first = itertools.takewhile(lambda line: _step_of(line) <= start, lines)
        same = b"".join(first)
        kept = b"".join(line for line in lines if _step_of(line) <= start)
        # First of what the old and the new file have: a kill leaves no false seal.
        self._seal_as(same)
        if not self.path.exists() or self.path.stat().st_size != len(kept):
            atomic_write(self.path, kept)
        if kept != same:
            self._seal_as(kept)
        try:
            self._file = self.path.open("ab")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def append(self, line: str) -> None:
        """Writes a line, which has none of its own ends in it.

        Raises:
          FileError: the disk is full, or the like.
        """
        if not hosts.leader():
            return
        data = line.encode() + b"\n"
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._digest.update(data)
        self._bytes += len(data)

    def seal(self) -> None:
        """Records what the lines so far are.

        Raises:
          FileError: see `append`.
        """
        if not hosts.leader():
            return
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())  # the seal may not outlive its lines
        except OSError as error:
            raise cannot_write(self.path, error) from error
        content = {"bytes": self._bytes, "lines": self._digest.hexdigest()}
        write_sealed(_seal(self.path), content)

    def _seal_as(self, content: bytes) -> None:
        self._digest, self._bytes = hashlib.sha256(content), len(content)
        self.seal()

    def close(self) -> None:
        """Closes the file; safe to call twice.

        Raises:
          FileError: see `append`.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            raise cannot_write(self.path, error) from error


def check_lines(path: pathlib.Path) -> bytes:
    """The content of a log; that which was sealed is what was written.

    Raises:
      DamagedFileError: it is not.
    """
    seal = _seal(path)
    remedy = (
        f"To go on without the lines of this log, delete it and its seal (rm {path} "
        f"{seal}) and run the same command again."
    )
    known = read_sealed(seal, remedy) if seal.exists() else {"bytes": 0}
    try:
        content = path.read_bytes() if path.exists() or known["bytes"] else b""
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})", remedy) from error
    sealed = content[: known["bytes"]]
    if known["bytes"] and hashlib.sha256(sealed).hexdigest() != known["lines"]:
        raise damaged(path, "is not what was written (checksum)", remedy)
    return content


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a log; an unfinished last line is left out.

    Raises:
      DamagedFileError: a sealed line is not what was written, or one is no JSON object.
    """
    rows = []
    for number, line in enumerate(check_lines(path).splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            remedy = "Delete the line, or the file, and run the same command again."
            raise damaged(path, f"has no JSON object in line {number}", remedy)
        rows.append(row)
    return rows


def _seal(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.seal")


def _step_of(line: bytes) -> int | float:
    """The line's step; infinite where the line is unfinished or unreadable."""
    try:
        step = parse_json(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
    return step if isinstance(step, int) else math.inf
