"""Small decoders of every shape, and their teacher-forced logits, for tests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.models.decoder import Decoder, DecoderConfig

SMALL = DecoderConfig(
    vocab_size=37,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=48,
)
CONFIGS = {
    "grouped": SMALL,
    "multi_head": dataclasses.replace(SMALL, num_kv_heads=4),
    "multi_query_untied": dataclasses.replace(
        SMALL, num_kv_heads=1, tie_embeddings=False
    ),
    # More layers than are unrolled; a head size that is not D / N; other constants.
    "deep": dataclasses.replace(
        SMALL, num_layers=6, head_dim=12, rope_theta=500.0, norm_eps=1e-5
    ),
}


@functools.cache
def make_params(config: DecoderConfig, seed: int = 0) -> Any:
    """Initial parameters plus noise, so that every scale and bias of order matters."""
    ids = jnp.zeros((1, 4), jnp.int32)
    init = jax.jit(Decoder(config).init)
    params = init(jax.random.key(seed), ids, ids, ids)["params"]
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noisy = [x + jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, noisy)


def arange_like(tokens: Any) -> jax.Array:
    """Positions of rows that hold one segment."""
    return jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)


@functools.partial(jax.jit, static_argnums=0)
def _forward(config, params, tokens, positions, segments):
    decoder, variables = Decoder(config), {"params": params}
    hidden = decoder.apply(variables, tokens, positions, segments)
    return decoder.apply(variables, hidden, method=Decoder.logits)


def forward(config, params, tokens, positions=None, segments=None) -> np.ndarray:
    """Logits [B, T, V] of the training graph."""
    tokens = jnp.asarray(tokens)
    positions = arange_like(tokens) if positions is None else jnp.asarray(positions)
    segments = jnp.ones_like(tokens) if segments is None else jnp.asarray(segments)
    return np.asarray(_forward(config, params, tokens, positions, segments))


def random_tokens(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Ids below 37."""
    return np.random.default_rng(seed).integers(0, 37, shape).astype(np.int32)
