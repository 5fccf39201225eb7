"""Reads JSONL and JSON data files: bad rows are quarantined, bad files are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, Unpack

from aprm_jax.config.errors import UserError

T = TypeVar("T")

_SHOWN = 400  # characters of a bad row that the quarantine file keeps
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # or of a whole one
_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` leaves

# Gzip data may unpack to so many bytes, or so many times their size: JSON packs to a
# tenth or a fiftieth, a file made to fill the memory to a thousandth.
LEAST_UNZIPPED, MOST_RATIO = 1 << 26, 200


class DataError(UserError, ValueError):
    """A data file or source cannot be used; names the file, the line, the reason."""


class RowError(ValueError):
    """One row cannot be used; the reason goes to the quarantine file."""


class MissingFieldError(RowError):
    """`field` is not there; `row` is what it was looked for in."""

    def __init__(self, said: str, field: str, row: Mapping[str, Any]):
        super().__init__(f"{said} (present: {present(row)})")
        self.field, self.row = field, row


class FileKindError(RowError):
    """A row that shows what its whole file is: nothing in it is what it is read as."""


class RawRow(NamedTuple):
    """A row before it is parsed: where it was, its text, its value or what is wrong."""

    line: int
    text: str
    value: Any
    file: str = ""  # where a source consists of several


class Limits(TypedDict, total=False):
    """What a read does about bad rows; `parse_rows` has the defaults.

    Attributes:
      quarantine_dir: gets `<name>-<hash of path>.jsonl` with the file, line, reason
        and text of every bad row; None keeps no record but the log's.
      max_bad_share: share of bad rows, of all rows, past which the read stops.
    """

    quarantine_dir: str | Path | None
    max_bad_share: float


class Rows(list[T], Generic[T]):
    """The parsed rows, and how many others were quarantined."""

    num_bad: int = 0


def read_rows(
    path: str | Path, parse: Callable[[dict], T], **limits: Unpack[Limits]
) -> Rows[T]:
    """Reads a file of JSON objects: JSONL, or one JSON array, either may be gzipped.

    Args:
      path: the file.
      parse: turns an object into a row; raises `RowError` for a bad one.
      limits: what is done about bad rows.

    Raises:
      DataError: the file is missing, empty, binary or malformed, or too many rows
        are bad.
    """
    return parse_rows(str(path), raw_rows(Path(path)), parse, **limits)


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is, in lower case; a `.gz` behind it is none."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def raw_rows(path: Path) -> list[RawRow]:
    """The unparsed rows of a file: JSONL, a JSON array, or one JSON object.

    Raises:
      DataError: see `read_rows`.
    """
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    if text.lstrip()[0] == "[":
        return _array_rows(path, text)
    rows = list(_line_rows(text))
    several = len(rows) > 1 and isinstance(rows[0].value, RowError)
    if several and suffix_of(path) == ".json":
        value = load_line(text)  # one object over several lines, as MATH has them
        if isinstance(value, dict):
            return [RawRow(1, text, value)]
    return rows


def parse_rows(
    source: str,
    rows: Iterable[RawRow],
    parse: Callable[[dict], T],
    *,
    quarantine_dir: str | Path | None = None,
    max_bad_share: float = 0.01,
) -> Rows[T]:
    """Parses the rows of any source under the rules of `read_rows`."""
    rows = list(rows)
    if not rows:
        raise DataError(f"{source}: no rows")
    allowed = max_bad_share * len(rows)
    good: Rows[T] = Rows()
    bad: list[dict[str, Any]] = []
    record = _quarantine_path(source, quarantine_dir)
    try:
        for row in rows:
            try:
                good.append(parse_row(row, parse))
            except RowError as error:
                raw = row.text[:_SHOWN]
                reason = str(error)
                file = row.file or source
                if isinstance(error, FileKindError):
                    raise DataError(f"{file}, line {row.line}: {reason}") from None
                bad.append(
                    {"file": file, "line": row.line, "reason": reason, "raw": raw}
                )
                if len(bad) > allowed:
                    first = bad[0]
                    raise DataError(
                        f"{first['file']}, line {first['line']}: {first['reason']}. "
                        f"More than {max_bad_share:.2%} of {len(rows)} rows are bad "
                        f"({len(bad)} by line {row.line}, "
                        f"{len(bad) / len(rows):.2%}): mend them"
                        + (", or raise domain.max_bad_share" if max_bad_share else "")
                    ) from None
    finally:
        _write_quarantine(record, bad)
    if bad:
        kept = "" if record is None else f"; see {record}"
        logging.warning(
            "%s: %d of %d rows are bad%s", source, len(bad), len(rows), kept
        )
    good.num_bad = len(bad)
    return good


def require_str(
    row: Mapping[str, Any], field: str, *, allow_empty: bool = False
) -> str:
    """A text field: present, not blank, and writable as UTF-8."""
    value = _require(row, field, str, "text")
    if not allow_empty and not value.strip():
        raise RowError(f"field {field!r} is empty")
    _check_text(value, field)
    return value


def require_int(row: Mapping[str, Any], field: str) -> int:
    """An integer field; `true` is none."""
    value = _require(row, field, int, "an integer")
    if isinstance(value, bool):
        raise RowError(f"field {field!r} must be an integer, not a truth value")
    return value


def require_bool(row: Mapping[str, Any], field: str) -> bool:
    """A field that is true or false."""
    return _require(row, field, bool, "true or false")


def require_dict(row: Mapping[str, Any], field: str) -> dict[str, Any]:
    """An object field."""
    return _require(row, field, dict, "an object")


def require_strings(
    row: Mapping[str, Any], field: str, *, allow_empty: bool = False
) -> list[str]:
    """A field that is a list of texts."""
    values = _require(row, field, list, "a list")
    if not values and not allow_empty:
        raise RowError(f"field {field!r} is an empty list")
    for k, value in enumerate(values):
        if not isinstance(value, str):
            kind = type(value).__name__
            raise RowError(f"field {field!r} must list texts; item {k} is {kind}")
        _check_text(value, field)
    return values


def present(row: Mapping[str, Any]) -> str:
    """Some names of a row's fields, fit for a terminal."""
    names = sorted(map(str, row))[:8]
    shown = (n[:40] if n.isprintable() else f"{n[:40]!r}" for n in names)
    return ", ".join(shown) or "none"


