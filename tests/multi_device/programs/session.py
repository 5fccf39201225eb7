"""Prints what a session over a mesh samples and reads: data, fsdp, tensor."""

from __future__ import annotations

import json
import sys

import jax
import numpy as np
from tiny_decoder import SMALL, make_params

from aprm_jax.config.groups import MeshConfig
from aprm_jax.models.decoder import Decoder
from aprm_jax.sampling.programs import Programs
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.sampling.session import Session
from aprm_jax.sampling.stops import Stops
from aprm_jax.training.mesh import make_mesh, param_shardings

data, fsdp, tensor = map(int, sys.argv[1:])
mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
params = make_params(SMALL)
params = jax.device_put(params, param_shardings(mesh, params))


def scorer(backbone, head, before, states, tokens):
    decoder = Decoder(SMALL)
    logits = decoder.apply({"params": backbone}, before, method=Decoder.logits)
    return jax.numpy.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]


programs = Programs(SMALL, pad_id=0, mesh=mesh, scorer=scorer)
rng = np.random.default_rng(0)
prompts = [rng.integers(7, 37, k).tolist() for k in (3, 8, 1, 5, 6, 2, 7)]
session, stops, found = Session(programs, params, prompts), Stops((5, 6)), []
for turn, rows in enumerate([[6, 6, 0, 3, 1], [4, 0, 2], [2, 1, 1, 0, 0, 2, 2, 0, 1]]):
    samples = session.sample(
        jax.random.key(turn), stops=stops, max_new_tokens=5, draws=range(len(session))
    )
    session.gather(rows)
    scores = session.read([[7 + k, 9, 11][: k % 4] for k in range(len(rows))])
    assert scores is not None
    found.append([samples.logprobs.tolist(), [x.tolist() for x in scores]])

# Prompts that are drawn from so often that what replies begin with is shared.
sampler = Sampler(
    SMALL,
    stop_ids=(5, 6),
    pad_id=0,
    prompt_buckets=(6,),
    max_new_tokens=5,
    batch_buckets=(4, 16),
    mesh=mesh,
)
often = [*[[7, 8, 9]] * 150, [11], *[[12, 13]] * 131]
merged = sampler.sample(params, often, jax.random.key(3))
print(
    json.dumps(
        {
            "ids": session.ids,
            "found": found,
            "merged": [merged.tokens.tolist(), merged.logprobs.tolist()],
        }
    )
)
