"""Log-probabilities by chunks on meshes beside those of one device, and gradients.

The argument says whether the language head is the embedding.
"""

from __future__ import annotations

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import tiny_decoder

from aprm_jax.models import token_logprobs
from aprm_jax.models.decoder import ONE_HOT_VOCAB, Decoder
from aprm_jax.training.mesh import MeshConfig, make_mesh, on_mesh, param_shardings

token_logprobs.LEAST_COLUMNS, token_logprobs.CHUNK_BYTES = 3, 0
config = dataclasses.replace(
    tiny_decoder.SMALL,
    vocab_size=ONE_HOT_VOCAB + 8,
    d_model=16,
    tie_embeddings=bool(int(sys.argv[1])),
)
decoder, params = Decoder(config), tiny_decoder.make_params(config)
rng = np.random.default_rng(0)
hidden = jnp.asarray(rng.normal(size=(8, 11, 16)), jnp.float32)
tokens = jnp.asarray(rng.integers(0, config.vocab_size, (8, 11)), jnp.int32)
read = jnp.asarray(rng.random((8, 11)) < 0.3)


def loss(params, hidden):
    found = token_logprobs.read_tokens(decoder, params, hidden, tokens, read)
    return jnp.sum(jnp.sin(found.logprobs)), found


def gradients(mesh, params):
    both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    return jax.jit(on_mesh(mesh, both))(params, hidden)


one = gradients(None, params)
meshes = [(1, 8, 1), (4, 2, 1), (2, 2, 2)]
for sizes in meshes:
    mesh = make_mesh(MeshConfig(*sizes))
    placed = jax.device_put(params, param_shardings(mesh, params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        gradients(mesh, placed),
        one,
    )
print(len(meshes), "meshes")
