"""Steps that read and write: R's scores, prompts, and the loop that writes after them.

What a stage keeps in memory meanwhile is told with them: the game's players and their
optimisers stay where they are while samples are drawn.

Axes: B rows, T tokens, K heads of keys, S slots, H head size, D model.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from aprm_jax.jobs import plan_shapes
from aprm_jax.jobs.context import Context, batch_buckets
from aprm_jax.jobs.plan_shapes import KEY, array
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.sampling.loop import Draws, LoopConfig
from aprm_jax.sampling.programs import Programs
from aprm_jax.training.forecast import Program, abstract, shard_bytes
from aprm_jax.training.mesh import backbone_shardings, batch_shards, to_sample
from aprm_jax.verifiers.scoring import batch_sizes, prm_scorer


def solver(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    """The samples of a solver that nothing else stands beside."""
    config = plan_shapes.architecture(context, "solver")
    return samples(context, mesh, config, bare(mesh, config))


def bare(mesh: jax.sharding.Mesh, config: DecoderConfig) -> Any:
    """A backbone, which lies on the mesh as it does inside a model."""
    return abstract(mesh, {"backbone": plan_shapes.backbone(config)})["backbone"]


def scores(
    context: Context, mesh: jax.sharding.Mesh, prm: Any = None, resident: int = 0
) -> Program:
    """R's scores of as many rows as are read at once.

    Args:
      context: of the stage.
      mesh: the devices.
      prm: R's parameters; by default what is made of the config.
      resident: bytes a chip that the stage keeps, `prm` among them; 0 for it alone.
    """
    c = context.config
    config = plan_shapes.architecture(context, "prm")
    if prm is None:
        prm = abstract(mesh, plan_shapes.scoring(config, c.prm.head))
    length = c.builder.buckets[-1]
    batch = plan_shapes.rows(mesh, batch_sizes(length)[-1], length, 1)
    return Program(
        "score",
        prm_scorer(Decoder(config), c.prm.head),
        (prm, batch),
        {"parameters": prm, "batch": batch},
        beside=max(0, resident - shard_bytes(prm)),
    )


def samples(
    context: Context,
    mesh: jax.sharding.Mesh,
    config: DecoderConfig,
    params: Any,
    resident: int = 0,
) -> list[Program]:
    """Reading prompts, and the loop that writes after them.

    Args:
      context: of the stage.
      mesh: of training; the sampler's own follows from it.
      config: the architecture.
      params: the backbone's, where training has them.
      resident: bytes a chip that the stage keeps, `params` among them; 0 for them
        alone.
    """
    c = context.config
    width, new = c.builder.buckets[-1], c.builder.max_new_tokens
    kept = max(resident, shard_bytes(params))
    wide, mesh = mesh, to_sample(mesh, c.mesh.sample_tensor)
    if mesh == wide:
        kept -= shard_bytes(params)
    else:
        params = _moved(mesh, params)
    size = plan_shapes.share(mesh, batch_buckets(c.builder.sample_rows, width)[-1])
    compiled = Programs(config, pad_id=0, mesh=mesh, shared=False)

    def ids(*shape: int) -> Any:
        return array(mesh, np.int32, *shape)

    prefill = (params, ids(size, width), ids(size), ids(size, width))
    rows = jax.eval_shape(compiled.prefill, *prefill)
    rows = jax.eval_shape(lambda rows: rows.grow(new - 1), rows)
    rows = jax.tree.map(lambda x: _cached(mesh, x), rows)
    loop = LoopConfig(stop_ids=(0,), pad_id=0, max_new_tokens=new)
    live = array(mesh, np.bool_, size)
    until = fewest = jax.ShapeDtypeStruct((), np.int32)
    lengths = (ids(size), ids(size), None)
    draws = _draws(mesh, size), until, fewest
    decode = (loop, params, rows, width, *lengths, live, *draws)
    holds = {"parameters": params}
    return [
        Program("prefill", compiled.prefill, prefill, holds, mesh=mesh, beside=kept),
        Program(
            "decode",
            compiled.sample,
            decode,
            holds | {"KV cache": rows},
            trips=new - 1,
            mesh=mesh,
            beside=kept,
        ),
    ]


def _moved(mesh: jax.sharding.Mesh, params: Any) -> Any:
    """A copy of the backbone on the sampler's mesh."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        params,
        backbone_shardings(mesh, params),
    )


def _draws(mesh: jax.sharding.Mesh, size: int) -> Draws:
    temperature = jax.ShapeDtypeStruct((), np.float32)
    shapes: tuple[Any, ...] = (KEY, array(mesh, np.uint32, size), temperature, None)
    return Draws(*shapes)


def _cached(mesh: jax.sharding.Mesh, x: Any) -> Any:
    """A cache [B, K, S, H] as `models.placement` has it, or states [B, D]."""
    axes: list[Any] = [None] * x.ndim
    if x.shape[0] % batch_shards(mesh) == 0:
        axes[0] = ("data", "fsdp")
    if x.ndim == 4 and x.shape[1] % mesh.shape["tensor"] == 0:
        axes[1] = "tensor"
    place = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
