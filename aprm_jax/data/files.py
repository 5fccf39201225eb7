"""Rows from files: which ones a path names, and how each kind is read.

    train.jsonl                   JSONL or a JSON array, gzipped or not
    train.json  train.parquet     likewise
    train.csv   train.tsv         with a line of column names
    folder                        all such files in it, sorted, hidden ones left out
    folder?split=test             those whose name, or whose folder's, says so
    train.csv?rename=theirs:ours  with columns that are named otherwise

A folder whose files belong to several splits is read one split at a time. Which split a
file belongs to says the last word of that kind in its path: `train_test/train.jsonl` is
no test.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aprm_jax.data.jsonl import (
    DataError,
    RawRow,
    RowError,
    raw_rows,
    read_text,
    suffix_of,
)

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".tsv")
# What publishers call the three splits.
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_WORD = re.compile(r"[a-z0-9]+")
_SHOWN = 400
_END = "\x1fend"  # set behind a table, to see that its last row has an end


def path_rows(
    path: Path, split: str, rename: Mapping[str, str], source: str
) -> list[RawRow]:
    """The unparsed rows of a file or of a folder's files.

    Args:
      path: the file or folder.
      split: the split to read; "" for a file as it is, or a folder with one split.
      rename: column's name -> ours.
      source: as the user wrote it, for messages.

    Raises:
      DataError: there is nothing of that split, or of more than one where none was
        asked for; or a file cannot be read.
    """
    if not path.is_dir():
        if split and not _is_of(Path(path.name), split):
            raise DataError(
                f"{source}: split {split!r} was asked for, but {path.name} is one file "
                "and does not say that it is that split: name the file of the split"
            )
        return _renamed(_file_rows(path), rename)
    rows = []
    for file in _files_of(path, split, source):
        rows += [row._replace(file=str(file)) for row in _file_rows(file)]
    return _renamed(rows, rename)


def _files_of(folder: Path, split: str, source: str) -> list[Path]:
    """The files of one split."""
    names = [file.relative_to(folder) for file in sorted(data_files(folder))]
    if not names:
        raise DataError(f"{source}: the folder holds no file {' or '.join(SUFFIXES)}")
    kept = names
    if split:
        kept = [name for name in names if _is_of(name, split)]
        if not kept and not _splits(names) and _is_of(Path(folder.name), split):
            kept = names  # the folder itself says so
        if not kept:
            raise DataError(
                f"{source}: no file of split {split!r} among {_listed(names)}"
            )
    if len(found := _splits(kept)) > 1:
        raise DataError(
            f"{source}: the folder holds files of several splits "
            f"({', '.join(found)}: {_listed(kept)}): name one file, or one split as "
            f"{source.partition('?')[0]}?split={found[0]}"
        )
    return [folder / name for name in kept]


def _splits(names: Iterable[Path]) -> list[str]:
    """The splits that some paths name."""
    return sorted({_said_split(name.as_posix()) for name in names} - {""})


def data_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that are read as data, in no order."""
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if file.is_file() and suffix_of(file) in SUFFIXES:
            yield file


def _words(name: str) -> list[str]:
    return _WORD.findall(name.lower())


def _said_split(name: str) -> str:
    """The split that a path names, its last word of that kind; "" for none."""
    found = [_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF]
    return found[-1] if found else ""


def _is_of(name: Path, split: str) -> bool:
    """Whether a path says that it is of a split, which may have a name of its own."""
    split = split.lower()
    if split in _SPLIT_OF:
        return _said_split(name.as_posix()) == _SPLIT_OF[split]
    return split in _words(name.as_posix())


def _listed(names: list[Path]) -> str:
    shown = ", ".join(map(str, names[:6]))
    return shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _file_rows(path: Path) -> list[RawRow]:
    kind = suffix_of(path)
    if kind == ".parquet":
        return _parquet_rows(path)
    if kind in (".csv", ".tsv"):
        return list(_table_rows(path, read_text(path)))
    return raw_rows(path)


def _parquet_rows(path: Path) -> list[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise DataError(f"{path}: not a Parquet file: {reason}") from None
    return [raw_row(k, row) for k, row in enumerate(rows, start=1)]


def _table_rows(path: Path, text: str) -> Iterator[RawRow]:
    """Rows of a CSV or TSV file; every value is text."""
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    first = text.lstrip().partition("\n")[0]
    separator = max("\t;,", key=first.count)  # of equals the first: commas are text
    if "\t" in first and suffix_of(path) == ".tsv":
        separator = "\t"
    csv.field_size_limit(max(len(text) + 1, csv.field_size_limit()))
    lines = io.StringIO(f"{text.rstrip()}\n{_END}", newline="")
    reader = csv.reader(lines, delimiter=separator)
    columns: list[str] = []
    line, cells = 1, []
    try:
        for cells in reader:
            if cells == [_END]:
                break
            if not columns:
                columns = [cell.strip() for cell in cells]
                _check_columns(path, columns)
            elif any(cell.strip() for cell in cells):
                yield _table_row(line, columns, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
    if cells != [_END]:  # a quote has taken it in, and the rows before it
        begun = reader.line_num - "".join(cells).count("\n")
        raise DataError(f"{path}, line {begun}: not CSV: a quote is never closed")


def _check_columns(path: Path, columns: list[str]) -> None:
    twice = [c for c in columns if c and columns.count(c) > 1]
    if twice:
        raise DataError(f"{path}, line 1: column {twice[0]!r} stands there twice")


def _table_row(line: int, columns: list[str], cells: list[str]) -> RawRow:
    text = ",".join(cells)
    if len(cells) > len(columns):
        more = f"{len(cells)} values for {len(columns)} columns: quote what holds a "
        return RawRow(line, text, RowError(f"{more}separator"))
    if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
        return RawRow(line, text, RowError("not UTF-8 text: save the file as UTF-8"))
    # A cell that is missing or blank is a field that is not there.
    pairs = zip(columns, cells, strict=False)
    return RawRow(line, text, {c: v for c, v in pairs if c and v.strip()})


def _renamed(rows: Iterable[RawRow], rename: Mapping[str, str]) -> list[RawRow]:
    if not rename:
        return list(rows)
    return [
        row._replace(value=_rename(row.value, rename))
        if isinstance(row.value, dict)
        else row
        for row in rows
    ]


def _rename(row: dict[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    """What is renamed takes the place of what had the name."""
    moved = {ours: row[theirs] for theirs, ours in rename.items() if theirs in row}
    return {k: v for k, v in row.items() if k not in rename} | moved


def raw_row(number: int, row: Any, rename: Mapping[str, str] | None = None) -> RawRow:
    """A row of a library's, whose texts may be bytes."""
    if not isinstance(row, dict):
        return RawRow(number, repr(row)[:_SHOWN], row)
    try:
        value = {
            key: item.decode("utf-8") if isinstance(item, bytes) else item
            for key, item in row.items()
        }
    except UnicodeDecodeError:
        return RawRow(number, repr(row)[:_SHOWN], RowError("not UTF-8 text"))
    value = _rename(value, rename or {})
    return RawRow(number, json.dumps(value, default=str)[:_SHOWN], value)
