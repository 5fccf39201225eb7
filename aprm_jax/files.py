"""Files that are there whole or not at all, and that say whether they are intact.

Whatever a run writes and reads again carries a SHA-256: in the file itself where it is
JSON of ours (`write_sealed`), in a record of the folder's files where it is not
(`fingerprints`). What was read is hostile until it has passed: JSON of any depth and
size of number, names that lead out of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aprm_jax.config.errors import UserError

_SEAL = "sha256"
_SAMPLED, _PIECES = 1 << 24, 256  # bytes, and how many pieces half of them are
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
FILES = "files.json"  # of a folder that `seal_folder` recorded


class FileError(UserError, RuntimeError):
    """A file cannot be written or read; the message says what to do."""


class DamagedFileError(FileError):
    """A file is not what was written; the message names it and what to do."""


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill, sees all of it or nothing.

    Its permissions are those that the umask leaves.

    Raises:
      FileError: the folder is unwritable or the disk is full.
    """
    path = Path(path)
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
        raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike[str], error: Exception) -> FileError:
    """What to raise where the system refuses to write a file."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return FileError(
        f"Cannot write {os.fspath(path)}: {reason}. Is the folder writable, and is "
        "there space left on the disk? The same command goes on from what was finished."
    )


def cache_folder(name: str) -> Path:
    """Where the user's cache keeps what may be made again."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "aprm_jax" / name


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around what a library writes: each has an error of its own for a full disk.

    Raises:
      FileError: the folder is unwritable or the disk is full.
    """
    try:
        yield
    except Exception as error:
        # Of Rust's libraries "(os error 28)", of C++'s a RuntimeError with the words.
        said = ("(os error ", *(os.strerror(code) for code in _REFUSALS))
        refused = isinstance(error, OSError) or any(text in str(error) for text in said)
        if isinstance(error, UserError) or not refused:
            raise
        raise cannot_write(path, error) from error


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, but whatever is wrong with the text is a `ValueError`.

    (Text that is nested thousands deep is a RecursionError of Python's own.)
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def to_json(tree: Any) -> str:
    """Indented JSON with sorted keys, of mappings, sequences, NumPy scalars, paths."""
    return json.dumps(tree, indent=2, sort_keys=True, default=_plain) + "\n"


def write_sealed(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON object with the SHA-256 of its own content.

    Raises:
      FileError: see `atomic_write`.
    """
    atomic_write(path, to_json(sealed(content)))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the SHA-256 of its own content, for `read_sealed`."""
    plain = json.loads(to_json(content))
    return {**plain, _SEAL: _digest(plain)}


def read_sealed(path: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Args:
      path: the file.
      remedy: what to do where it is damaged; ends the message.

    Raises:
      DamagedFileError: it is missing, or not what was written.
    """
    try:
        content = unsealed(Path(path).read_bytes())
    except FileNotFoundError:
        raise damaged(path, "is missing", remedy) from None
    except OSError:  # a folder
        content = None
    if content is None:
        raise damaged(path, "is not what was written", remedy)
    return content


def unsealed(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object that `sealed` made, without its SHA-256; None if it is none."""
    try:
        content = parse_json(text)
    except ValueError:  # no UTF-8, no JSON
        return None
    if not isinstance(content, dict) or content.pop(_SEAL, None) != _digest(content):
        return None
    return content


def fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def sampled_fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """As `fingerprint`, of 16 MiB at most of a large file: weights are slow to read.

    Of its beginning, where safetensors and GGUF describe their tensors, its end and
    pieces at even distances between: training changes tensors through and through.
    """
    size = os.stat(path).st_size
    if size <= _SAMPLED:
        return fingerprint(path)
    digest, piece = hashlib.sha256(), _SAMPLED // 2 // _PIECES
    with open(path, "rb") as file:
        digest.update(file.read(_SAMPLED // 2))
        for k in range(1, _PIECES + 1):
            file.seek((size - piece) * k // _PIECES)
            digest.update(file.read(piece))
    return {"bytes": size, "sha256": digest.hexdigest()}


def fingerprints(folder: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Fingerprints of files, by their names relative to a folder."""
    return {
        Path(os.path.relpath(path, folder)).as_posix(): fingerprint(path)
        for path in sorted(paths)
    }


def check_fingerprints(
    folder: Path, recorded: Mapping[str, Mapping[str, Any]], remedy: str
) -> None:
    """Compares files with what `fingerprints` recorded.

    Raises:
      DamagedFileError: names the first that is missing or differs.
    """
    for name, expected in recorded.items():
        path = Path(os.path.normpath(folder / name))
        if not path.is_file():
            what = "is missing" if not path.exists() else "is no file any more"
            raise damaged(path, what, remedy)
        try:
            found = fingerprint(path)
        except OSError as error:
            raise damaged(path, f"cannot be read ({error.strerror})", remedy) from error
        if found != expected:
            raise damaged(path, "is not what was written (checksum)", remedy)


def seal_folder(folder: Path) -> None:
    """Records the files of a folder in it, for `check_folder`.

    Raises:
      FileError: see `atomic_write`.
    """
    write_sealed(folder / FILES, {"files": fingerprints(folder, folder.iterdir())})


def sealed_files(folder: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """What `seal_folder` recorded, for `check_fingerprints`.

    Raises:
      DamagedFileError: nothing, or a name leads out of the folder.
    """
    recorded = read_sealed(folder / FILES, remedy).get("files")
    if not isinstance(recorded, dict) or any(
        Path(name).name != name for name in recorded
    ):
        raise damaged(folder / FILES, "is no list of files in its own folder", remedy)
    return recorded


def damaged(path: str | os.PathLike[str], what: str, remedy: str) -> DamagedFileError:
    """The error of a damaged file."""
    return DamagedFileError(f"{os.fspath(path)} {what}. {remedy}")


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON lacks: mappings that are not dicts, NumPy scalars, paths."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
