"""A prepared data set on disk: rows of ids as a TFDS builder, without TensorFlow.

The folder is a builder that `tfds.builder_from_directory(folder / VERSION)` and
`tfds.data_source(NAME, data_dir=...)` read: ArrayRecord files, and what is known of
the data in the builder's metadata. It is written beside its place and renamed into it,
so a kill leaves no half of one.

We read the rows by our own features and the files that `files.json` lists, with their
checksums, and nothing of TFDS's metadata: `features.json` names Python classes, which
TFDS imports, from the folder that the process stands in too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import question_id
from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import RowFormat
from aprm_jax.files import (
    check_fingerprints,
    parse_json,
    seal_folder,
    sealed_files,
    writing,
)

NAME = "prepared"
VERSION = "1.0.0"
_ARRAYS = ("tokens", "positions", "segment_ids", "step_ids", "labels")
_COUNTS = ("rows", "tokens", "steps", "labelled_steps", "longest", "most_steps")
_REMEDY = "Prepare the data again: delete the folder, then job=prepare, or copy it anew"
# What kinds of `question_id` may differ in: case, signs, layout.
_TELLING = r"Is $A = a$ mW, # @ (of) \{x^{2}\} .5 \gamma, $\Gamma$ or f'(|x|)?"
_CHUNK = 1024  # rows between two calls of the writer, which rewrites its metadata


@dataclasses.dataclass(frozen=True)
class PreparedRow:
    """A row of ids and where it comes from."""

    row: StepRow
    question_id: str
    source: str


def tokenizer_hash(tokenizer: PreTrainedTokenizerFast) -> str:
    """What decides a row's ids: SHA-256 of vocabulary, merges, splitting, <bos>."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = ("added_tokens", "normalizer", "pre_tokenizer", "model")
    known = {part: content.get(part) for part in parts}
    text = json.dumps([known, str(tokenizer.bos_token)], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def builder_settings(builder: RowFormat) -> dict[str, Any]:
    """What a reader must agree on: its step builder, and by what it knows questions.

    Ids of another kind would be nobody's, and no question could be left out by them.
    """
    return {
        "question_id": question_id(_TELLING),
        "tokenizer": tokenizer_hash(builder.tokenizer),
        "window": builder.window,
        "line_stride": builder.line_stride,
    }


def write_prepared(
    folder: Path,
    splits: Mapping[str, Iterable[PreparedRow]],
    metadata: Callable[[], Mapping[str, Any]],
    *,
    rows_per_file: int = 16384,
) -> None:
    """Writes the builder `folder`; one that is there already is replaced.

    Args:
      folder: `<data_dir>/prepared`; TFDS looks for the builder's name there.
      splits: the rows of each split, consumed once; an empty split is left out.
      metadata: called once the rows are written; JSON values, which the counts of
        each split join.
      rows_per_file: most rows of one ArrayRecord file.

    Raises:
      DataError: no split has a row.
      FileError: the folder is unwritable or the disk is full.
    """
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with writing(folder):
            _write(scratch / VERSION, splits, metadata, rows_per_file)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(
    target: Path,
    splits: Mapping[str, Iterable[PreparedRow]],
    metadata: Callable[[], Mapping[str, Any]],
    rows_per_file: int,
) -> None:
    tfds = _tfds()
    target.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=NAME,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(target),
        module_name="aprm_jax.data.prepared",
    )
    known: dict[str, Any] = tfds.core.MetadataDict(splits={})
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=_features(tfds),
        description="Solutions as rows of token ids with the labels of their steps.",
        metadata=known,
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=rows_per_file, file_format="array_record"
    )
    for name, rows in splits.items():
        counts = _write_split(writer, name, rows)
        if counts["rows"]:
            known["splits"][name] = counts
    if not known["splits"]:
        raise DataError(
            f"{target.parent}: nothing is left to write: no split has a row"
        )
    known.update(metadata())
    writer.close_all()
    seal_folder(target)


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """What `write_prepared` was told, and the counts of each split.

    Raises:
      DataError: there is no prepared data set.
      DamagedFileError: its metadata is not what was written.
    """
    path = Path(folder) / VERSION / "metadata.json"
    if not path.is_file():
        raise DataError(
            f"{folder}: not a prepared data set ({path} is missing): give the folder "
            f"{NAME!r} that job=prepare wrote"
        )
    recorded = sealed_files(path.parent, _REMEDY)
    check_fingerprints(path.parent, {path.name: recorded.get(path.name, {})}, _REMEDY)
    try:
        metadata = parse_json(path.read_bytes())
        _check_metadata(metadata)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return metadata


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError, ... unless it has what readers look at."""
    if not isinstance(metadata["builder"], dict):
        raise ValueError("'builder' is no object")
    for split, counts in metadata["splits"].items():
        for name in _COUNTS:
            if not isinstance(counts[name], int) or counts[name] < (
                name in _COUNTS[:2]
            ):
                raise ValueError(f"{split}.{name} is {counts[name]!r}, no count")


def check_builder(folder: str | Path, builder: RowFormat) -> dict[str, Any]:
    """The metadata, once it is sure that the ids in the data set mean the same here.

    Raises:
      DataError: see `read_metadata`; or the data set was made with another tokenizer,
        another layout of rows or other ids of questions.
    """
    metadata = read_metadata(folder)
    for name, here in builder_settings(builder).items():
        there = metadata["builder"].get(name)
        if there != here:
            raise DataError(
                f"{folder} was prepared with another {name}: {_short(there)} there, "
                f"{_short(here)} here. Prepare it again with this config"
            )
    return metadata


def open_split(folder: str | Path, split: str) -> PreparedSplit:
    """The rows of a split, as `to_row` takes them, by index.

    Raises:
      DataError: there is no such data set or split.
      DamagedFileError: a file of it is not what was written.
    """
    splits = read_metadata(folder)["splits"]
    if split not in splits:
        raise DataError(f"{folder}: no split {split!r}, only {', '.join(splits)}")
    version = Path(folder) / VERSION
    shards = {
        name: known
        for name, known in sorted(sealed_files(version, _REMEDY).items())
        if name.startswith(f"{NAME}-{split}.array_record-")
    }
    check_fingerprints(version, shards, _REMEDY)
    rows = PreparedSplit([version / name for name in shards])
    if len(rows) != splits[split]["rows"]:
        raise DataError(
            f"{folder}, split {split!r}: {len(rows)} rows in {len(shards)} files, but "
            f"the metadata has {splits[split]['rows']}. {_REMEDY}"
        )
    return rows


class PreparedSplit(Sequence[Mapping[str, Any]]):
    """The rows of some ArrayRecord files, as dictionaries of arrays, by index."""

    def __init__(self, files: Sequence[Path]):
        from array_record.python import array_record_data_source

        self._records = array_record_data_source.ArrayRecordDataSource(
            [os.fspath(file) for file in files]
        )
        self._features = _features(_tfds())

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Mapping[str, Any]:
        """Row `index`, an integer from 0.

        Raises:
          IndexError: there is no such row, by which iteration ends.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._features.deserialize_example_np(self._records[index])


