"""The compiled steps of a stage on shapes alone: what the jobs run, without an array.

Every function here is the job's own; only its arguments are made up: batches as large
as the config allows, parameters as the architecture has them.

Axes: B rows, T tokens, S steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from aprm_jax.data.rows import StepBatch
from aprm_jax.game.rounds import GameConfig
from aprm_jax.game.update import (
    GameState,
    GeneratorBatch,
    References,
)
from aprm_jax.game.update import make_update as make_game_update
from aprm_jax.jobs import backbones, prm, sft
from aprm_jax.jobs.context import Context
from aprm_jax.models import heads, lora
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.sampling.loop import Draws, LoopConfig
from aprm_jax.sampling.programs import Programs
from aprm_jax.training import learner
from aprm_jax.training.forecast import Program, abstract
from aprm_jax.training.mesh import batch_sharding, batch_shards, to_sample
from aprm_jax.verifiers.scoring import prm_scorer
from aprm_jax.verifiers.step_loss import PrmBatch

KEY = jax.ShapeDtypeStruct((2,), np.uint32)
# Rows of a sampled or scored batch: the largest that the sampler and the scorer take.
SAMPLED, SCORED = {True: 64, False: 256}, 128
LONG = 256  # tokens, from which fewer rows are sampled at once


def programs(context: Context, job: str, mesh: jax.sharding.Mesh) -> list[Program]:
    """The steps of a stage; none for a job that computes on no device."""
    planners: dict[str, Callable[[Context, jax.sharding.Mesh], list[Program]]] = {
        "sft": _sft,
        "prm": _prm,
        "aprm": _game,
        "evaluate": functools.partial(_reading, "solver"),
        "search": functools.partial(_reading, "solver"),
    }
    return planners[job](context, mesh) if job in planners else []


def architecture(context: Context, role: str) -> DecoderConfig:
    """Of a role, read from `config.json` alone where it has a backbone."""
    if backbones.name_of(context.config, role):
        return backbones.architecture(context.config, role)
    return context.of(role).decoder_config


def _backbone(config: DecoderConfig) -> Any:
    ids = jnp.zeros((1, 8), jnp.int32)
    made = jax.eval_shape(
        lambda: Decoder(config).init(jax.random.key(0), ids, ids, ids + 1)
    )
    return cast(Any, made)["params"]


def _generator(config: DecoderConfig) -> Any:
    head = jax.eval_shape(
        lambda: heads.init_value_head(jax.random.key(0), config.d_model)
    )
    return {"backbone": _backbone(config), "value_head": head}


def _scoring(config: DecoderConfig, head: str) -> Any:
    def init(backbone):
        return heads.init_prm(jax.random.key(0), backbone, config.d_model, head)

    return jax.eval_shape(init, _backbone(config))


def _started(mesh: jax.sharding.Mesh, params: Any, tx: Any) -> learner.LearnerState:
    """A learner's state, its moments beside its parameters."""
    return abstract(
        mesh, jax.eval_shape(functools.partial(learner.start, tx=tx), params)
    )


def _rows(mesh: jax.sharding.Mesh, size: int, length: int, steps: int) -> StepBatch:
    ids = [_array(mesh, np.int32, size, length) for _ in range(4)]
    return StepBatch(*ids, *[_array(mesh, np.float32, size, steps) for _ in range(3)])


