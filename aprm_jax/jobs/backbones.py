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

from aprm_jax.config import Config, ConfigError
from aprm_jax.config.roles import name_of, width_of
from aprm_jax.hf import gguf, hub, pretrained
from aprm_jax.hf.config import decoder_config, read_config
from aprm_jax.hf.load import open_checkpoint
from aprm_jax.hf.pretrained import Source
from aprm_jax.hf.stamps import Stamp, files_stamp
from aprm_jax.models import heads
from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.models.io import ModelFileError
from aprm_jax.training import hosts
from aprm_jax.training.mesh import param_shardings

ROLES = ("solver", "generator", "prm")
BACKBONE = "backbone"  # a source of parameters, beside stages and folders
ENDPOINT = "endpoint"  # a source of solutions, without parameters; see `jobs.solvers`


def from_scratch(config: Config, role: str, vocab_size: int) -> DecoderConfig:
    """The architecture of a role without a model of Hugging Face.

    Raises:
      ConfigError: its kernel of attention cannot do it.
    """
    c, width = config.model, width_of(config, role)
    heads, kv_heads, d_ff = (n * width // c.d_model for n in c.in_proportion)
    decoder = DecoderConfig(
        vocab_size=vocab_size,
        d_model=width,
        num_layers=c.num_layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=c.head_dim,
        d_ff=d_ff,
        rope_theta=c.rope_theta,
        tie_embeddings=c.tie_embeddings,
        dtype=c.dtype,
        remat=c.remat,
    )
    return computed(config, decoder)


def open_source(config: Config, role: str) -> Source | None:
    """The role's model of Hugging Face; None where it is made from scratch.

    Raises:
      ConfigError: no such folder, and nothing of that name on the hub.
      UnsupportedModelError, ModelFileError: what is there cannot be used.
    """
    name = name_of(config, role)
    if not name:
        return None
    c = config.model
    stamp = files_stamp(Path(name.removeprefix(gguf.SCHEME)))
    source = _open(name, f"{role}.backbone", c.dtype, c.param_dtype, c.remat, stamp)
    return dataclasses.replace(source, decoder=computed(config, source.decoder))


def computed(config: Config, decoder: DecoderConfig) -> DecoderConfig:
    """A decoder with the kernel of attention that the config names.

    Raises:
      ConfigError: it cannot do this model.
    """
    try:
        return dataclasses.replace(decoder, attention=config.model.attention)
    except ValueError as error:
        raise ConfigError(f"model.{error}") from error


def check(config: Config) -> None:
    """Opens every role's model and looks whether its files are whole.

    Raises:
      ConfigError, UnsupportedModelError, ModelFileError: hours before a stage that
        needs it would.
    """
    for role in ROLES:
        source = open_source(config, role)
        if source is not None:
            open_checkpoint(source.folder).close()


@functools.lru_cache(maxsize=8)
def _open(
    name: str, field: str, dtype: str, param_dtype: str, remat: str, stamp: Stamp
) -> Source:
    return pretrained.open_source(
        name,
        dtype=dtype,
        param_dtype=param_dtype,
        remat=remat,
        find=lambda name, revision=None: find(name, field, revision),
    )


def architecture(config: Config, role: str) -> DecoderConfig:
    """The decoder that a role's `config.json` describes: neither weights nor tokens.

    Without the few rows that the vocabulary gets where the tokenizer lacks tokens.

    Raises:
      ConfigError, UnsupportedModelError: as of `open_source`.
    """
    c, field = config.model, f"{role}.backbone"
    folder = find(name_of(config, role), field, files=("config.json",))
    if not folder.is_dir():  # a GGUF file, which is small to open
        source = open_source(config, role)
        assert source is not None
        return source.decoder
    try:
        described = read_config(folder)
    except FileNotFoundError as error:
        raise ConfigError(f"{field}={error}") from error
    decoder = decoder_config(
        described, dtype=c.dtype, param_dtype=c.param_dtype, remat=c.remat
    )
    return computed(config, decoder)


def find(name: str, field: str, revision: str | None = None, **files: Any) -> Path:
    """`hub.find`, with the field in its error.

    Raises:
      ConfigError: names the field and why the model cannot be had.
    """
    try:
        return hub.find(name, revision, **files)
    except ModelFileError as error:
        raise ConfigError(f"{field}={error}") from error


def load(source: Source, mesh: jax.sharding.Mesh, key: Any, kind: str) -> Any:
    """A model's parameters on the mesh.

    Two roles of one model share its backbone's arrays: nothing ever donates them.

    Args:
      source: what to load.
      mesh: where to.
      key: of the PRNG, for what the files do not hold.
      kind: "solver", "generator" or "prm"; the last of an existing PRM alone.

    Raises:
      UnsupportedModelError: what is to write text has no LM head.
    """
    if kind != "prm":
        pretrained.check_writes(source, source.origin.base_model)
    params = {"backbone": pretrained.load_weights(source, mesh)}
    if kind == "generator":
        head = heads.init_value_head(
            jax.random.wrap_key_data(key), source.decoder.d_model
        )
        # Before the game nothing is known of the rewards.
        params["value_head"] = jax.tree.map(jnp.zeros_like, head)
    if kind == "prm":
        params["head"] = pretrained.load_head(source)
    return hosts.place(params, param_shardings(mesh, params))
