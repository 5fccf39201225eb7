"""The folder of a run: its config, its fingerprint, and which stages are complete."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aprm_jax.config.errors import UserError
from aprm_jax.files import (
    atomic_write,
    check_fingerprints,
    damaged,
    fingerprints,
    parse_json,
    read_sealed,
    to_json,
    write_sealed,
)

_CONFIG = "config.json"
_FINGERPRINT = "fingerprint.json"
DONE = "done.json"
_MISSING = "(not set)"
_SHOWN_DIFFERENCES = 5
# Folders of a stage that are never read again, or that guard themselves as models do.
_UNRECORDED = ("checkpoints", "tensorboard", "wandb", "nonfinite", "prepared")
_MODEL = "model.json"


class WorkdirError(UserError, RuntimeError):
    """The folder cannot be used for this run; the message says what to do."""


def open_workdir(
    path: str | os.PathLike,
    config: Mapping[str, Any] | str,
    code_version: str,
    *,
    allow_other_version: bool = False,
) -> pathlib.Path:
    """Creates the folder of a run, or reopens it for the same config and code.

    Args:
      path: the folder; parents are created.
      config: the whole config, a nested mapping or its JSON text.
      code_version: version of the package, e.g. `aprm_jax.__version__`.
      allow_other_version: go on in a folder that another code version wrote.

    Raises:
      WorkdirError: unwritable, or it holds another config's or version's run.
    """
    path = make_workdir(path)
    text = config if isinstance(config, str) else to_json(config)
    config = dict(json.loads(text))
    if (path / _CONFIG).exists():
        check_config(path)
        _check_same_config(path, config)
        _check_same_version(path, code_version, allow_other_version)
    else:
        atomic_write(path / _CONFIG, to_json(config))
    # Last, and again on each start: a kill between the two files does no harm.
    _write_fingerprint(path, code_version)
    return path


def write_config(
    path: str | os.PathLike, config: Mapping[str, Any], code_version: str
) -> None:
    """Puts another config in place of that of an open workdir."""
    path = pathlib.Path(path)
    # A kill between two of these leaves no fingerprint, and none of another config.
    (path / _FINGERPRINT).unlink(missing_ok=True)
    atomic_write(path / _CONFIG, to_json(config))
    _write_fingerprint(path, code_version)


def make_workdir(path: str | os.PathLike) -> pathlib.Path:
    """Makes the folder of a run, where it is missing.

    Raises:
      WorkdirError: it cannot be made, or not be written into.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"Cannot create the workdir {path}: {error.strerror or error}. "
            "Choose another one with --workdir=DIR."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise WorkdirError(
            f"The workdir {path} is not writable. Choose another with --workdir=DIR."
        )
    return path


def mark_done(
    directory: str | os.PathLike,
    info: Mapping[str, Any],
    also: Iterable[pathlib.Path] = (),
) -> None:
    """Records that the stage in `directory` is complete, with its results and files.

    Args:
      directory: the stage's folder.
      info: JSON values; `done_info` gives them back.
      also: files and folders elsewhere that belong to the stage.
    """
    directory = pathlib.Path(directory)
    elsewhere = [
        f for path in also for f in (_files(path) if path.is_dir() else [path])
    ]
    files = fingerprints(directory, {*_files(directory), *elsewhere})
    write_sealed(directory / DONE, {**info, "files": files})


def is_done(directory: str | os.PathLike) -> bool:
    """Whether `mark_done` was called for this stage."""
    return (pathlib.Path(directory) / DONE).exists()


def done_info(directory: str | os.PathLike) -> dict[str, Any]:
    """What the complete stage in `directory` left with `mark_done`.

    Raises:
      DamagedFileError: it is not what was written.
    """
    info = read_sealed(pathlib.Path(directory) / DONE, _remedy(directory))
    info.pop("files", None)
    return info


