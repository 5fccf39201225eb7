"""What tells a model's files from others that were written in their place."""

from __future__ import annotations

from pathlib import Path

# Of each file its name, bytes, time of its content in nanoseconds, and inode.
Stamp = tuple[tuple[str, int, int, int], ...]
_KINDS = (".safetensors", ".json")


def files_stamp(place: Path) -> Stamp:
    """Of a file, or of the weights and JSON files of a folder.

    Whoever keeps what was read of a model keeps it by this too: it is another one where
    a file was written, replaced, added or removed since.

    Args:
      place: what a model was read from.

    Returns:
      () where there is nothing that can be looked at.
    """
    try:
        inside = (file for file in place.glob("*") if file.suffix in _KINDS)
        files = [place] if place.is_file() else sorted(inside)
        stats = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)
