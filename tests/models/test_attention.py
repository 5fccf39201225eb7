"""Attention against a plain softmax that XLA differentiates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoder import SMALL

from aprm_jax.models.cpu_kernels import MOST_BLOCKS, SMALLEST_BLOCK
from aprm_jax.models.layers import attend
from aprm_jax.models.positions import causal_mask

HEADS, KV_HEADS, SIZE = SMALL.num_heads, SMALL.num_kv_heads, SMALL.head_dim


def plainly(query, key, value, mask, cap):
    """The textbook's, with a KV head copied to each of its query heads."""
    copies = HEADS // KV_HEADS
    key, value = (jnp.repeat(a, copies, axis=1) for a in (key, value))
    scores = jnp.einsum("bnth,bnsh->bnts", query, key) / np.sqrt(SIZE)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    scores = jnp.where(mask[:, None], scores, -jnp.inf)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores, -1), value)


def drawn(length, targets=None, dtype=np.float32):
    rng = np.random.default_rng(length)
    shapes = ((2, HEADS, targets or length, SIZE), *((2, KV_HEADS, length, SIZE),) * 2)
    return tuple(jnp.asarray(2 * rng.normal(size=s), dtype) for s in shapes)


def packed(length, window=None):
    """Two segments in one row, one in the other."""
    segments = np.ones((2, length), np.int32)
    segments[0, length // 3 :] = 2
    return causal_mask(jnp.asarray(segments), window)


def value_and_grads(fn, arrays, mask):
    wanted = np.random.default_rng(1).normal(size=arrays[0].shape)

    def loss(*arrays):
        out = fn(*arrays, mask)
        return jnp.sum(out.astype(jnp.float32) * wanted), out

    # jit: what XLA makes of it is what a run gets.
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize(
    ("length", "window"),
    [
        (SMALLEST_BLOCK - 7, None),  # one block
        (SMALLEST_BLOCK + 1, None),  # a last block of one query
        (MOST_BLOCKS * SMALLEST_BLOCK + 5, None),  # larger blocks, a ragged last one
        (2 * SMALLEST_BLOCK, 9),
    ],
)
def test_value_and_gradients_are_the_textbooks(length, window, cap):
    config = dataclasses.replace(SMALL, attention_softcap=cap)
    mask = packed(length, window)
    arrays = drawn(length)
    ours = value_and_grads(lambda *a: attend(*a, config), arrays, mask)
    theirs = value_and_grads(lambda *a: plainly(*a, cap), arrays, mask)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
        ours,
        theirs,
    )


def test_one_query_over_a_cache_sees_what_its_mask_says():
    arrays = drawn(90, targets=1)
    mask = jnp.asarray(np.random.default_rng(0).random((2, 1, 90)) < 0.4)
    ours, theirs = attend(*arrays, mask, SMALL), plainly(*arrays, mask, None)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_bfloat16_gradients_are_as_close_as_bfloat16_is():
    length = SMALLEST_BLOCK + 9
    mask = packed(length)
    exact = drawn(length)
    rounded = tuple(a.astype(jnp.bfloat16) for a in exact)
    _, grads = value_and_grads(lambda *a: attend(*a, SMALL), rounded, mask)
    again = tuple(a.astype(jnp.float32) for a in rounded)
    _, wanted = value_and_grads(lambda *a: plainly(*a, None), again, mask)
    for ours, theirs in zip(grads, wanted, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.linalg.norm(ours.astype(np.float32) - theirs)
        assert error < 1e-2 * np.linalg.norm(theirs)