def to_row(example: Mapping[str, Any]) -> StepRow:
    """A row as it was before it was written."""
    return StepRow(**{name: np.asarray(example[name]) for name in _ARRAYS})


def _tfds() -> Any:
    """Imported on demand: it takes half a second, and most runs need none."""
    import tensorflow_datasets

    return tensorflow_datasets


def _features(tfds: Any) -> Any:
    def ids() -> Any:
        return tfds.features.Tensor(shape=(None,), dtype=np.int32)

    return tfds.features.FeaturesDict(
        {
            **{name: ids() for name in _ARRAYS[:-1]},
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "question_id": tfds.features.Text(),
            "source": tfds.features.Text(),
        }
    )


def _write_split(writer: Any, name: str, rows: Iterable[PreparedRow]) -> dict[str, int]:
    counts = dict.fromkeys(_COUNTS, 0)
    questions: set[str] = set()
    chunk: list[dict[str, Any]] = []
    for item in rows:
        row = item.row
        if not counts["rows"]:
            writer.initialize_splits([name])
        chunk.append(
            {
                **{array: getattr(row, array) for array in _ARRAYS},
                "question_id": item.question_id,
                "source": item.source,
            }
        )
        counts["rows"] += 1
        counts["tokens"] += len(row)
        counts["steps"] += len(row.labels)
        counts["labelled_steps"] += int(np.count_nonzero(~np.isnan(row.labels)))
        counts["longest"] = max(counts["longest"], len(row))
        counts["most_steps"] = max(counts["most_steps"], len(row.labels))
        questions.add(item.question_id)
        if len(chunk) == _CHUNK:
            writer.add_examples({name: chunk})
            chunk = []
    if chunk:
        writer.add_examples({name: chunk})
    return counts | {"questions": len(questions)}


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) else repr(value)
