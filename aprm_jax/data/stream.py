"""Rows of a file or a pipe one after the other, whatever its size.

JSONL, gzipped or not, is read line by line and never held. Whatever else
`data/files.py` knows (a JSON array, CSV, Parquet, a folder) is read as a whole.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from aprm_jax.data.files import path_rows
from aprm_jax.data.jsonl import (
    DataError,
    RawRow,
    RowError,
    load_line,
    parse_row,
    suffix_of,
)
from aprm_jax.files import cannot_write

T = TypeVar("T")

MAX_LINE = 1 << 26  # bytes; longer ones are bad rows
_WHOLE = (".json", ".csv", ".tsv", ".parquet")
_SHOWN = 400  # characters of a bad row that are kept


def stream_rows(path: str | Path) -> Iterator[RawRow]:
    """The unparsed rows of a file, in order.

    Raises:
      DataError: there is no such file, or it cannot be read to its end.
    """
    path = Path(path)
    if path.is_dir() or suffix_of(path) in _WHOLE:
        yield from path_rows(path, "", {}, str(path))
        return
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as lines:
            yield from line_rows(lines)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip data is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


@runtime_checkable
class Lines(Protocol):
    """A binary file, as far as it must be one."""

    def readline(self, size: int, /) -> bytes:
        """A line or the first `size` bytes of it; b"" at the end."""
        ...


def line_rows(lines: Lines, most: int = MAX_LINE) -> Iterator[RawRow]:
    """The unparsed rows of JSONL as it arrives; blank lines count, but are no rows.

    Args:
      lines: binary; at most one line of it is held.
      most: bytes of a line; of a longer one nothing is held.
    """
    number = 0
    while line := lines.readline(most + 1):
        number += 1
        if len(line) > most:
            while line and not line.endswith(b"\n"):
                line = lines.readline(most)
            reason = RowError(f"a line of more than {most} bytes")
            yield RawRow(number, "", reason)
            continue
        code = "utf-8-sig" if number == 1 else "utf-8"
        text = line.decode(code, errors="surrogateescape")
        if text.strip():
            yield RawRow(number, text.rstrip("\r\n"), load_line(text))


class Parsed(Generic[T]):
    """Parses rows as they come, and keeps what is wrong with the bad ones in a file.

    Args:
      source: what they are read from, for messages.
      rows: unparsed.
      parse: turns an object and its line into a row; raises `RowError` for a bad one.
      bad_file: gets the file, line, reason and text of every bad row, and is removed
        where there is none; None for no file.

    Attributes:
      num_good: rows that were parsed so far.
      num_bad: rows that could not be.
      first_bad: where the first of those stands and what is wrong with it.
    """

    def __init__(
        self,
        source: str,
        rows: Iterable[RawRow],
        parse: Callable[[dict, int], T],
        bad_file: Path | None = None,
    ):
        self.num_good = self.num_bad = 0
        self.first_bad = ""
        self._source, self._rows, self._parse = source, rows, parse
        self._bad_file = bad_file
        if bad_file is not None:
            bad_file.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[T]:
        for row in self._rows:
            try:
                parsed = parse_row(row, self._parse, row.line)
            except RowError as error:
                self._put_aside(row, str(error))
                continue
            self.num_good += 1
            yield parsed

    def check_share(self, most: float) -> None:
        """Once all rows are read: refuses more than a share of bad ones, or no rows.

        Raises:
          DataError: names the first bad row.
        """
        rows = self.num_good + self.num_bad
        if not rows:
            raise DataError(f"{self._source}: no rows")
        if self.num_bad > most * rows:
            kept = f"; {self._bad_file} has all of them" if self._bad_file else ""
            raise DataError(
                f"{self.first_bad}. {self.num_bad} of {rows} rows are bad, more than "
                f"{most:.2%} (domain.max_bad_share){kept}"
            )

    def _put_aside(self, row: RawRow, reason: str) -> None:
        file = row.file or self._source
        self.num_bad += 1
        self.first_bad = self.first_bad or f"{file}, line {row.line}: {reason}"
        if self._bad_file is None:
            return
        raw = row.text[:_SHOWN]
        record = {"file": file, "line": row.line, "reason": reason, "raw": raw}
        try:
            self._bad_file.parent.mkdir(parents=True, exist_ok=True)
            with self._bad_file.open("a", encoding="ascii") as out:
                out.write(json.dumps(record) + "\n")
        except OSError as error:
            raise cannot_write(self._bad_file, error) from error
