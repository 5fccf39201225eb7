"""Samples of parameters that training shards: on its mesh, and on one of their own."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny_game
from tiny_game import CONFIG

from aprm_jax.models.decoder import Decoder
from aprm_jax.training.mesh import (
    MeshConfig,
    MeshError,
    init_sharded,
    make_mesh,
    to_sample,
)

mesh = make_mesh(MeshConfig(data=1, fsdp=8))
row = np.zeros((1, 8), np.int32)
params = init_sharded(
    mesh,
    lambda key: Decoder(CONFIG).init(jax.random.wrap_key_data(key), row, row, row + 1),
    jax.random.key_data(jax.random.key(0)),
)["params"]
prompts = [[1 + i % 5, 7, 2 + i % 3] for i in range(16)]


def samples(mesh):
    sampler = tiny_game.sampler(tiny_game.builder(), mesh=mesh)
    return sampler.sample(params, prompts, jax.random.key_data(jax.random.key(1)))


own, moved = samples(mesh), samples(to_sample(mesh, 2))
np.testing.assert_array_equal(own.tokens, moved.tokens)
np.testing.assert_allclose(own.logprobs, moved.logprobs, atol=1e-4)
assert to_sample(mesh, 0) is mesh
with pytest.raises(MeshError, match="sample_tensor=3 does not divide the 8 devices"):
    to_sample(mesh, 3)
# On each device half of a kernel, not an eighth, and never another mesh's.
sampler = tiny_game.sampler(tiny_game.builder(), mesh=to_sample(mesh, 2))
kernel = sampler._placed(params)["layers"]["mlp"]["gate"]["kernel"]
print(kernel.size // kernel.addressable_shards[0].data.size)
