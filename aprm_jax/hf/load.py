"""Loads Hugging Face checkpoints: each device's shard straight from the files.

Nothing is ever whole in memory that a device does not hold whole. Host memory peaks at
this process's own shards plus one part of one tensor: parameters are read one after
the other, the largest first, when the least of the others is there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding
from transformers import PreTrainedTokenizerFast

from aprm_jax.hf import gguf, tables
from aprm_jax.hf.adapters import Adapted, Adapter, adapted
from aprm_jax.hf.architectures import (
    UnsupportedModelError,
    family_of,
    has_language_head,
)
from aprm_jax.hf.config import decoder_config, read_config
from aprm_jax.hf.copying import assign
from aprm_jax.hf.families import AXES
from aprm_jax.hf.gguf_tokenizer import read_tokenizer
from aprm_jax.hf.peft import load_adapter
from aprm_jax.hf.safetensors_io import Checkpoint, Slices, empty
from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.io import ModelFileError
from aprm_jax.training.mesh import param_shardings

_MEAN_BYTES = 1 << 25  # of the embedding, read at once to average its rows


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What a folder of Hugging Face holds.

    Attributes:
      config: the architecture; `vocab_size` counts added rows too.
      family: of the key tables; what it is exported as again.
      params: the decoder's parameters on the mesh.
      tokenizer: its ids all have a row.
      vocab_rows: rows of the embedding in the checkpoint; those behind are ours.
    """

    config: DecoderConfig
    family: str
    params: dict[str, Any]
    tokenizer: PreTrainedTokenizerFast
    vocab_rows: int


def load_backbone(
    directory: str | os.PathLike[str],
    mesh: jax.sharding.Mesh,
    *,
    dtype: str = "float32",
    param_dtype: str = "float32",
    remat: str = "none",
    vocab_size: int | None = None,
    ignore: Collection[str] = (),
    adapter: str | os.PathLike[str] | None = None,
) -> Backbone:
    """Loads a model's folder: config.json, safetensors and tokenizer.

    Args:
      directory: a local folder, or a GGUF file.
      mesh: parameters are sharded over it by the table of `training.mesh`.
      dtype: of activations.
      param_dtype: of parameters, whatever the files have.
      remat: see `DecoderConfig`.
      vocab_size: rows of the embedding, for tokens that the tokenizer is to get or to
        divide it among devices; default: as many as the checkpoint has.
      ignore: patterns of keys that are not the decoder's, such as a PRM's head.
      adapter: a folder of PEFT's, whose adapter is merged into the kernels.

    Raises:
      UnsupportedModelError: an architecture or option that we do not have.
      ModelFileError: a file is missing or damaged, or the tokenizer does not fit.
      CheckpointMismatchError: tensors that are missing, unexpected or mis-shaped.
      AdapterMismatchError: the adapter was made for another base.
    """
    folder = Path(directory)
    merged = None if adapter is None else load_adapter(adapter)
    config, family = read_architecture(
        folder, adapter=merged, dtype=dtype, param_dtype=param_dtype, remat=remat
    )
    rows = config.vocab_size
    with open_checkpoint(folder) as checkpoint:
        tokenizer = load_tokenizer(folder)
        check_tokenizer(tokenizer, rows, folder)
        source = checkpoint
        if adapter is not None and merged is not None:
            source = adapted(checkpoint, merged, adapter)
        params = load_params(
            source, config, family, mesh, vocab_size=vocab_size, ignore=ignore
        )
    config = dataclasses.replace(config, vocab_size=vocab_size or rows)
    return Backbone(config, family, params, tokenizer, rows)


def read_architecture(
    directory: str | os.PathLike[str],
    *,
    adapter: Adapter | None = None,
    **fields: Any,
) -> tuple[DecoderConfig, str]:
    """Architecture and family of a folder: what config.json says, and what is tied.

    As transformers 5 has it, `tie_word_embeddings` gives way to a file that holds an LM
    head unlike its embedding.

    Args:
      directory: a local folder.
      adapter: that is to be merged into it: it may part the LM head from the embedding.
      **fields: `dtype`, `param_dtype` and `remat` of `config.decoder_config`.

    Raises:
      UnsupportedModelError: an architecture or option that we do not have.
      ModelFileError: no config.json, or none that can be read; a damaged checkpoint.
    """
    try:
        description = read_config(directory)
    except UnsupportedModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelFileError(str(error)) from error
    try:
        config, family = decoder_config(description, **fields), family_of(description)
    except UnsupportedModelError as error:
        where = Path(directory)
        where = where if gguf.is_gguf(where) else where / "config.json"
        raise UnsupportedModelError(f"{where}: {error}") from error
    if config.tie_embeddings and has_language_head(description):
        parted = adapter is not None and adapter.unties
        if parted or _has_own_head(Path(directory)):
            config = dataclasses.replace(config, tie_embeddings=False)
    return config, family


