"""Rows from where users keep them: a file path, a `datasets:` or a `tfds:` name.

    data/train.jsonl                          a file (JSONL or a JSON array, or .gz)
    data/train.parquet                        a Parquet file
    data/scibench                             a folder: all such files in it, sorted
    datasets:openai/gsm8k                     Hugging Face datasets, by name
    datasets:json?data_files=train.jsonl      one of its file readers
    datasets:folder/of/save_to_disk           a data set saved to disk
    tfds:gsm8k                                TensorFlow Datasets, without TensorFlow
    tfds:my_builder?data_dir=folder           a builder that was prepared already

Options follow a `?`: `config` and `split` (`datasets` and `tfds`), `data_files` and
`data_dir`, and `rename=theirs:ours` for columns named otherwise. Nothing here is
imported before a name asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aprm_jax.data.jsonl import (
    DataError,
    RawRow,
    RowError,
    Rows,
    parse_rows,
    raw_rows,
)

T = TypeVar("T")

_SUFFIXES = (".json", ".jsonl", ".parquet")
_OPTIONS = ("config", "split", "data_files", "data_dir", "rename")
# Names that need a configuration, or that TFDS' own catalogue does not have.
_DEFAULT_CONFIG = {"openai/gsm8k": "main", "gsm8k": "main"}
_TFDS_ALIASES = {"gsm8k": "huggingface:openai__gsm8k/main"}


def is_name(source: str) -> bool:
    """Whether a source is a name of a data set, not a path."""
    return source.startswith(("datasets:", "tfds:"))


def read_source(
    source: str,
    split: str,
    parse: Callable[[dict], T],
    *,
    quarantine_dir: str | Path | None = None,
    max_bad_share: float = 0.01,
) -> Rows[T]:
    """Reads rows from a path or a name, under the rules of `jsonl.read_rows`.

    Args:
      source: see the module's docstring.
      split: split of a named data set unless its options give one.
      parse: turns an object into a row; raises `RowError` for a bad one.
      quarantine_dir: see `read_rows`.
      max_bad_share: see `read_rows`.

    Raises:
      DataError: the source cannot be had, or too many of its rows are bad.
    """
    if not is_name(source):
        return parse_rows(
            source,
            _from_path(Path(source)),
            parse,
            quarantine_dir=quarantine_dir,
            max_bad_share=max_bad_share,
        )
    scheme, _, rest = source.partition(":")
    name, _, query = rest.partition("?")
    options = _options(source, query)
    if not name:
        raise DataError(f"{source}: no name after {scheme!r}:")
    rename = _renames(source, options.pop("rename", ""))
    split = options.pop("split", split)
    try:
        if scheme == "datasets":
            rows = _from_datasets(name, split, options)
        else:
            rows = _from_tfds(name, split, options)
    except ImportError as error:
        raise DataError(f"{source}: the library is not installed: {error}") from error
    except Exception as error:  # each library has its own zoo of errors
        reason = str(error).strip().split("\n")[0][:300]
        raise DataError(
            f"{source}, split {split!r}: {type(error).__name__}: {reason}"
        ) from error
    return parse_rows(
        f"{source}#{split}",
        [_raw_row(k, row, rename) for k, row in enumerate(rows, start=1)],
        parse,
        quarantine_dir=quarantine_dir,
        max_bad_share=max_bad_share,
    )


def _from_path(path: Path) -> list[RawRow]:
    if not path.is_dir():
        return _parquet_rows(path) if path.suffix == ".parquet" else raw_rows(path)
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.name.removesuffix(".gz").endswith(_SUFFIXES)
    )
    if not files:
        raise DataError(f"{path}: the folder holds no file {' or '.join(_SUFFIXES)}")
    return [row._replace(file=str(file)) for file in files for row in _from_path(file)]


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
    return [_raw_row(k, row, {}) for k, row in enumerate(rows, start=1)]


def _options(source: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    for option in options:
        if option not in _OPTIONS:
            raise DataError(
                f"{source}: unknown option {option!r}; known: {', '.join(_OPTIONS)}"
            )
    return options


def _renames(source: str, text: str) -> dict[str, str]:
    pairs = [pair.split(":") for pair in text.split(",") if pair]
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{source}: rename must be theirs:ours, not {text!r}")
    return {theirs: ours for theirs, ours in pairs}


def _from_datasets(name: str, split: str, options: dict[str, Any]) -> Iterable[Any]:
    import datasets

    if (Path(name) / "dataset_dict.json").is_file():
        return datasets.load_from_disk(name)[split]
    if (Path(name) / "state.json").is_file():
        return datasets.load_from_disk(name)
    config = options.pop("config", _DEFAULT_CONFIG.get(name))
    if "data_files" in options and name in ("json", "csv", "parquet", "text"):
        split = "train"  # its file readers know no other
    return datasets.load_dataset(name, config, split=split, **options)


def _from_tfds(name: str, split: str, options: dict[str, Any]) -> Iterable[Any]:
    import tensorflow_datasets as tfds

    prepared = "data_dir" in options and (Path(options["data_dir"]) / name).is_dir()
    if not prepared and name not in tfds.list_builders(with_community_datasets=False):
        name = _TFDS_ALIASES.get(name, name)
    config = options.pop("config", None)
    if config:
        name = f"{name}/{config}"
    source: Any = tfds.data_source(name, split=split, **options)
    return (source[k] for k in range(len(source)))


def _raw_row(number: int, row: Any, rename: dict[str, str]) -> RawRow:
    if not isinstance(row, dict):
        return RawRow(number, repr(row)[:400], row)
    try:
        value = {
            rename.get(key, key): item.decode("utf-8")
            if isinstance(item, bytes)
            else item
            for key, item in row.items()
        }
    except UnicodeDecodeError:
        return RawRow(number, repr(row)[:400], RowError("not UTF-8 text"))
    return RawRow(number, json.dumps(value, default=str)[:400], value)
