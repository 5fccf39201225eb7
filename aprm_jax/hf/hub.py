"""Finds the files of a model: a local folder, a GGUF file, or a name on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aprm_jax.hf import gguf
from aprm_jax.models.io import ModelFileError

# No .bin, no code: neither is ever read.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_DESCRIPTIONS = ("config.json", "adapter_config.json")


def is_name(text: str) -> bool:
    """Whether a text may be OWNER/NAME; a folder may have it too."""
    return text.count("/") == 1 and ":" not in text and text[0] not in "./~"


def snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder of the hub's cache that `find` reads a name from; None for none.

    It is called by the commit. Where the hub can be reached it is the newest, of which
    small files are fetched here and no weights.
    """
    try:
        return find(name, revision, _DESCRIPTIONS)
    except ModelFileError:
        return None


def find(name: str, revision: str | None = None, files: Sequence[str] = FILES) -> Path:
    """The folder of a model: `name` itself, its GGUF file, or files from the hub.

    Args:
      name: a folder, what `gguf.locate` takes, or OWNER/NAME.
      revision: of the hub's; default: the newest.
      files: patterns of what is needed of it.

    Raises:
      ModelFileError: says why neither can be had.
    """
    try:
        if (file := gguf.locate(name)) is not None:
            return file
        if Path(name).is_dir():
            return Path(name)
    except OSError as error:  # a name longer than the system's names may be
        raise ModelFileError(f"{name[:80]!r}: {error.strerror}") from None
    if not is_name(name):
        raise ModelFileError(
            f"{name!r}: no such folder, and no name of a model on the hub (OWNER/NAME)"
        )
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(files)
            )
        )
    except Exception as error:  # of the hub, of its client, of the network
        reason = str(error).strip().split("\n")[0]
        raise ModelFileError(
            f"{name!r}: no such folder, and the hub does not give it: "
            f"{type(error).__name__}: {reason}"
        ) from None