def check_done(directory: str | os.PathLike) -> None:
    """Compares the files of a complete stage with what it left.

    Raises:
      DamagedFileError: names the first that is missing or differs.
    """
    remedy = _remedy(directory)
    info = read_sealed(pathlib.Path(directory) / DONE, remedy)
    check_fingerprints(pathlib.Path(directory), info.get("files", {}), remedy)


def _remedy(directory: str | os.PathLike) -> str:
    return (
        "Copy the run again if it is a copy. Or delete that file and "
        f"{pathlib.Path(directory) / DONE}, and run the same command again: it makes "
        "anew what it can and goes on without the rest."
    )


def _files(folder: pathlib.Path, top: bool = True) -> Iterator[pathlib.Path]:
    """The files of a stage that are recorded."""
    for path in folder.iterdir():
        if path.name.startswith(".") or (top and path.name in _UNRECORDED):
            continue
        if path.is_file() and path.name != DONE:
            yield path
        elif path.is_dir() and not (path / _MODEL).exists():
            yield from _files(path, top=False)


def _config_digest(path: pathlib.Path) -> str:
    return hashlib.sha256((path / _CONFIG).read_bytes()).hexdigest()


def check_config(path: pathlib.Path) -> None:
    """The config of a run is the one that its fingerprint was made of, if it has one.

    Raises:
      DamagedFileError: it is not.
    """
    if not (path / _FINGERPRINT).exists():
        return
    remedy = (
        f"Copy the run again if it is a copy; or check {_CONFIG} and delete "
        f"{path / _FINGERPRINT}, which is written anew."
    )
    known = read_sealed(path / _FINGERPRINT, remedy)
    if known.get("config_sha256") != _config_digest(path):
        raise damaged(path / _CONFIG, "is not what was written (checksum)", remedy)


def differences(
    old: Any, new: Any, ignore: Sequence[str] = ()
) -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new value) of each field in which two configs differ."""
    left, right = _flatten(old), _flatten(new)
    return [
        (name, left.get(name, _MISSING), right.get(name, _MISSING))
        for name in sorted(left.keys() | right.keys())
        if not any(name == skip or name.startswith(f"{skip}.") for skip in ignore)
        and left.get(name, _MISSING) != right.get(name, _MISSING)
    ]


def listed(changed: Sequence[tuple[str, Any, Any]]) -> str:
    """What `differences` found, for a message: a line each, the first few of them."""
    lines = [
        f"  {name}: there {_show(there)}, now {_show(now)}\n"
        for name, there, now in changed[:_SHOWN_DIFFERENCES]
    ]
    if len(changed) > _SHOWN_DIFFERENCES:
        lines.append(f"  and {len(changed) - _SHOWN_DIFFERENCES} more\n")
    return "".join(lines)


def _write_fingerprint(path: pathlib.Path, code_version: str) -> None:
    fingerprint = {"code_version": code_version, "config_sha256": _config_digest(path)}
    write_sealed(path / _FINGERPRINT, fingerprint)


def _check_same_config(path: pathlib.Path, config: dict[str, Any]) -> None:
    changed = differences(_read_json(path / _CONFIG), config)
    if not changed:
        return
    raise WorkdirError(
        f"The workdir {path} belongs to a run with another config:\n{listed(changed)}"
        "Start with the config that it was made with, or choose another folder "
        "with --workdir=DIR."
    )


def _check_same_version(
    path: pathlib.Path, code_version: str, allow_other_version: bool
) -> None:
    if allow_other_version or not (path / _FINGERPRINT).exists():
        return
    there = _read_json(path / _FINGERPRINT).get("code_version")
    if there != code_version:
        raise WorkdirError(
            f"The workdir {path} was written by version {there} of aprm_jax; this is "
            f"{code_version}, which may compute something else. Install {there}, or "
            "choose another folder with --workdir=DIR."
        )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"Cannot read {path}: {error}. Choose another folder with --workdir=DIR."
        ) from error


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings to {dotted name: value}; lists are values."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _show(value: Any) -> str:
    return value if value == _MISSING else json.dumps(value)
