"""Saves a model with its tokenizer as a folder, and loads it back or says why not.

A folder holds `params.safetensors`, `model.json` and the tokenizer's files. It is
written under another name and renamed, so it is there whole or not at all;
`model.json` keeps a SHA-256 of every other file, because safetensors loads a flipped
bit silently.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import safetensors
import safetensors.flax
from flax.traverse_util import unflatten_dict
from transformers import PreTrainedTokenizerFast

from aprm_jax.config.errors import UserError
from aprm_jax.files import writing
from aprm_jax.models.decoder import DecoderConfig

Kind = Literal["solver", "generator", "prm"]
Params = Mapping[str, Any]

FORMAT = 1
PARAMS_FILE = "params.safetensors"
SPEC_FILE = "model.json"
# What a model's fields were called before.
_RENAMED = {"reading": "head"}


class ModelFileError(UserError, ValueError):
    """A model's folder is missing, incomplete, damaged or not ours."""


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a model is, beside its parameters.

    Attributes:
      kind: what the model does; says which trees `params` has.
      decoder: shape of the backbone.
      head: how a PRM reads its verdict, of `heads.HEADS`; None for the other kinds.
      window: how many lines before a step the model sees; None for all.
      buckets: lengths that rows are padded to.
      domain: name of the domain that the model was trained on.
      threshold: probability from which a step counts as correct.
      line_stride: the step builder's: 0 for contiguous positions, else where lines
        start.
      max_new_tokens: the longest step that the model is sampled for, its `<step>`
        included; None where it is not sampled.
      family: of Hugging Face, that the model is exported as.
      layout: of a published PRM, that lays its rows out; None for the step builder's.
      prompt: in words, to a Generator that is an instruction model; None for others.
      aggregation: of a PRM's step scores to a solution's, where nobody says another;
        "last" of one that was trained on outcomes, which has no say before the end.
      values: whether a PRM's scores are values, of a policy that goes on from a step,
        and the bare question has one too.
      extra: whatever else its maker wants to keep; must survive JSON.
    """

    kind: Kind
    decoder: DecoderConfig
    head: str | None
    window: int | None
    buckets: tuple[int, ...]
    domain: str
    threshold: float = 0.5
    line_stride: int = 0
    max_new_tokens: int | None = None
    family: str = "llama"
    layout: str | None = None
    prompt: str | None = None
    aggregation: str = "min"
    values: bool = False
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}, not {self.kind!r}")
        if (self.kind == "prm") != (self.head is not None):
            raise ValueError(
                f"a PRM has a head and nothing else has: kind {self.kind!r}, "
                f"head {self.head!r}"
            )


def save_model(
    directory: str | os.PathLike[str],
    params: Params,
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Writes a model's folder, replacing one that is there.

    Args:
      directory: the folder; its parents are made.
      params: nested mappings of arrays, as flax has them.
      spec: what the model is.
      tokenizer: saved beside the parameters.
    """
    with written_whole(directory) as scratch:
        safetensors.flax.save_file(_flatten(params), scratch / PARAMS_FILE)
        tokenizer.save_pretrained(scratch)
        files = sorted(path for path in scratch.iterdir() if path.is_file())
        description = {
            "format": FORMAT,
            **dataclasses.asdict(spec),
            "sha256": {path.name: _sha256(path) for path in files},
        }
        # Over itself too: a flipped bit in a threshold is still a threshold.
        description["seal"] = _seal(description)
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
        (scratch / SPEC_FILE).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def written_whole(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A scratch folder that takes the place of `directory` if the block ends well.

    Raises:
      FileError: the folder is unwritable or the disk is full.

    A kill or an error leaves what was there before, never half a folder; what a kill
    leaves beside it is cleared by the next start.
    """
    target = Path(directory).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.writing-"
    for left_behind in target.parent.glob(prefix + "*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with writing(target):
            os.chmod(scratch, 0o777 & ~_umask())  # mkdtemp lets nobody else read
            yield scratch
            for path in scratch.iterdir():
                if path.is_file():  # whose library may have written it for us alone
                    os.chmod(path, 0o666 & ~_umask())
                _sync(path)
            _replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_model(
    directory: str | os.PathLike[str],
) -> tuple[dict[str, Any], ModelSpec, PreTrainedTokenizerFast]:
    """Reads a model's folder.

    Returns:
      The parameters as `jax.Array`s, what the model is, and its tokenizer.

    Raises:
      ModelFileError: the folder or one of its files is missing, damaged or not of
        this format; the message names the file.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ModelFileError(f"{folder}: no such folder, so no model to load")
    spec, checksums = _read_spec(folder / SPEC_FILE)
    for name in (PARAMS_FILE, *checksums):
        path = folder / name
        if not path.is_file():
            raise ModelFileError(f"{path}: missing, though {SPEC_FILE} lists it")
        if _sha256(path) != checksums.get(name):
            raise ModelFileError(
                f"{path}: damaged, its SHA-256 is not the one in {SPEC_FILE}; "
                "train or copy the model again"
            )
    try:
        flat = safetensors.flax.load_file(folder / PARAMS_FILE)
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{folder / PARAMS_FILE}: {error}") from error
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
    except Exception as error:  # the Rust side raises plain Exception
        raise ModelFileError(f"{folder}: no usable tokenizer: {error}") from error
    return unflatten_dict(dict(sorted(flat.items())), sep="/"), spec, tokenizer


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a file that somebody else may have written.

    Raises:
      ModelFileError: no such file, not JSON, nested too deep, or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelFileError(f"{path}: not used: its JSON is nested too deep") from None
    except ValueError as error:
        raise ModelFileError(f"{path}: not JSON: {error}") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: a JSON {type(value).__name__}, not an object")
    return value


def _read_spec(path: Path) -> tuple[ModelSpec, dict[str, str]]:
    if not path.is_file():
        raise ModelFileError(
            f"{path}: missing, so this folder holds no model or an unfinished one"
        )
    description = read_object(path)
    if description.get("format") != FORMAT:
        found = description.get("format")
        raise ModelFileError(f"{path}: format {found!r}, but this code reads {FORMAT}")
    seal = description.pop("seal", None)  # models of older versions have none
    if seal is not None and seal != _seal(description):
        raise ModelFileError(
            f"{path}: damaged, as its SHA-256 says; train or copy the model again"
        )
    try:
        del description["format"]
        checksums = dict(description.pop("sha256"))
        decoder = DecoderConfig(**description.pop("decoder"))
        buckets = tuple(description.pop("buckets"))
        fields = current_names(description)
        return ModelSpec(decoder=decoder, buckets=buckets, **fields), checksums
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path}: not a model description of this version: {error}"
        ) from error


