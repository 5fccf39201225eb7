"""The folder of a run: its config, its fingerprint, and which stages are complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from aprm_jax.config.errors import UserError

_CONFIG = "config.json"
_FINGERPRINT = "fingerprint.json"
DONE = "done.json"
_MISSING = "(not set)"
_SHOWN_DIFFERENCES = 5


class WorkdirError(UserError, RuntimeError):
    """The folder cannot be used for this run; the message says what to do."""


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill, sees all of it or nothing.

    Raises:
      WorkdirError: the folder is unwritable or the disk is full.
    """
    path = pathlib.Path(path)
    data = content.encode() if isinstance(content, str) else content
    # One name per writer: two processes never write into the same temporary file.
    unique = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{unique}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise WorkdirError(
            f"Cannot write {path}: {error.strerror or error}. "
            "Is the folder writable, and is there space left on the disk?"
        ) from error


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
    path = pathlib.Path(path)
    text = config if isinstance(config, str) else _to_json(config)
    config = dict(json.loads(text))
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
    if (path / _CONFIG).exists():
        _check_same_config(path, config)
        _check_same_version(path, code_version, allow_other_version)
    else:
        atomic_write(path / _CONFIG, _to_json(config))
    # Last, and again on each start: a kill between the two files does no harm.
    _write_fingerprint(path, _to_json(config), code_version)
    return path


def write_config(
    path: str | os.PathLike, config: Mapping[str, Any], code_version: str
) -> None:
    """Puts another config in place of that of an open workdir."""
    text = _to_json(config)
    atomic_write(pathlib.Path(path) / _CONFIG, text)
    _write_fingerprint(pathlib.Path(path), text, code_version)


def mark_done(directory: str | os.PathLike, info: Mapping[str, Any]) -> None:
    """Records that the stage in `directory` is complete, with its results."""
    atomic_write(pathlib.Path(directory) / DONE, _to_json(info))


def is_done(directory: str | os.PathLike) -> bool:
    """Whether `mark_done` was called for this stage."""
    return (pathlib.Path(directory) / DONE).exists()


def done_info(directory: str | os.PathLike) -> dict[str, Any]:
    """What the complete stage in `directory` left with `mark_done`."""
    return _read_json(pathlib.Path(directory) / DONE)


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


def _write_fingerprint(path: pathlib.Path, config: str, code_version: str) -> None:
    fingerprint = {
        "code_version": code_version,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
    }
    atomic_write(path / _FINGERPRINT, _to_json(fingerprint))


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
        return json.loads(path.read_text())
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


def _to_json(tree: Any) -> str:
    return json.dumps(tree, indent=2, sort_keys=True, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """What JSON lacks: mappings that are not dicts, NumPy scalars, paths."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
