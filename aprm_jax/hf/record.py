"""What an export remembers of the model, so that it is used and read back as it was.

It lies in the export as `aprm_jax.json`: our `ModelSpec` without the architecture,
which config.json has, numbers of a head that the weights have no place for, and how
rows are made of ids, for the `score.py` beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.io import (
    ModelFileError,
    ModelSpec,
    current_names,
    read_object,
)

RECORD_FILE = "aprm_jax.json"
_VERSION = 1
# Of `ModelSpec`; "extra" may hold paths of the machine that it was trained on.
_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(ModelSpec)
    if field.name not in ("decoder", "extra")
)


@dataclasses.dataclass(frozen=True)
class Record:
    """An export's own description.

    Attributes:
      format: how it was exported.
      spec: the model's; its decoder is that of config.json.
      head: numbers of a head, "scale" and "bias" of the head "token".
      rows: how rows are made of ids; see `export.describe`.
    """

    format: str
    spec: ModelSpec
    head: Mapping[str, float]
    rows: Mapping[str, Any]


def write_record(folder: Path, record: Record) -> None:
    """Writes aprm_jax.json."""
    fields = {
        "version": _VERSION,
        "format": record.format,
        "model": {name: getattr(record.spec, name) for name in _FIELDS},
        "head": record.head,
        "rows": record.rows,
    }
    text = json.dumps(fields, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")


def read_record(
    directory: str | os.PathLike[str], decoder: DecoderConfig
) -> Record | None:
    """The record of an export; None for a folder that no export has made.

    Args:
      directory: the folder.
      decoder: of its config.json, or of the base of an adapter.

    Raises:
      ModelFileError: it is damaged, or of another version.
    """
    path = Path(directory) / RECORD_FILE
    if not path.is_file():
        return None
    fields = read_object(path)
    if fields.get("version") != _VERSION:
        raise ModelFileError(
            f"{path}: version {fields.get('version')!r}, but this code reads {_VERSION}"
        )
    try:
        written = current_names(fields["model"])
        # What an older version did not know has its default.
        model = {name: written[name] for name in _FIELDS if name in written}
        model["buckets"] = tuple(map(int, model["buckets"]))
        head = {name: float(value) for name, value in fields["head"].items()}
        spec = ModelSpec(decoder=decoder, **model)
        return Record(str(fields["format"]), spec, head, dict(fields["rows"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{path}: not an export's record: {error!r}") from error
