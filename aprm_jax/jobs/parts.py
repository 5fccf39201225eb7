"""Pieces of a long measurement, each computed once and kept: a kill loses one."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.evals.records import Record
from aprm_jax.files import (
    check_fingerprints,
    fingerprints,
    read_sealed,
    write_sealed,
)
from aprm_jax.jobs.context import Context, log

# The records of a piece, and what else is kept of it.
Part = dict[str, Any]


def kept(records: Sequence[Record], **more: Any) -> Part:
    """A piece of these records."""
    return {"records": [record.to_json() for record in records], **more}


def keep(context: Context, name: str, compute: Callable[[], Part]) -> Part:
    """The stage's piece of that name, computed once and kept."""
    path = part_path(context.directory, name)
    arrays = arrays_path(context.directory, name)
    if path.exists():
        return read_part(path)
    log.info("%s: %s", context.stage, name)
    start = time.perf_counter()
    part = compute()
    part |= {"name": name, "seconds": time.perf_counter() - start}
    path.parent.mkdir(exist_ok=True)
    written = [arrays] if arrays.exists() else []
    write_sealed(path, part | {"files": fingerprints(context.directory, written)})
    return part


def read_part(path: Path) -> Part:
    """A part that was kept; its arrays in `per_problem/` are what was written, too.

    Raises:
      DamagedFileError: it is not what was written.
    """
    remedy = (
        f"Delete it and its part (rm {path}), and run the same command again: the "
        "part is computed anew."
    )
    part = read_sealed(path, remedy)
    check_fingerprints(path.parents[1], part.pop("files"), remedy)
    return part


def part_path(directory: Path, name: str) -> Path:
    """The file of a part, whose name may hold a folder's path."""
    return directory / "parts" / f"{_file_name(name)}.json"


def arrays_path(directory: Path, name: str) -> Path:
    """The file of a part's figures of each problem."""
    return directory / "per_problem" / f"{_file_name(name)}.npz"


def _file_name(name: str) -> str:
    safe = re.sub(r"[^\w.@+-]", "_", name)
    if safe == name:
        return name
    return f"{safe}-{zlib.crc32(name.encode()):08x}"  # two names must not share a file
