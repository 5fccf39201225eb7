"""Hugging Face models as the players of a run: found, described, and loaded.

`solver.backbone`, `generator.backbone` and `prm.backbone` name a local folder or a
model of the hub. What a job starts from such a model calls it `backbone`, as in
`game.prm_from="backbone"`.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from transformers import PreTrainedTokenizerFast

from aprm_jax.config import ConfigError
from aprm_jax.data.prompts import prepare_tokenizer
from aprm_jax.hf import prm_layouts
from aprm_jax.hf.config import read_config
from aprm_jax.hf.export import Origin
from aprm_jax.hf.load import (
    check_tokenizer,
    load_backbone,
    load_tokenizer,
    read_architecture,
    tokenizer_rows,
)
from aprm_jax.hf.peft import (
    ADAPTER_FILE,
    adapter_base,
    load_adapter,
)
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.models import heads
from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.training.mesh import param_shardings

ROLES = ("solver", "generator", "prm")
BACKBONE = "backbone"  # a source of parameters, beside stages and folders

# No .bin, no code: neither is ever read.
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


@dataclasses.dataclass(frozen=True)
class Source:
    """A model of Hugging Face before its weights are read.

    Attributes:
      folder: its files.
      adapter: the folder of a PEFT adapter that is merged into them; None for none.
      decoder: the architecture, with the rows of the vocabulary that we add.
      family: of the key tables.
      tokenizer: with the step builder's tokens.
      layout: of an existing PRM's head and prompt, see `hf.prm_layouts`; None for a
        language model.
      origin: what exports remember of it.
    """

    folder: Path
    adapter: Path | None
    decoder: DecoderConfig
    family: str
    tokenizer: PreTrainedTokenizerFast
    layout: str | None
    origin: Origin


def name_of(config: ml_collections.ConfigDict, role: str) -> str:
    """What the config names for a role; "" for a model from scratch."""
    return config[role].backbone


def open_source(config: ml_collections.ConfigDict, role: str) -> Source | None:
    """The role's model of Hugging Face; None where it is made from scratch.

    Raises:
      ConfigError: no such folder, and nothing of that name on the hub.
      UnsupportedModelError, ModelFileError: what is there cannot be used.
    """
    name = name_of(config, role)
    if not name:
        return None
    c = config.model
    return _open(name, f"{role}.backbone", c.dtype, c.param_dtype, c.remat)


def check(config: ml_collections.ConfigDict) -> None:
    """Opens every role's model and looks whether its files are whole.

    Raises:
      ConfigError, UnsupportedModelError, ModelFileError: hours before a stage that
        needs it would.
    """
    for role in ROLES:
        source = open_source(config, role)
        if source is not None:
            Checkpoint.open(source.folder).close()


@functools.lru_cache(maxsize=8)
def _open(name: str, field: str, dtype: str, param_dtype: str, remat: bool) -> Source:
    folder, adapter, merged = find(name, field), None, None
    if (folder / ADAPTER_FILE).is_file():
        adapter, folder = folder, find(adapter_base(folder), field)
        merged = load_adapter(adapter)
    decoder, family = read_architecture(
        folder, adapter=merged, dtype=dtype, param_dtype=param_dtype, remat=remat
    )
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, decoder.vocab_size, folder)
    layout = prm_layouts.detect(folder)
    if layout is None:
        tokenizer = prepare_tokenizer(tokenizer, decoder.vocab_size)
    described = read_config(folder)
    described = described.get("text_config", described)
    origin = Origin(name, decoder.vocab_size, described.get("max_position_embeddings"))
    rows = max(decoder.vocab_size, tokenizer_rows(tokenizer))
    decoder = dataclasses.replace(decoder, vocab_size=rows)
    return Source(folder, adapter, decoder, family, tokenizer, layout, origin)


def find(name: str, field: str) -> Path:
    """The folder of a model: `name` itself, or its files from the hub.

    Raises:
      ConfigError: names the field and why neither can be had.
    """
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError(
            f"{field}={name!r}: no such folder, and no name of a model on the hub "
            "(OWNER/NAME)"
        )
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES))
        )
    except Exception as error:  # of the hub, of its client, of the network
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"{field}={name!r}: no such folder, and the hub does not give it: "
            f"{type(error).__name__}: {reason}"
        ) from error


def alike(config: ml_collections.ConfigDict, one: str, other: str) -> bool:
    """Whether two roles have the same tokenizer, architecture and step builder."""
    if one == other:
        return True
    names = {name_of(config, role) for role in (one, other)}
    # A Generator of Hugging Face is told in words what to do: its prompts are its own.
    return len(names) == 1 and ("generator" not in (one, other) or names == {""})


def load(source: Source, mesh: jax.sharding.Mesh, key: Any, kind: str) -> Any:
    """A model's parameters on the mesh.

    Two roles of one model share its backbone's arrays: nothing ever donates them.

    Args:
      source: what to load.
      mesh: where to.
      key: of the PRNG, for what the files do not hold.
      kind: "solver", "generator" or "prm"; the last of an existing PRM alone.
    """
    layout = prm_layouts.LAYOUTS[source.layout] if source.layout else None
    params = {"backbone": _weights(source, mesh)}
    if kind == "generator":
        head = heads.init_value_head(
            jax.random.wrap_key_data(key), source.decoder.d_model
        )
        # Before the game nothing is known of the rewards.
        params["value_head"] = jax.tree.map(jnp.zeros_like, head)
    if kind == "prm":
        assert layout is not None
        params["head"] = _load_head(source, layout)
    return jax.device_put(params, param_shardings(mesh, params))


def _weights(source: Source, mesh: jax.sharding.Mesh) -> Any:
    where = (source.folder, source.adapter, source.decoder, source.layout, mesh)
    return _weights_of(*where)


@functools.lru_cache(maxsize=1)
def _weights_of(
    folder: Path,
    adapter: Path | None,
    decoder: DecoderConfig,
    layout: str | None,
    mesh: jax.sharding.Mesh,
) -> Any:
    return load_backbone(
        folder,
        mesh,
        dtype=decoder.dtype,
        param_dtype=decoder.param_dtype,
        remat=decoder.remat,
        vocab_size=decoder.vocab_size,
        ignore=prm_layouts.LAYOUTS[layout].ignored if layout else (),
        adapter=adapter,
    ).params


def _load_head(source: Source, layout: prm_layouts.Layout) -> dict[str, Any]:
    """An existing PRM's head, its tensors checked against the layout's shapes."""
    with Checkpoint.open(source.folder) as checkpoint:
        found = checkpoint.shapes
        rows = source.origin.vocab_rows or source.decoder.vocab_size
        wanted = layout.shapes(source.decoder.d_model, rows, found)
        for key, shape in wanted.items():
            if key not in found or tuple(found[key]) != shape:
                there = list(found[key]) if key in found else "missing"
                raise prm_layouts.LayoutError(
                    f"{source.folder}: {key} of the {layout.name} head is {there}, "
                    f"not {list(shape)}"
                )
        tensors = {key: checkpoint.read(key) for key in wanted}
    return prm_layouts.head_params(layout.name, tensors, source.tokenizer)
