"""Shapes of what steps take: models, optimisers' states and batches, never an array.

Axes: B rows, T tokens, S steps.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from aprm_jax.config.roles import name_of
from aprm_jax.data.rows import StepBatch
from aprm_jax.jobs import backbones
from aprm_jax.jobs.context import Context
from aprm_jax.models import heads, lora, quantised
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.training import learner
from aprm_jax.training.forecast import abstract
from aprm_jax.training.mesh import batch_sharding, batch_shards

KEY = jax.ShapeDtypeStruct((2,), np.uint32)


def architecture(context: Context, role: str) -> DecoderConfig:
    """Of a role, read from `config.json` alone where it has a backbone."""
    if name_of(context.config, role):
        return backbones.architecture(context.config, role)
    return context.of(role).decoder_config


def backbone(config: DecoderConfig) -> Any:
    """A bare decoder's parameters."""
    ids = jnp.zeros((1, 8), jnp.int32)
    made = jax.eval_shape(
        lambda: Decoder(config).init(jax.random.key(0), ids, ids, ids + 1)
    )
    return cast(Any, made)["params"]


def generator(config: DecoderConfig) -> Any:
    """Those of a Generator, or of a policy with a critic."""
    head = jax.eval_shape(
        lambda: heads.init_value_head(jax.random.key(0), config.d_model)
    )
    return {"backbone": backbone(config), "value_head": head}


def scoring(config: DecoderConfig, head: str) -> Any:
    """Those of a PRM."""

    def init(params):
        return heads.init_prm(jax.random.key(0), params, config.d_model, head)

    return jax.eval_shape(init, backbone(config))


def started(mesh: jax.sharding.Mesh, params: Any, tx: Any) -> learner.LearnerState:
    """A learner's state, its moments beside its parameters."""
    return abstract(
        mesh, jax.eval_shape(functools.partial(learner.start, tx=tx), params)
    )


def player(full: Any, config: lora.LoraConfig | None) -> Any:
    """What of a model is trained."""
    return jax.eval_shape(
        lambda full: lora.player(jax.random.key(0), full, config), full
    )


def kept(mesh: jax.sharding.Mesh, begun: Any, references: str) -> Any:
    """What is held of a model as it began."""
    if references == "full":
        return begun
    return abstract(mesh, jax.eval_shape(quantised.int8, begun))


def model(
    mesh: jax.sharding.Mesh, full: Any, trained: Any, config: lora.LoraConfig | None
) -> Any:
    """The model that a player is, adapters beside the kernels."""
    made = functools.partial(lora.materialise, config=config)
    return abstract(mesh, jax.eval_shape(made, full, trained))


def rows(mesh: jax.sharding.Mesh, size: int, length: int, steps: int) -> StepBatch:
    """A batch [B, T] of up to S steps a row."""
    ids = [array(mesh, np.int32, size, length) for _ in range(4)]
    return StepBatch(*ids, *[array(mesh, np.float32, size, steps) for _ in range(3)])


def array(mesh: jax.sharding.Mesh, dtype: Any, *shape: int) -> Any:
    """An array of rows, which lie over the mesh where it divides them."""
    place = batch_sharding(mesh)
    if shape[0] % batch_shards(mesh):
        place = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def share(mesh: jax.sharding.Mesh, size: int, microbatches: int = 1) -> int:
    """Rows of a batch, up to a multiple of what deals them out."""
    multiple = batch_shards(mesh) * microbatches
    return -(-size // multiple) * multiple
