"""Log-probabilities in chunks beside NumPy's over whole logits, gradients included."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_decoder
from tiny_decoder import SMALL

from aprm_jax.models import token_logprobs
from aprm_jax.models.decoder import ONE_HOT_VOCAB, Decoder

LARGE = dataclasses.replace(SMALL, vocab_size=ONE_HOT_VOCAB + 3, d_model=16)
ROWS, WIDTH = 3, 11


def _inputs(config, seed: int = 0):
    """States, tokens, and a mask with gaps: one row whole, one of nothing."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(ROWS, WIDTH, config.d_model)).astype(np.float32)
    tokens = rng.integers(0, config.vocab_size, (ROWS, WIDTH)).astype(np.int32)
    read = np.zeros((ROWS, WIDTH), bool)
    read[0], read[1, [1, 4, 5, 9]] = True, True
    return jnp.array(hidden), jnp.array(tokens), jnp.array(read)


def _by_numpy(config, params, hidden, tokens, read):
    kernel = np.asarray(params["embed"]["embedding"], np.float64).T
    if not config.tie_embeddings:
        kernel = np.asarray(params["head"]["kernel"], np.float64)
    logits = np.asarray(hidden, np.float64) @ kernel
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(logp, np.asarray(tokens)[..., None], -1)[..., 0]
    entropy = -(np.exp(logp) * logp).sum(-1)
    return chosen * np.asarray(read), entropy * np.asarray(read)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Chunks of three columns: the last one is not full, and some read nothing."""
    monkeypatch.setattr(token_logprobs, "LEAST_COLUMNS", 3)
    monkeypatch.setattr(token_logprobs, "CHUNK_BYTES", 0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("chunk", [0, 1 << 27])
def test_values_are_numpys_and_gradients_those_of_all_logits(
    monkeypatch, tied, large, chunk
):
    monkeypatch.setattr(token_logprobs, "CHUNK_BYTES", chunk)
    config = dataclasses.replace(LARGE if large else SMALL, tie_embeddings=tied)
    decoder, params = Decoder(config), tiny_decoder.make_params(config)
    hidden, tokens, read = _inputs(config)

    @jax.jit
    def ours(params, hidden):
        found = token_logprobs.read_tokens(decoder, params, hidden, tokens, read)
        return jnp.sum(jnp.sin(found.logprobs)), found

    def whole(params, hidden):
        logits = decoder.apply({"params": params}, hidden, method=Decoder.logits)
        logp = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(logp, tokens[..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.sin(jnp.where(read, chosen, 0.0)))

    (_, found), got = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(
        params, hidden
    )
    expected = _by_numpy(config, params, hidden, tokens, read)
    np.testing.assert_allclose(found.logprobs, expected[0], atol=1e-4)
    np.testing.assert_allclose(found.entropy, expected[1], atol=1e-4)
    want = jax.grad(whole, argnums=(0, 1))(params, hidden)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, want)
    assert np.abs(got[1][0]).max() > 1e-2 and not np.any(got[1][2])


def test_no_array_of_all_logits_is_made():
    """Neither forward nor backward: the largest array is a chunk's, or the head's."""
    config = dataclasses.replace(LARGE, vocab_size=50_000)
    decoder, params = Decoder(config), tiny_decoder.make_params(config)
    hidden, tokens, read = _inputs(config)

    def loss(params, hidden):
        found = token_logprobs.read_tokens(decoder, params, hidden, tokens, read)
        return jnp.sum(found.logprobs)

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, hidden).compile()
    analysis = program.memory_analysis()
    assert analysis is not None
    used = analysis.temp_size_in_bytes
    whole = ROWS * WIDTH * config.vocab_size * 4
    # Two [B, C, V] of a chunk, and gradients of the head.
    assert used < 3 * whole * 3 / WIDTH + 4 * config.vocab_size * config.d_model * 4
    assert 3 * whole * 3 / WIDTH < whole