def _array(mesh: jax.sharding.Mesh, dtype: Any, *shape: int) -> Any:
    """An array of rows, which lie over the mesh where it divides them."""
    place = batch_sharding(mesh)
    if shape[0] % batch_shards(mesh):
        place = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _share(mesh: jax.sharding.Mesh, size: int, microbatches: int = 1) -> int:
    """Rows of a batch, up to a multiple of what deals them out."""
    multiple = batch_shards(mesh) * microbatches
    return -(-size // multiple) * multiple


def _sft(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    c = context.config
    role = "generator" if c.sft.task == "perturb" else "solver"
    config = architecture(context, role)
    whole = role == "generator"
    params = _generator(config) if whole else {"backbone": _backbone(config)}
    tx = sft.optimiser(c.sft)
    update = sft.compiled_update(c.sft, Decoder(config), tx, mesh)
    state = _started(mesh, params, tx)
    size = _share(mesh, c.sft.batch_size, c.sft.microbatches)
    batch = _rows(mesh, size, c.builder.buckets[-1], c.builder.max_steps)
    holds = {"parameters": state.params, "optimiser": state.opt, "batch": batch}
    return [Program("update", update, (state, batch), holds)]


def _prm(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    c = context.config
    config = architecture(context, "prm")
    tx = prm.optimiser(c.prm)
    adapters = lora.LoraConfig.of(c.lora)
    update = prm.compiled_update(c.prm, Decoder(config), tx, mesh, adapters)
    full = abstract(mesh, _scoring(config, c.prm.head))
    state = _started(mesh, _player(full, adapters), tx)
    ref = full if adapters or c.prm.beta > 0 else None
    size = _share(mesh, c.prm.batch_size, c.prm.microbatches)
    labels = c.prm.negatives == "labels"
    rows = _rows(
        mesh, size, c.builder.buckets[-1], c.builder.max_steps if labels else 1
    )
    batch = PrmBatch(rows, None if labels else _array(mesh, np.int32, size, 1))
    holds = {
        "parameters": state.params,
        "optimiser": state.opt,
        "references": ref,
        "batch": batch,
    }
    return [Program("update", update, (state, ref, batch, KEY), holds)]


def _game(context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    c = context.config
    own, theirs = (architecture(context, role) for role in ("generator", "prm"))
    config = GameConfig.of(c.game, lora=lora.LoraConfig.of(c.lora))
    refs = abstract(mesh, References(_generator(own), _scoring(theirs, c.prm.head)))
    transforms = config.optimisers()
    state = GameState(
        *(
            _started(mesh, _player(full, config.lora), tx)
            for full, tx in zip((refs.generator, refs.prm), transforms, strict=True)
        )
    )
    update = make_game_update(
        Decoder(own),
        config.update(c.prm.head, not c.game.freeze_generator, True),
        *transforms,
        mesh,
        prm_decoder=Decoder(theirs),
    )
    # What is imitated is set apart by weights, which cost nothing.
    replies = c.game.generator_rows + c.game.generator_replay
    size = _share(mesh, replies, c.game.microbatches)
    told = c.game.prm_clean + c.game.prm_fresh + c.game.prm_replay
    prm_size = _share(mesh, told, c.game.microbatches)
    length = c.builder.buckets[-1]
    batches = (
        _replies(mesh, size, length, c.builder.max_new_tokens, own.reads_branches),
        PrmBatch(_rows(mesh, prm_size, length, 1), _array(mesh, np.int32, prm_size, 1)),
    )
    players = (state.generator, state.prm)
    holds = {
        "parameters": [player.params for player in players],
        "optimiser": [player.opt for player in players],
        "references": refs,
        "batch": batches,
    }
    args = (state, refs, *batches, KEY)
    joint = Program("update", update, args, holds, _shared(context, refs))
    return [joint, *_reading("generator", context, mesh)]


def _player(full: Any, config: lora.LoraConfig | None) -> Any:
    return jax.eval_shape(
        lambda full: lora.player(jax.random.key(0), full, config), full
    )


def _shared(context: Context, refs: References) -> Any:
    """A base that both references are: one array in memory, if one model is both."""
    c = context.config
    one = c.game.generator_from == c.game.prm_from == backbones.BACKBONE
    if one and c.generator.backbone == c.prm.backbone:
        return refs.prm["backbone"]
    return ()


def _replies(
    mesh: jax.sharding.Mesh, size: int, length: int, width: int, branch: bool
) -> GeneratorBatch:
    """A reply a row: as many rows as there can be, where no two share a prompt."""
    rows = _rows(mesh, size, length, 1)
    if branch:
        rows = dataclasses.replace(rows, ends=rows.tokens)
    wide = [_array(mesh, np.float32, size, 1, width) for _ in range(2)]
    return GeneratorBatch(
        rows=rows,
        columns=_array(mesh, np.int32, size, 1, width),
        rewards=wide[0],
        weight=_array(mesh, np.float32, size, 1),
        group=_array(mesh, np.int32, size, 1),
        sampler_logprobs=wide[1],
        old_logprobs=None,
    )


def _reading(role: str, context: Context, mesh: jax.sharding.Mesh) -> list[Program]:
    """R's scores, and the samples of G or a solver."""
    return [_scores(context, mesh), *_samples(context, role, mesh)]


def _scores(context: Context, mesh: jax.sharding.Mesh) -> Program:
    c = context.config
    config = architecture(context, "prm")
    params = abstract(mesh, _scoring(config, c.prm.head))
    batch = _rows(mesh, _share(mesh, SCORED), c.builder.buckets[-1], 1)
    score = prm_scorer(Decoder(config), c.prm.head)
    holds = {"parameters": params, "batch": batch}
    return Program("score", score, (params, batch), holds)


def _samples(context: Context, role: str, mesh: jax.sharding.Mesh) -> list[Program]:
    """Reading prompts, and the loop that writes after them."""
    c, config = context.config, architecture(context, role)
    width, new = c.builder.buckets[-1], c.builder.max_new_tokens
    mesh = to_sample(mesh, c.mesh.sample_tensor)
    size = _share(mesh, SAMPLED[width > LONG])
    compiled = Programs(config, pad_id=0, mesh=mesh, shared=False)
    params = abstract(mesh, _backbone(config))

    def ids(*shape: int) -> Any:
        return _array(mesh, np.int32, *shape)

    prompts = (ids(size, width), ids(size), ids(size, width))
    prefill = (params, *prompts)
    rows = jax.eval_shape(compiled.prefill, *prefill)
    rows = jax.eval_shape(lambda rows: rows.grow(new - 1), rows)
    rows = jax.tree.map(lambda x: _cached(mesh, x), rows)
    temperature = jax.ShapeDtypeStruct((), np.float32)
    shapes: tuple[Any, ...] = (KEY, _array(mesh, np.uint32, size), temperature, None)
    draws = Draws(*shapes)
    loop = LoopConfig(stop_ids=(0,), pad_id=0, max_new_tokens=new)
    live = _array(mesh, np.bool_, size)
    until = jax.ShapeDtypeStruct((), np.int32)
    decode = (loop, params, rows, width, ids(size), ids(size), None, live, draws, until)
    return [
        Program(
            "prefill", compiled.prefill, prefill, {"parameters": params}, mesh=mesh
        ),
        Program(
            "decode",
            compiled.sample,
            decode,
            {"parameters": params, "KV cache": rows},
            trips=new - 1,
            mesh=mesh,
        ),
    ]


def _cached(mesh: jax.sharding.Mesh, x: Any) -> Any:
    """A cache [B, K, S, H] as `models.placement` has it, or states [B, D]."""
    axes: list[Any] = [None] * x.ndim
    if x.shape[0] % batch_shards(mesh) == 0:
        axes[0] = ("data", "fsdp")
    if x.ndim == 4 and x.shape[1] % mesh.shape["tensor"] == 0:
        axes[1] = "tensor"
    place = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
