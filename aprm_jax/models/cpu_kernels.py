"""What XLA's CPU backend is led around, so that models read as they are written.

Each function is a plain one of mathematics, whose docstring says which; how a CPU comes
to its values is behind `_switch`.

Axes: B batch, T target/query, S source/key, N heads, K KV heads, G = N / K query heads
to a KV head, Q = G T, H head size, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

# Large and finite: softmax of a wholly masked row is uniform rather than NaN.
MASKED = -1e30
# Attention over whole rows goes by blocks of queries: few, for each is compiled, and
# none smaller than what a core is kept busy with.
MOST_BLOCKS, SMALLEST_BLOCK = 4, 64


def _switch(cpu: Callable[..., Any], other: Callable[..., Any], *args: Any) -> Any:
    """One form on a CPU, another elsewhere, of what is the same function."""
    return jax.lax.platform_dependent(*args, cpu=cpu, default=other)


def attention(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    cap: float | None,
) -> Float[Array, "B N T H"]:
    """softmax(cap(query key^T)) value in float32; a square mask is causal."""
    t, s = mask.shape[1:]
    if t != s or t <= SMALLEST_BLOCK:
        return _mix(query, key, value, mask, cap)
    # The columns right of a block of queries are never seen: not computed either.
    size = max(SMALLEST_BLOCK, -(-t // MOST_BLOCKS))
    mixed = []
    for start in range(0, t, size):
        end = min(start + size, t)
        seen = mask[:, start:end, :end]
        rows = query[:, :, start:end]
        mixed.append(_mix(rows, key[:, :, :end], value[:, :, :end], seen, cap))
    return jnp.concatenate(mixed, axis=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    cap: float | None,
) -> Float[Array, "B N T H"]:
    """softmax(query key^T) value, with a gradient that keeps no scores.

    XLA's own passes over [T, S] more often (measured on a CPU: a tenth of a step at
    128 tokens). Inside, the G query heads of a KV head are one axis with their tokens.
    """
    return _mix_forward(query, key, value, mask, cap)[0]


def _mix_forward(query, key, value, mask, cap):
    b, n, t, h = query.shape
    k, s = key.shape[1:3]
    query = query.reshape(b, k, -1, h)
    scores = jnp.einsum(
        "bkqh,bksh->bkqs", query, key, preferred_element_type=jnp.float32
    )
    capped = scores if cap is None else cap * jnp.tanh(scores / cap)
    shown = capped.reshape(b, n, t, s)
    probs = jax.nn.softmax(jnp.where(mask[:, None], shown, MASKED), axis=-1)
    probs = probs.astype(value.dtype).reshape(scores.shape)
    mixed = jnp.einsum("bkqs,bksh->bkqh", probs, value)
    kept = query, key, value, probs, mixed, None if cap is None else capped
    return mixed.reshape(b, n, t, h), kept


def _mix_backward(cap, kept, wanted):
    query, key, value, probs, mixed, capped = kept
    shape, wanted = wanted.shape, wanted.reshape(query.shape)
    wide = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    of_value = _over_queries(probs, wanted)
    # d softmax: p (g - sum p g), where sum p g over the columns is wanted . mixed.
    of_probs = wide("bkqh,bksh->bkqs", wanted, value)
    mean = jnp.sum(wanted * mixed, axis=-1, keepdims=True, dtype=jnp.float32)
    of_scores = probs.astype(jnp.float32) * (of_probs - mean)
    if cap is not None:  # d cap tanh(x / cap)
        of_scores = of_scores * (1.0 - (capped / cap) ** 2)
    of_scores = of_scores.astype(query.dtype)
    of_query = wide("bkqs,bksh->bkqh", of_scores, key).reshape(shape)
    of_key = _over_queries(of_scores, query)
    return (
        of_query.astype(query.dtype),
        of_key.astype(key.dtype),
        of_value.astype(value.dtype),
        None,
    )


_mix.defvjp(_mix_forward, _mix_backward)


def _over_queries(
    scores: Float[Array, "B K Q S"], rows: Float[Array, "B K Q H"]
) -> Float32[Array, "B K S H"]:
    """scores^T rows, for each KV head."""

    def plain(scores, rows):
        return jnp.einsum(
            "bkqs,bkqh->bksh", scores, rows, preferred_element_type=jnp.float32
        )

    def turned(scores, rows):
        columns = jax.lax.optimization_barrier(jnp.swapaxes(scores, 2, 3))
        return jnp.einsum(
            "bksq,bkqh->bksh", columns, rows, preferred_element_type=jnp.float32
        )

    return _switch(turned, plain, scores, rows)


@jax.custom_vjp
def product(
    rows: Float[Array, "X I"], matrix: Float[Array, "I O"]
) -> Float[Array, "X O"]:
    """A plain product, with a gradient of the matrix that suits a CPU as well.

    There a product over the rows of both operands is not one of XLA's fast ones: with
    the narrower operand turned first it is (measured: a tenth of a step, together with
    the same in `_over_queries`).
    """
    return rows @ matrix


def _product_forward(rows, matrix):
    return rows @ matrix, (rows, matrix)


def _product_backward(kept, wanted):
    rows, matrix = kept

    def plain(rows, wanted):
        return rows.T @ wanted

    def turned(rows, wanted):
        if rows.shape[1] <= wanted.shape[1]:
            return jax.lax.optimization_barrier(rows.T) @ wanted
        return (jax.lax.optimization_barrier(wanted.T) @ rows).T

    of_matrix = _switch(turned, plain, rows, wanted)
    return wanted @ matrix.T, of_matrix.astype(matrix.dtype)


product.defvjp(_product_forward, _product_backward)


def kept(*arrays: Float32[Array, "B T half"]) -> tuple[Any, ...]:
    """The arrays, which XLA does not compute again wherever they are used.

    What stops it on a CPU, where it drops barriers too early, is a product: with the
    identity, so exact.
    """
    return _switch(_as_products, lambda *a: jax.lax.optimization_barrier(a), *arrays)


def _as_products(*arrays: Float32[Array, "B T half"]) -> tuple[Any, ...]:
    identity = jnp.eye(arrays[0].shape[-1], dtype=jnp.float32)
    exact = jax.lax.Precision.HIGHEST
    return tuple(jnp.matmul(a, identity, precision=exact) for a in arrays)


@jax.custom_vjp
def lookup(
    table: Float[Array, "V D"], tokens: Int32[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Rows of a table; on a CPU their gradient is a product with a one-hot matrix.

    XLA's scatter-add runs there on one thread, row by row. For few rows alone.
    """
    return table[tokens]


