"""Which collectives SFT and PRM steps need: of weights, not of rows.

The first argument is the mesh (data, fsdp, tensor), the second what places activations:
"placed" is the package, "left" the compiler alone; then the steps. Prints what the
layers' loops send of arrays with the batch's columns, in bytes on the wire.
"""

from __future__ import annotations

import functools
import json
import sys

import jax
import numpy as np
import optax
import tiny

from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.rows import StepBatch
from aprm_jax.jobs.sft import language_loss
from aprm_jax.models import decoder, heads, layers, token_logprobs
from aprm_jax.models.decoder import Decoder
from aprm_jax.training import learner
from aprm_jax.training.collectives import collectives
from aprm_jax.training.mesh import (
    batch_sharding,
    make_mesh,
    param_shardings,
)
from aprm_jax.verifiers.objective import PrmObjective
from aprm_jax.verifiers.step_loss import PrmBatch, make_prm_update

COLUMNS = 37  # of every row: no size of the model is a multiple of it
sizes, placed = json.loads(sys.argv[1]), sys.argv[2] == "placed"
if not placed:
    for module in (decoder, layers):
        module.by_rows = lambda x, split=None: x
token_logprobs.CHUNK_BYTES = 0  # several chunks, of few columns
mesh = make_mesh(MeshConfig(*sizes))
config = tiny.decoder(
    2048, num_layers=6, num_heads=8, num_kv_heads=8, remat="full", d_model=64
)
module = Decoder(config)


def abstract(tree):
    places = param_shardings(mesh, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, places
    )


def rows(count=16, steps=3):
    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    ids = [array(np.int32, count, COLUMNS) for _ in range(4)]
    return StepBatch(*ids, *[array(np.float32, count, steps) for _ in range(3)])


ids = np.zeros((1, 8), np.int32)
backbone = jax.eval_shape(
    lambda: module.init(jax.random.key(0), ids, ids, ids + 1)["params"]
)
tx = optax.adamw(1e-3)


def sft():
    params = {"backbone": backbone}
    update = learner.make_update(
        functools.partial(language_loss, decoder=module), tx, mesh
    )
    state = abstract(jax.eval_shape(lambda p: learner.start(p, tx), params))
    return update.lower(state, rows())


def prm():
    params = jax.eval_shape(
        lambda b: heads.init_prm(jax.random.key(0), b, 64, "two_class"), backbone
    )
    update = make_prm_update(module, "two_class", PrmObjective(), tx, mesh)
    state = abstract(jax.eval_shape(lambda p: learner.start(p, tx), params))
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    return update.lower(state, None, PrmBatch(rows()), key)


for name in sys.argv[3:]:
    step = {"sft": sft, "prm": prm}[name]
    found = collectives(step().compile().as_text(), mesh)
    assert any(one.times >= config.num_layers for one in found), found
    of_rows = [c for c in found if any(n and not (n % 37 and n % 36) for n in c.shape)]
    # Once, rows go to the width's shares of the embedding and back: less than it is.
    heads_own = [c for c in found if 2048 in c.shape and c.times < config.num_layers]
    mine = [c for c in of_rows if c.times >= config.num_layers]
    print(
        json.dumps(
            {
                "step": step.__name__,
                "rows": sum(c.wire_bytes for c in mine),
                "shapes": sorted({c.shape for c in mine}),
                "axes": sorted({a for c in mine for a in c.axes}),
                "head": max((c.times for c in heads_own), default=0),
                "weights": sum(c.wire_bytes for c in found if c not in of_rows),
            }
        )
    )
