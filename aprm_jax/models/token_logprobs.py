"""Log-probabilities over the vocabulary, computed only where they are read.

All logits of a batch are the largest array there is: two of float32 at 4 rows of 512
tokens and a vocabulary of 152 thousand are 2.5 GB. Here the columns that are read are
moved together, row by row, and go through the language head a chunk at a time; the
backward pass computes a chunk again instead of keeping it. On a mesh every device does
so with its own rows, and the language head is gathered once.

Axes: B rows, T columns, C columns of a chunk, D model, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from aprm_jax.models import cpu_kernels, quantised
from aprm_jax.models.attention import platform
from aprm_jax.models.decoder import ONE_HOT_VOCAB, Decoder
from aprm_jax.models.placement import on_own_rows

# Float32 logits of a chunk, and its least width: narrower ones keep no device busy.
CHUNK_BYTES, LEAST_COLUMNS = 1 << 27, 32
# The same on accelerators. Each chunk adds an array of the head's size to the gradient:
# of Llama-3.1-8B's 36 ms on a TPU v5e, by its compiler's estimate.
WIDE_CHUNK_BYTES = 1 << 29


class TokenLogprobs(NamedTuple):
    """What a language head says of given tokens; 0 where none is read."""

    logprobs: Float32[Array, "B T"]
    entropy: Float32[Array, "B T"]  # nats, of the distribution; has no gradient


def read_tokens(
    decoder: Decoder,
    params: Any,
    hidden: Float[Array, "B T D"],
    tokens: Int32[Array, "B T"],
    read: Bool[Array, "B T"],
) -> TokenLogprobs:
    """Log-probability of each token that is read, and the entropy it was drawn with.

    Args:
      decoder: the module.
      params: the backbone's.
      hidden: the final state that each token is predicted from.
      tokens: what was drawn there.
      read: which of them count; nothing is computed for chunks without any.
    """
    vocab = decoder.config.vocab_size
    if vocab <= ONE_HOT_VOCAB:
        # All at once: to move columns costs more than such logits.
        found = _read(decoder, params, hidden, tokens)
    else:
        found = _read_on_mesh(decoder, params, hidden, tokens, read)
    return TokenLogprobs(*(jnp.where(read, x, 0.0) for x in found))


def _read_on_mesh(
    decoder: Decoder, params: Any, hidden: Array, tokens: Array, read: Array
) -> TokenLogprobs:
    name = "embed" if decoder.config.tie_embeddings else "head"
    dtype = decoder.config.dtype

    def of_rows(kernel, rows) -> TokenLogprobs:
        hidden, tokens, read = rows
        room = CHUNK_BYTES if platform() == "cpu" else WIDE_CHUNK_BYTES
        count = room // (4 * decoder.config.vocab_size * tokens.shape[0])
        columns = max(LEAST_COLUMNS, count)
        if columns >= tokens.shape[1]:
            at_once = jax.checkpoint(functools.partial(_read, decoder))
            return at_once({name: kernel}, hidden, tokens)
        return _read_by_chunks(decoder, {name: kernel}, hidden, tokens, read, columns)

    # Gathered as the products read it. Chunks add up their gradients in the same dtype,
    # as devices do: few of them, and each a sum in float32.
    kernel = quantised.cast(params[name], dtype)
    return on_own_rows(of_rows, kernel, (hidden, tokens, read))


def _read(decoder: Decoder, params: Any, hidden: Array, tokens: Array) -> TokenLogprobs:
    logits = decoder.apply({"params": params}, hidden, method=Decoder.logits)
    logits = cast(Array, logits)
    total = jax.nn.logsumexp(logits, axis=-1)
    fixed = jax.lax.stop_gradient(logits - total[..., None])
    entropy = -jnp.sum(jnp.exp(fixed) * fixed, axis=-1)
    return TokenLogprobs(cpu_kernels.picked(logits, tokens) - total, entropy)


def _read_by_chunks(
    decoder: Decoder,
    params: Any,
    hidden: Array,
    tokens: Array,
    read: Array,
    columns: int,
) -> TokenLogprobs:
    rows, width = tokens.shape
    columns = min(columns, width)
    order = jnp.argsort(~read, axis=1, stable=True)  # what is read comes first
    back = jnp.argsort(order, axis=1)
    chunks = -(-width // columns)

    def cut(x: Array) -> Array:
        """[B, T, ...] as [chunks, B, C, ...]."""
        spare = chunks * columns - width
        x = jnp.pad(x, ((0, 0), (0, spare), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(rows, chunks, columns, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def chunk(_, parts):
        states, ids, wanted = parts
        nothing = TokenLogprobs(*(jnp.zeros((rows, columns), jnp.float32),) * 2)
        found = jax.lax.cond(
            jnp.any(wanted),
            lambda: _read(decoder, params, states, ids),
            lambda: nothing,
        )
        return None, found

    moved = _permuted(hidden, order, back)
    ids, wanted = (jnp.take_along_axis(x, order, axis=1) for x in (tokens, read))
    _, found = jax.lax.scan(chunk, None, (cut(moved), cut(ids), cut(wanted)))

    def joined(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :width]
        return _permuted(x, back, order)

    return TokenLogprobs(*(joined(x) for x in found))


@jax.custom_vjp
def _permuted(x: Array, order: Int32[Array, "B T"], back: Int32[Array, "B T"]) -> Array:
    """Columns of each row in the given order; the gradient goes `back`, no scatter."""
    return jnp.take_along_axis(x, _beside(order, x), axis=1)


def _permuted_forward(x, order, back):
    return _permuted(x, order, back), (order, back)


def _permuted_backward(kept, wanted):
    order, back = kept
    return _permuted(wanted, back, order), None, None


_permuted.defvjp(_permuted_forward, _permuted_backward)


def _beside(index: Array, x: Array) -> Array:
    return index.reshape(*index.shape, *(1,) * (x.ndim - 2))