def _lookup_fwd(table, tokens):
    return table[tokens], (tokens, jnp.zeros((table.shape[0], 0), table.dtype))


def _lookup_bwd(saved, grad):
    tokens, like = saved
    rows, ids = grad.reshape(-1, grad.shape[-1]), tokens.reshape(-1)

    def product(rows, ids):
        hot = jax.nn.one_hot(ids, like.shape[0], dtype=rows.dtype)
        return jnp.einsum("xv,xd->vd", hot, rows, preferred_element_type=jnp.float32)

    def scattered(rows, ids):
        table = jnp.zeros((like.shape[0], rows.shape[1]), jnp.float32)
        return table.at[ids].add(rows.astype(jnp.float32))

    return _switch(product, scattered, rows, ids).astype(like.dtype), None


lookup.defvjp(_lookup_fwd, _lookup_bwd)


def picked(
    logits: Float32[Array, "B T V"], tokens: Int32[Array, "B T"]
) -> Float32[Array, "B T"]:
    """The logit of each token.

    On a CPU as a sum over a one-hot mask: the gradient of a gather is a scatter,
    which XLA runs there on one thread.
    """

    def masked(logits, tokens):
        hot = tokens[..., None] == jnp.arange(logits.shape[-1])[None, None]
        return jnp.sum(jnp.where(hot, logits, 0.0), axis=-1)

    def gathered(logits, tokens):
        return jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]

    return _switch(masked, gathered, logits, tokens)