def open_checkpoint(place: str | os.PathLike[str]) -> Checkpoint:
    """The tensors of a folder, or of a GGUF file.

    Raises:
      ModelFileError: they are missing or damaged.
    """
    if gguf.is_gguf(place):
        return gguf.GgufCheckpoint(place)
    return Checkpoint.open(place)


def _has_own_head(folder: Path) -> bool:
    """Whether a checkpoint holds an LM head that is not its embedding."""
    if not any(folder.glob("model*.safetensors")):
        return False  # whoever reads the weights says what is missing
    with Checkpoint.open(folder) as checkpoint:
        names = {tables.canonical(key): key for key in checkpoint.shapes}
        pair = [names.get(f"{name}.weight") for name in tables.ENDS]
        head, embedding = pair
        if head is None or embedding is None:
            return False
        rows, width = checkpoint.shapes[head]
        if checkpoint.shapes[embedding] != (rows, width):
            return True
        step = max(1, _MEAN_BYTES // (4 * width))
        for start in range(0, rows, step):
            cut = (slice(start, min(rows, start + step)), slice(0, width))
            if (checkpoint.read(head, cut) != checkpoint.read(embedding, cut)).any():
                return True
    return False


def load_tokenizer(directory: str | os.PathLike[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder.

    As its tokenizer.json has it: `AutoTokenizer` would build that of Qwen 2 and others
    anew from the vocabulary, by the rules of the family's own, whoever's it is.

    Raises:
      ModelFileError: there is none, or only one without the fast form.
    """
    if gguf.is_gguf(directory):
        return read_tokenizer(directory)
    given = (Path(directory) / "tokenizer.json").is_file()
    reader: Any = PreTrainedTokenizerFast
    if not given:
        from transformers import AutoTokenizer  # torch too, where it is installed

        reader = AutoTokenizer
    try:
        tokenizer = reader.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the Rust side raises plain Exception
        reason = str(error).strip().split("\n")[0]
        raise ModelFileError(
            f"{os.fspath(directory)}: no usable tokenizer (tokenizer.json): {reason}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelFileError(
            f"{os.fspath(directory)}: {type(tokenizer).__name__} is no fast tokenizer; "
            "a tokenizer.json is needed"
        )
    return tokenizer


def tokenizer_rows(tokenizer: PreTrainedTokenizerFast) -> int:
    """Rows that an embedding must have: the largest id, and one."""
    return max(tokenizer.get_vocab().values()) + 1


def check_tokenizer(
    tokenizer: PreTrainedTokenizerFast, rows: int, directory: str | os.PathLike[str]
) -> None:
    """Raises ModelFileError where an id has no row; more rows than ids are padding."""
    needed = tokenizer_rows(tokenizer)
    if needed > rows:
        raise ModelFileError(
            f"{os.fspath(directory)}: the tokenizer has ids up to {needed - 1}, but "
            f"the embedding only {rows} rows (vocab_size of config.json)"
        )


def load_params(
    checkpoint: Checkpoint | Adapted,
    config: DecoderConfig,
    family: str,
    mesh: jax.sharding.Mesh,
    *,
    vocab_size: int | None = None,
    ignore: Collection[str] = (),
) -> dict[str, Any]:
    """The decoder's parameters, in `config.param_dtype`, sharded over `mesh`.

    Added rows of the vocabulary are the mean of all others: their logit is the mean
    logit, so greedy decoding takes none of them, and one that becomes a token of its
    own starts from an ordinary vector.

    Args:
      checkpoint: open.
      config: what its config.json describes.
      family: see `tables.entries`.
      mesh: of `training.mesh.make_mesh`.
      vocab_size: rows of the vocabulary, at least `config.vocab_size`.
      ignore: see `tables.check_keys`.

    Raises:
      CheckpointMismatchError: lists all that is missing, unexpected or mis-shaped.
      ModelFileError: a dtype that is not taken; before anything is read.
      ValueError: fewer rows than the checkpoint has.
    """
    if vocab_size is not None and vocab_size < config.vocab_size:
        raise ValueError(
            f"vocab_size {vocab_size} is less than the checkpoint's {config.vocab_size}"
        )
    table = tables.entries(config, family)
    names = tables.check_keys(
        table, checkpoint.shapes, ignore=ignore, where=str(checkpoint.directory)
    )
    for name in names.values():
        checkpoint.dtype(name)
    dtype = np.dtype(jax.numpy.dtype(config.param_dtype))
    wanted = dataclasses.replace(config, vocab_size=vocab_size or config.vocab_size)
    shapes = tables.parameter_shapes(wanted)
    placed = tables.sources(table)
    tree = unflatten_dict(
        {k: jax.ShapeDtypeStruct(s, dtype) for k, s in shapes.items()}, sep="/"
    )
    # The rules name a decoder's LM head by the tree that it stands in.
    places: dict[str, Any] = flatten_dict(
        param_shardings(mesh, {"backbone": tree})["backbone"], sep="/"
    )
    params = {}
    for path in sorted(shapes, key=lambda p: -math.prod(shapes[p])):
        source = _Source(checkpoint, names, placed[path], path, config.vocab_size)
        params[path] = _build(shapes[path], dtype, places[path], source.read)
    return unflatten_dict(dict(sorted(params.items())), sep="/")


@dataclasses.dataclass
class _Source:
    """Reads any slice of one parameter."""

    checkpoint: Checkpoint | Adapted
    names: dict[str, str]  # a table's key -> the checkpoint's
    placed: list[tuple[tables.Entry, tables.Part]]  # by layer
    path: str
    rows: int  # of the vocabulary in the checkpoint

    def read(self, index: Slices, out: np.ndarray) -> None:
        """Fills `out` with the slice `index` of the parameter."""
        axes = AXES[self.path].split()
        if "V" not in axes:
            self._read(index, out)
            return
        axis = axes.index("V")
        start, stop = index[axis].start, index[axis].stop
        known = min(stop, self.rows)
        before = tuple(slice(None) for _ in range(axis))
        if start < known:
            cut = (*index[:axis], slice(start, known), *index[axis + 1 :])
            self._read(cut, out[(*before, slice(0, known - start))])
        if known < stop:
            added = out[(*before, slice(max(0, self.rows - start), None))]
            others = [i for k, i in enumerate(index) if k != axis]
            added[...] = np.expand_dims(self._mean[tuple(others)], axis)

    def _read(self, index: Slices, out: np.ndarray) -> None:
        for entry, part in self.placed:
            target = out
            if part.layer is not None:
                if not index[0].start <= part.layer < index[0].stop:
                    continue
                target = out[part.layer - index[0].start]
            self._read_part(entry, part, index, target)

    def _read_part(
        self, entry: tables.Entry, part: tables.Part, index: Slices, target: np.ndarray
    ) -> None:
        key, block = self.names[entry.key], part.source_slices(index)
        straight = part.theirs == tuple((axis,) for axis in part.ours)
        if (
            straight
            and target.flags.c_contiguous
            and self.checkpoint.dtype(key) == target.dtype
        ):
            self.checkpoint.read(key, block, target)
        else:
            assign(target, part.to_ours(self.checkpoint.read(key, block), index))

    @functools.cached_property
    def _mean(self) -> np.ndarray:
        """Of the vocabulary's rows in the checkpoint [D], in float64."""
        ((entry, _),) = self.placed
        key = self.names[entry.key]
        rows, width = self.checkpoint.shapes[key]
        total = np.zeros(width, np.float64)
        step = max(1, _MEAN_BYTES // (self.checkpoint.dtype(key).itemsize * width))
        for start in range(0, rows, step):
            cut = (slice(start, min(rows, start + step)), slice(0, width))
            total += self.checkpoint.read(key, cut).sum(axis=0, dtype=np.float64)
        return total / rows


def _build(
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
    read: Callable[[Slices, np.ndarray], None],
) -> jax.Array:
    """An array made shard by shard; copies of a shard are read once.

    As `jax.make_array_from_callback`, which however keeps all shards of the host in
    memory until the last one is read.
    """
    by_part: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        cut = () if index is None else index
        bounds = tuple(s.indices(n)[:2] for s, n in zip(cut, shape, strict=True))
        by_part.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, devices in by_part.items():
        part = empty([stop - start for start, stop in bounds], dtype)
        read(tuple(slice(*b) for b in bounds), part)
        made = [jax.device_put(part, device) for device in devices]
        # Until it is there the transfer needs `part`.
        arrays += jax.block_until_ready(made)
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)