def current_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `ModelSpec` under their names of today, as any version wrote."""
    return {_RENAMED.get(name, name): value for name, value in fields.items()}


def _flatten(params: Params) -> dict[str, Any]:
    """Nested mappings to one with "/" between the keys."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(f"a parameter cannot be called {key!r}")
        if isinstance(value, Mapping):
            inner = _flatten(value)
            if not inner:
                raise ValueError(f"{key!r} holds no parameters and would be lost")
            flat.update({f"{key}/{name}": leaf for name, leaf in inner.items()})
        elif isinstance(value, jax.Array | np.ndarray):
            flat[key] = value
        else:
            raise TypeError(f"parameter {key!r} is {type(value).__name__}, no array")
    return flat


def _replace(scratch: Path, target: Path) -> None:
    """Renames `scratch` to `target`; a model that is there steps aside first.

    A rename cannot swap two folders. Killed between the two, there is no model, never
    half of one, and whoever wrote it finds it missing and writes it again.
    """
    if target.exists():
        aside = scratch.with_name(scratch.name + "-old")
        os.rename(target, aside)
        os.rename(scratch, target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(scratch, target)
    _sync(target.parent)


def _umask() -> int:
    """The permissions that new files lack, told without changing it for other threads.

    proc_pid_status(5) has it; elsewhere it is set and put back.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal(description: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(description))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
