"""SFT, PRM and joint game steps on meshes of eight devices, against one device."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import tiny
import tiny_game
from jax.sharding import NamedSharding, PartitionSpec

from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.rows import pack
from aprm_jax.game import batches, rollouts
from aprm_jax.game.update import GameState, References, game_optimiser
from aprm_jax.game.update import make_update as make_game_update
from aprm_jax.jobs.sft import language_loss
from aprm_jax.models import heads, quantised
from aprm_jax.models.decoder import Decoder
from aprm_jax.training import learner
from aprm_jax.training.mesh import (
    make_mesh,
    param_shardings,
    shard_batch,
)

assert jax.device_count() == 8
jax.config.update("jax_disable_most_optimizations", True)  # halves the compile time
STEPS, ROWS = 5, batches.BatchSize(multiple=8)
# Heads, feed-forward and vocabulary divide by eight, KV heads by four only.
CONFIG = tiny.decoder(
    len(tiny_game.DOMAIN.tokenizer),
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
)
DECODER, DOMAIN, BUILDER = Decoder(CONFIG), tiny_game.DOMAIN, tiny_game.builder()
KEYS = [jax.random.key_data(jax.random.key(i)) for i in range(STEPS)]
GAME = tiny_game.update_config(advantage="gae")
OPTIMISERS = tuple(
    game_optimiser(rate, warmup=1, total=20, b1=0.0, b2=0.99, clip_norm=1.0)
    for rate in (1e-3, 2e-3)
)


def players(seed):
    head = heads.init_value_head(jax.random.key(seed + 10), CONFIG.d_model)
    generator = {"backbone": tiny.backbone(CONFIG, seed), "value_head": head}
    backbone = tiny.backbone(CONFIG, seed + 1)
    prm = heads.init_prm(jax.random.key(0), backbone, CONFIG.d_model, "token")
    return jax.device_get((generator, prm))


GENERATOR, PRM = players(0)
REFERENCES = References(*players(2))


def solutions(step):
    problems = [DOMAIN.corpus(i) for i in range(12 * step, 12 * step + 12)]
    rows = pack([BUILDER.solution(p.question, p.steps) for p in problems], 128)
    return BUILDER.collate(
        rows, length=128, max_steps=60, batch_size=-(-len(rows) // 8) * 8
    )


def perturbations(step):
    points = rollouts.situations(DOMAIN, range(8 * step, 8 * step + 8), 2)
    rng = np.random.default_rng(step)
    draws = []
    for group in range(len(points)):
        for number in range(2):
            text = f"{number} + {group}"
            size = len(BUILDER.encode(text)) + 1
            logprobs = -rng.random(size).astype(np.float32)
            reply = tiny_game.reply(BUILDER, text, logprobs=logprobs)
            draws += [(group, reply)] * (1 + number)
    found = tiny_game.verified(draws, points, BUILDER)
    p_correct = rng.random(len(found)).astype(np.float32)
    generator = batches.generator_batch(
        found,
        p_correct,
        tiny_game.TABLE,
        BUILDER,
        rng,
        16,
        width=10,
        size=ROWS,
    )
    assert 8 < (generator.weight > 0).sum() <= 16
    rows = rollouts.prm_rows(found, BUILDER)
    clean = [BUILDER.step(p.question, p.prefix, p.step, 1.0) for p in points]
    fresh = batches.fresh_rows(found, rows, rng, 8)
    return generator, batches.prm_batch(clean, fresh, (), BUILDER, ROWS)


BATCHES = [(solutions(i), *perturbations(i)) for i in range(STEPS)]
SFT_TX = optax.adamw(1e-3, b2=0.98)


def place(mesh, tree):
    return jax.device_put(tree, param_shardings(mesh, tree))


def sft(mesh):
    loss = functools.partial(language_loss, decoder=DECODER)
    update = learner.make_update(loss, SFT_TX, mesh)
    params = {"backbone": GENERATOR["backbone"]}
    state = place(mesh, learner.start(params, SFT_TX))
    for rows, _, _ in BATCHES:
        state, metrics = update(state, shard_batch(mesh, rows))
        assert metrics["nonfinite"] == 0
    return state


def game(mesh, train_generator=True, int8=False):
    config = dataclasses.replace(GAME, train_generator=train_generator)
    update = make_game_update(DECODER, config, *OPTIMISERS, mesh)
    state = GameState(*map(learner.start, (GENERATOR, PRM), OPTIMISERS))
    state = place(mesh, state)
    refs = place(mesh, REFERENCES)
    if int8:
        refs = References(*quantised.held(refs.generator, refs.prm))
        places = param_shardings(mesh, refs)
        for x, sharding in zip(*map(jax.tree.leaves, (refs, places)), strict=True):
            assert x.sharding.is_equivalent_to(sharding, x.ndim)
    before = jax.tree.map(lambda x: x.sharding.spec, state)
    for (_, generator, prm), key in zip(BATCHES, KEYS, strict=True):
        batches = shard_batch(mesh, generator), shard_batch(mesh, prm)
        state, metrics = update(state, refs, *batches, key)
        assert metrics["nonfinite"] == 0
    # The update leaves every array where the table puts it: no step compiles again.
    for leaf, spec in zip(
        jax.tree.leaves(state),
        jax.tree.leaves(before, is_leaf=lambda x: isinstance(x, PartitionSpec)),
        strict=True,
    ):
        same = leaf.sharding.is_equivalent_to(NamedSharding(mesh, spec), leaf.ndim)
        assert same, (leaf.sharding, spec)
    return state


JOBS = {
    "sft": (sft, lambda s: s.params),
    "prm": (functools.partial(game, train_generator=False), lambda s: s.prm.params),
    "game": (game, lambda s: (s.generator.params, s.prm.params)),
    "int8": (
        functools.partial(game, int8=True),
        lambda s: (s.generator.params, s.prm.params),
    ),
}
one = make_mesh(MeshConfig(), jax.devices()[:1])
expected = {
    name: jax.device_get(params(run(one))) for name, (run, params) in JOBS.items()
}
# Five steps are far more than the tolerance.
for start, end in (
    (GENERATOR["backbone"], expected["sft"]["backbone"]),
    (GENERATOR, expected["game"][0]),
    (PRM, expected["game"][1]),
    (PRM, expected["prm"]),
):
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, end)
    assert (
        min(
            jax.tree.leaves(moved["layers"] if "layers" in moved else moved["backbone"])
        )
        > 5e-4
    ), moved
jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
    expected["prm"],
    expected["game"][1],
)
meshes = [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 1, 4), (1, 1, 8)]
for sizes in (*meshes, (2, 2, 2)):
    mesh = make_mesh(MeshConfig(*sizes))
    for name, (run, params) in JOBS.items():
        # The joint update holds all of R's own, and takes long to compile.
        if name == "prm" or (name == "game" and sizes == (4, 1, 2)):
            continue
        if (name == "int8") != (sizes == (2, 2, 2)):
            continue
        found = jax.device_get(params(run(mesh)))
        close = functools.partial(
            np.testing.assert_allclose, rtol=0, atol=1e-4, err_msg=f"{name} on {sizes}"
        )
        jax.tree.map(close, found, expected[name])
        print(name, sizes)
