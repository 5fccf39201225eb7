"""What the files a run is given said when its stages read them: their fingerprints.

`data.json` in the workdir has size and SHA-256 of each file (of large weights, that of
samples), of a model of the hub its commit, under the source as the config writes it. A
file whose size and times are those of the record is not read again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aprm_jax.config import Config, Job, for_stage, is_read_by, jobs, stages
from aprm_jax.files import (
    fingerprint,
    read_sealed,
    sampled_fingerprint,
    write_sealed,
)
from aprm_jax.hf import hub
from aprm_jax.jobs.given_files import WEIGHTS, Given, base_of, given_to

FILE = "data.json"
_SETTLED = 2_000_000_000  # ns after which a file system's clock tells two writes apart
_NONE = "no such file"

# Source -> file in it ("" is the source itself) -> fingerprint and "times".
Record = Mapping[str, Mapping[str, Mapping[str, Any]]]


def read_record(root: Path) -> Record:
    """What is known of a run's data; nothing where no start has looked yet.

    Raises:
      DamagedFileError: it is not what was written.
    """
    path = root / FILE
    if not path.exists():
        return {}
    remedy = (
        f"Delete {path} if the data files are still those that the run was started "
        "with: it is written anew."
    )
    return read_sealed(path, remedy)["sources"]


def write_record(root: Path, record: Record) -> None:
    """Keeps it, in place of what was there."""
    write_sealed(root / FILE, {"sources": record})


def look(config: Config, known: Record) -> Record:
    """The fingerprints of all files that a run's stages read, as they are now.

    Args:
      config: of the whole run.
      known: of earlier starts; what has not been touched since is not read again.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, job in stages(config):
        for given in given_to(for_stage(config, name), jobs()[job]):
            if given.text in found:
                continue
            if given.hub is None:
                found[given.text] = _of_source(given, known.get(given.text, {}))
            elif commits := _of_hub(*given.hub):
                found[given.text] = commits
    return found


def data_differences(
    known: Record, now: Record, given: Iterable[Given], job: Job
) -> list[tuple[str, str, str]]:
    """(field and file, what it was, what it is) of each file that a job depends on.

    Args:
      known: of earlier starts; a source that is not in it has not changed.
      now: see `look`.
      given: what the stage reads.
      job: that it runs.
    """
    out = []
    for one in given:
        if is_read_by(job, one.field):
            for name, there, here in _differing(known, now, one.text):
                out.append((f"{one.field}, {one.path / name}", there, here))
    return out


def other_files(first: Record, second: Record) -> list[tuple[str, str, str]]:
    """(source and file, what it is in one, in the other) where two runs' data differ.

    A source that only one of them has a record of says nothing.
    """
    return [
        (f"{source}, {name}" if name else source, there, here)
        for source in first
        for name, there, here in _differing(first, second, source)
    ]


def _differing(
    known: Record, now: Record, source: str
) -> Iterator[tuple[str, str, str]]:
    """The files of a source that are not the same in both records."""
    old, new = known.get(source), now.get(source)
    if old is None or new is None:
        return
    for name in sorted(old.keys() | new.keys()):
        there, here = _said(old.get(name)), _said(new.get(name))
        if there != here:
            yield name, there, here


def _of_source(given: Given, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: _of_file(file, known.get(name, {}))
        for file in given.files
        if file.is_file()
        for name in [_name(file, given.path)]
    }


def _of_hub(name: str, revision: str | None) -> dict[str, dict[str, Any]]:
    """The commit of a model of the hub, and of the base that it names; {} for none."""
    place = hub.snapshot(name, revision)
    if place is None:
        return {}
    commits = {"": {"commit": place.name}}
    base = base_of(place)
    under = hub.snapshot(*base) if base and hub.is_name(base[0]) else None
    if base and under:
        commits[f"base {base[0]}"] = {"commit": under.name}
    return commits


def _name(file: Path, source: Path) -> str:
    return "" if file == source else file.relative_to(source).as_posix()


def _of_file(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Its fingerprint, and the times by which it is known again without reading it."""
    found = os.stat(path)
    times = [found.st_mtime_ns, found.st_ctime_ns]
    if (known.get("bytes"), known.get("times")) == (found.st_size, times):
        return dict(known)
    # A file that is written to this moment may keep its times.
    settled = max(times) < time.time_ns() - _SETTLED
    weights = any(path.match(pattern) for pattern in WEIGHTS)
    taken = sampled_fingerprint(path) if weights else fingerprint(path)
    return taken | {"times": times if settled else None}


def _said(known: Mapping[str, Any] | None) -> str:
    if known is None:
        return _NONE
    if "commit" in known:
        return f"commit {known['commit'][:16]}"
    return f"{known['bytes']} bytes, SHA-256 {known['sha256'][:16]}"