def _require(row: Mapping[str, Any], field: str, kind: type[T], name: str) -> T:
    if field not in row:
        raise MissingFieldError(f"field {field!r} is missing", field, row)
    value = row[field]
    if not isinstance(value, kind):
        raise RowError(f"field {field!r} must be {name}, not {type(value).__name__}")
    return value


def _check_text(text: str, field: str) -> None:
    if not _is_text(text):
        raise RowError(f"field {field!r} has a lone surrogate")


def _is_text(text: str) -> bool:
    """Whether text is UTF-8: JSON can spell half a surrogate pair, nothing takes it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_texts(value: Any) -> None:
    """Every text in a value of JSON, names of fields too, can be written as UTF-8.

    Raises:
      RowError: names the field of the row, and where in it, such as "steps.1".
    """
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        place, node = waiting.pop()
        if isinstance(node, str):
            _check_text(node, place)
        elif isinstance(node, dict):
            for key in node:
                _check_text(key, key)
            waiting += [(f"{place}.{key}".strip("."), v) for key, v in node.items()]
        elif isinstance(node, list):
            waiting += [(f"{place}.{k}".strip("."), v) for k, v in enumerate(node)]


def parse_row(row: RawRow, parse: Callable[..., T], *more: Any) -> T:
    """What `parse` makes of a row, given its object and `more`.

    Raises:
      RowError: it is no JSON object, or `parse` raises one.
    """
    value = row.value
    if isinstance(value, RowError):
        raise value
    if not isinstance(value, dict):
        raise RowError(f"a row must be a JSON object, not {type(value).__name__}")
    return parse(value, *more)


def _unzipped(path: Path, raw: bytes) -> bytes:
    """Gzip data unpacked, but never far beyond what text packs to."""
    most, parts, size = max(LEAST_UNZIPPED, MOST_RATIO * len(raw)), [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            while part := file.read(1 << 20):
                parts.append(part)
                size += len(part)
                if size > most:
                    raise DataError(
                        f"{path}: {len(raw)} bytes of gzip data unpack to more than "
                        f"{most}, which no text does: unpack it yourself if it is one"
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip data is damaged: {error}") from None
    return b"".join(parts)


def read_text(path: Path) -> str:
    """The text of a file, gzipped or not; bytes that are no UTF-8 are surrogates.

    Raises:
      DataError: there is no such file, or it holds no text.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if raw[:2] == b"\x1f\x8b":
        raw = _unzipped(path, raw)
    elif path.suffix.lower() == ".gz" and raw:
        raise DataError(f"{path}: named .gz but holds no gzip data")
    if raw[:4] == b"PK\x03\x04":
        raise DataError(f"{path}: a ZIP file or a spreadsheet: save it as CSV or JSONL")
    nul = raw.find(b"\0")
    if nul >= 0:
        line = raw.count(b"\n", 0, nul) + 1
        raise DataError(
            f"{path}, line {line}: binary data (a NUL byte), not text; what is in "
            "UTF-16 must be saved as UTF-8"
        )
    # Undecodable bytes spoil their row, not the file: `load_line` refuses what is
    # left of them.
    return raw.decode("utf-8-sig", errors="surrogateescape")


def _array_rows(path: Path, text: str) -> list[RawRow]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not a JSON array: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON array: {error}") from None
    spelt = _HALF_PAIR.search(text) is not None
    return [
        RawRow(k, json.dumps(value)[:_SHOWN], _checked(value) if spelt else value)
        for k, value in enumerate(values, start=1)
    ]


def _line_rows(text: str) -> Iterator[RawRow]:
    # Not `splitlines`: JSON text may hold U+2028 unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield RawRow(number, line, load_line(line))


def load_line(line: str) -> Any:
    """The JSON value of a line; a `RowError` where it holds none."""
    if _UNDECODED.search(line):
        return RowError("not UTF-8 text: save the file as UTF-8")
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return RowError(f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return RowError(f"not JSON that can be read: {error}")
    return _checked(value) if _HALF_PAIR.search(line) else value


def _checked(value: Any) -> Any:
    """The value of a row; a `RowError` where a text in it cannot be written."""
    try:
        check_texts(value)
    except RowError as error:
        return error
    return value


def _quarantine_path(source: str, folder: str | Path | None) -> Path | None:
    if folder is None:
        return None
    stem = "".join(c if c.isalnum() or c in "._-" else "_" for c in Path(source).name)
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return Path(folder) / f"{stem[:80]}-{digest}.jsonl"


def _write_quarantine(record: Path | None, bad: list[dict[str, Any]]) -> None:
    """Replaces the record, so that reading a file again does not double it."""
    if record is None:
        return
    if not bad:
        record.unlink(missing_ok=True)
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in bad)
    record.write_text(lines, encoding="ascii")
