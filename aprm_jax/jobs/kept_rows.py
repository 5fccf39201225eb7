"""A file of rows that a job writes, and goes on with where an earlier start stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from aprm_jax.files import cannot_write, read_sealed, to_json, write_sealed
from aprm_jax.jobs.context import JobError, log
from aprm_jax.training import hosts
from aprm_jax.training.console import duration

_SECONDS = 10.0  # between lines of progress


@contextlib.contextmanager
def claimed(output: Path, field: str) -> Iterator[None]:
    """Holds a file of rows from its reading to its last row: one process writes it.

    The workdir's own lock does not do: an output may lie elsewhere. Of several hosts
    the leader alone holds it; a file system that knows no locks is trusted.

    Args:
      output: the file of rows, there or not.
      field: that names it, for messages.

    Raises:
      JobError: another process writes it.
      FileError: its folder is unwritable.
    """
    if not hosts.leader():
        yield
        return
    path = output.with_name(f".{output.name}.lock")
    made = not path.parent.exists()
    with _locked(path, output, field):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # before it is let go: nobody may have taken it
            if made:
                with contextlib.suppress(OSError):  # it is not empty
                    path.parent.rmdir()


def _locked(path: Path, output: Path, field: str) -> BinaryIO:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise JobError(
                f"{output} is being written by another process: wait for its end, or "
                f"name another {field}"
            ) from None
        except OSError:  # no locks here
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder has just removed it


def check_made_by(
    output: Path, record: Path, made_by: Mapping[str, Any], field: str
) -> None:
    """Nothing that is there was made otherwise; what it is made by is kept.

    Args:
      output: the file of rows.
      record: beside it.
      made_by: whatever decides what a row says.
      field: that names the output, for messages.

    Raises:
      JobError: the rows were made by something else; names what differs.
      DamagedFileError: nobody knows by what.
    """
    made_by = json.loads(to_json(made_by))  # as it is read back
    if not output.exists():
        record.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(record, made_by)
        return
    known = read_sealed(record, f"Delete {output} and it, or name another {field}.")
    names = sorted(made_by.keys() | known.keys())
    if other := [name for name in names if known.get(name) != made_by.get(name)]:
        raise JobError(
            f"{output} was made with other {', '.join(other)}: delete it or name "
            f"another {field}"
        )


def read_back(
    output: Path, take: Callable[[bytes, int], object], total: int, batch: int = 1
) -> int:
    """Reads the rows that are there; a torn last one, or part of a batch, is cut off.

    Args:
      output: the file of rows, or none yet.
      take: is given each whole line and its number, from 1; raises for a wrong one.
      total: rows that there will be.
      batch: rows that are made together.

    Returns:
      How many rows are kept.
    """
    if not output.exists():
        return 0
    number = size = kept = end = 0
    try:
        with output.open("rb") as file:
            while (line := file.readline()).endswith(b"\n"):
                number, size = number + 1, size + len(line)
                take(line, number)
                if number % batch == 0 or number == total:
                    kept, end = number, size
        os.truncate(output, end)
    except OSError as error:
        raise cannot_write(output, error) from error
    if kept:
        log.info("%s: %d of %d rows are there already", output, kept, total)
    return kept


@contextlib.contextmanager
def appending(output: Path) -> Iterator[Callable[[Iterable[Mapping[str, Any]]], None]]:
    """A function that writes rows at the end of a file; a killed process has them.

    Of several hosts the leader alone writes.

    Raises:
      FileError: it cannot be written.
    """
    if not hosts.leader():
        yield lambda rows: None
        return
    try:
        with output.open("ab") as file:

            def write(rows: Iterable[Mapping[str, Any]]) -> None:
                file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
                file.flush()

            yield write
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(output, error) from error


class Progress:
    """Now and then a line: what is done, what a second brings, the time that is left.

    Args:
      name: of the stage.
      what: is counted, such as "rows".
      done: what an earlier start did.
      total: of all.
      tokens: how many this start has read or drawn so far.
      more: what else there is to say; "" for nothing.
    """

    def __init__(
        self,
        name: str,
        what: str,
        done: int,
        total: int,
        tokens: Callable[[], int],
        more: Callable[[], str] = lambda: "",
    ):
        self._name, self._what, self._total = name, what, total
        self._start = self._done = done
        self._tokens, self._more = tokens, more
        self._began = self._said = time.monotonic()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        self.tick(last=self._done == self._total)

    def tick(self, last: bool = False) -> None:
        """Says a line where it is time, or it is the last."""
        if last or time.monotonic() - self._said >= _SECONDS:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds = max(self._said - self._began, 1e-9)
        speed = (self._done - self._start) / seconds
        rates = [f"{speed:.3g} {self._what}/s"] if speed else []
        if tokens := self._tokens():
            rates.append(f"{tokens / seconds:,.0f} tokens/s")
        left = duration((self._total - self._done) / speed) if speed else ""
        parts = [
            f"{self._done}/{self._total} {self._what}",
            ", ".join(rates),
            self._more(),
            f"{left} left" if left else "",
        ]
        log.info("[%s] %s", self._name, " | ".join(filter(None, parts)))
