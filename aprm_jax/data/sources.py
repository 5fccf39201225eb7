"""Rows from where users keep them: a file path, a `datasets:` or a `tfds:` name.

    data/train.jsonl                          a file or folder: see `data/files.py`
    data/scibench?split=test                  with options
    datasets:openai/gsm8k                     Hugging Face datasets, by name
    datasets:json?data_files=train.jsonl      one of its file readers
    datasets:folder/of/save_to_disk           a data set saved to disk
    tfds:gsm8k                                TensorFlow Datasets, without TensorFlow
    tfds:my_builder?data_dir=folder           a builder that was prepared already

Options follow a `?`: `split`, `rename=theirs:ours,...` for columns named otherwise, and
for names `config`, `data_files` and `data_dir`. Nothing here is imported before a name
asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, Unpack
from urllib.parse import parse_qsl

from aprm_jax.data.files import path_rows, raw_row
from aprm_jax.data.jsonl import (
    DataError,
    Limits,
    MissingFieldError,
    RowError,
    Rows,
    parse_rows,
)
from aprm_jax.files import parse_json

T = TypeVar("T")

_OPTIONS = ("config", "split", "data_files", "data_dir", "rename")
_PATH_OPTIONS = ("split", "rename")
# Names that need a configuration, or that TFDS' own catalogue does not have.
_DEFAULT_CONFIG = {"openai/gsm8k": "main", "gsm8k": "main"}
_TFDS_ALIASES = {"gsm8k": "huggingface:openai__gsm8k/main"}

_UNPICKLING = ("pandas",)  # of the readers of `datasets`; a pickle can run code
# TFDS imports the module of each feature that its metadata name.
_OWN_FEATURE = re.compile(r"tensorflow_datasets\.core\.features(\.\w+)+")
_CLASS_KEYS = frozenset({"pythonClassName", "python_class_name"})
_FILE_KEYS = frozenset({"filepathTemplate", "filepath_template", "name", "version"})


def is_name(source: str) -> bool:
    """Whether a source is a name of a data set, not a path."""
    return source.startswith(("datasets:", "tfds:"))


def source_path(source: str) -> Path | None:
    """The path of a source, its options left out; None for a name.

    Raises:
      DataError: it has options that no path takes.
    """
    return None if is_name(source) else _split_path(source)[0]


def read_source(
    source: str,
    split: str,
    parse: Callable[[dict], T],
    *,
    usual_split: str = "train",
    **limits: Unpack[Limits],
) -> Rows[T]:
    """Reads rows from a path or a name, under the rules of `jsonl.read_rows`.

    Args:
      source: see the module's docstring.
      split: split to read unless the source's options give one; "" for the usual one
        of a name, and for all of a path, which must then hold one split alone.
      parse: turns an object into a row; raises `RowError` for a bad one.
      usual_split: of names.
      limits: what is done about bad rows.

    Raises:
      DataError: the source cannot be had, or too many of its rows are bad.
    """
    if not is_name(source):
        path, options = _split_path(source)
        rename = _renames(source, options.get("rename", ""))
        raw = path_rows(path, options.get("split", split), rename, source)
        return parse_rows(source, raw, _hinting(parse), **limits)
    scheme, _, rest = source.partition(":")
    name, _, query = rest.partition("?")
    options = _options(source, query, _OPTIONS)
    if not name:
        raise DataError(f"{source}: no name after {scheme!r}:")
    rename = _renames(source, options.pop("rename", ""))
    split = options.pop("split", split or usual_split)
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
        [raw_row(k, row, rename) for k, row in enumerate(rows, start=1)],
        _hinting(parse),
        **limits,
    )


def _hinting(parse: Callable[[dict], T]) -> Callable[[dict], T]:
    """As `parse`, but of a column that is missing says how another one is taken."""

    def hinting(row: dict) -> T:
        try:
            return parse(row)
        except MissingFieldError as error:
            if error.row is not row:  # of an object in it, which nothing renames
                raise
            raise RowError(
                f"{error}; one of another name is taken with ?rename=THEIRS:"
                f"{error.field} behind the source"
            ) from None

    return hinting


def _split_path(source: str) -> tuple[Path, dict[str, str]]:
    """A path and its options; a file's own name may hold a question mark."""
    name, mark, query = source.rpartition("?")
    if not mark or Path(source).exists():
        return Path(source), {}
    return Path(name), _options(source, query, _PATH_OPTIONS)


def _options(source: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in known:
            raise DataError(
                f"{source}: unknown option {option!r}; known: {', '.join(known)}"
            )
    return options


def _renames(source: str, text: str) -> dict[str, str]:
    pairs = [pair.split(":") for pair in text.split(",") if pair]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise DataError(f"{source}: rename must be theirs:ours, not {text!r}")
    return {theirs: ours for theirs, ours in pairs}


def _from_datasets(name: str, split: str, options: dict[str, Any]) -> Iterable[Any]:
    import datasets

    if name in _UNPICKLING:
        raise DataError(f"datasets:{name} reads pickles, which can run code")
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
    dirs: Any = tfds.core.utils.file_utils  # pyright: ignore[reportAttributeAccessIssue]
    for folder in dirs.list_data_dirs(options.get("data_dir")):
        check_metadata(Path(folder) / name.rpartition(":")[2].partition("/")[0])
    source: Any = tfds.data_source(name, split=split, **options)
    return (source[k] for k in range(len(source)))


def check_metadata(folder: Path) -> None:
    """What TFDS's metadata name is TFDS's own: it imports the class of each feature.

    Args:
      folder: of a builder, with its configurations and versions in it.

    Raises:
      DataError: names the file and what it names.
    """
    for path in sorted(folder.rglob("features.json")):
        features = _read_json(path)
        if not isinstance(features, dict) or "type" in features:
            raise DataError(f"{path}: in the form of TFDS before 4.5: prepare it again")
        for name in _strings_at(features, _CLASS_KEYS):
            if not _OWN_FEATURE.fullmatch(name):
                raise DataError(
                    f"{path}: names the class {name!r}, which is none of TFDS's: to "
                    "read it would run its code"
                )
    for path in sorted(folder.rglob("dataset_info.json")):
        for name in _strings_at(_read_json(path), _FILE_KEYS):
            if Path(name).name != name:
                raise DataError(f"{path}: names files outside its folder: {name!r}")


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _strings_at(tree: Any, keys: frozenset[str]) -> Iterator[str]:
    """The values of some keys, anywhere in a tree, as strings whatever they are."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from (str(value) for key, value in node.items() if key in keys)
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
