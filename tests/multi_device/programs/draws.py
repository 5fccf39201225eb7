"""Prints what a seed gives on as many devices as the first argument says."""

import dataclasses
import hashlib
import json
import sys

import jax
import numpy as np
import tiny_game
from tiny_game import CONFIG, DOMAIN

from aprm_jax.config.groups import MeshConfig
from aprm_jax.models.decoder import Decoder
from aprm_jax.sampling.methods import row_uniforms
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.training.mesh import batch_sharding, init_sharded, make_mesh
from aprm_jax.training.timing import PhaseTimer

n = int(sys.argv[1])
assert jax.device_count() == n
mesh = make_mesh(MeshConfig(data=n))


def digest(*arrays):
    joined = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    return hashlib.sha256(joined).hexdigest()


row = np.zeros((1, 8), np.int32)
params = init_sharded(
    mesh,
    lambda key: Decoder(CONFIG).init(jax.random.wrap_key_data(key), row, row, row + 1),
    jax.random.key_data(jax.random.key(0)),
)["params"]

builder = tiny_game.builder()
sampler = tiny_game.sampler(builder, mesh=mesh)
starts = [(p.question, ()) for p in DOMAIN.problems("test", 6)]
solver = LocalSolver(sampler, params, DOMAIN, builder)
found = solver.solve(starts, 3, jax.random.key(5), max_steps=3)

# Fewer rows than devices divide: those of padding are not learned from.
place = dataclasses.replace(tiny_game.arena(), mesh=mesh, sampler=sampler)
config = tiny_game.game_config(generator_rows=7, prm_clean=3, prm_fresh=3, prm_replay=3)
game = tiny_game.rounds(place, config)
output = game.step_fn(game.state, 0, PhaseTimer())
generator, prm = output.batch["generator"], output.batch["prm"]
learned = np.asarray(generator.weight) > 0
told = np.asarray(prm.rows.step_mask) > 0
assert learned.sum() <= 7 and told.sum() <= 9


def steps_of(rows, chosen):
    """The ids of some steps, in order, whatever rows hold them."""
    rows = jax.device_get(rows)
    return [rows.tokens[b][rows.step_ids[b] == s] for b, s in np.argwhere(chosen)]


uniforms = jax.jit(
    lambda key, rows: row_uniforms(key, rows, 5), out_shardings=batch_sharding(mesh)
)(jax.random.key(3), np.arange(8, dtype=np.uint32))
print(
    json.dumps(
        {
            "problems": [dataclasses.astuple(DOMAIN.corpus(i)) for i in range(20)],
            "parameters": digest(*jax.tree.leaves(jax.device_get(params))),
            "uniforms": digest(jax.device_get(uniforms)),
            "solutions": [s.steps for row in found for s in row],
            "generator": digest(
                *steps_of(generator.rows, learned), generator.weight[learned]
            ),
            "prm": digest(
                *steps_of(prm.rows, told), prm.rows.labels[told], prm.source[told]
            ),
        }
    )
)
