"""Rows of text that a decoder has read, on the device: begun, gathered, read on.

A row's tokens stand in the first slots of its cache (its head). What is read or drawn
next goes to slots behind those of all heads, the same for every row (the tail), where
rows of different lengths leave gaps; gathering closes them.

Axes: B rows, P slots of heads, S slots, T new columns, U = T + 1, D model.
"""

from __future__ import annotations

from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from aprm_jax.models.cache import KVCache, read_on, read_prompts, split_layers
from aprm_jax.models.decoder import Decoder, DecoderConfig


@flax.struct.dataclass
class Rows:
    """Rows that have been read.

    Attributes:
      residual: what the last layer wrote at each row's last token that was read; the
        final norm makes the state of it that the next token is predicted from.
      cache: keys and values; what stands in slots without a token is garbage.
    """

    residual: Float[Array, "B D"]
    cache: KVCache

    def grow(self, slots: int) -> Rows:
        """The same rows with empty slots behind them."""
        return Rows(self.residual, self.cache.grow(slots))


def prefill(
    config: DecoderConfig,
    params: Any,
    tokens: Int32[Array, "B P"],
    lengths: Int32[Array, " B"],
    positions: Int32[Array, "B P"],
) -> Rows:
    """Reads prompts that start at column 0 and are padded on the right."""
    columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    inside = (columns < lengths[:, None]).astype(jnp.int32)
    last = jnp.maximum(lengths - 1, 0)
    return Rows(*read_prompts(config, params, tokens, positions, inside, last))


@flax.struct.dataclass
class Selection:
    """Which rows go on, from where.

    Attributes:
      source: the row that each new one is a copy of.
      head: tokens in the head of that row.
      lengths: how many of its tokens are kept, in its head and its tail together.
    """

    source: Int32[Array, " B"]
    head: Int32[Array, " B"]
    lengths: Int32[Array, " B"]


def gather(
    rows: Rows, selected: Selection, old_heads: int, heads: int, room: int
) -> Rows:
    """The rows selected, their tokens in the first slots.

    Args:
      rows: what there is.
      selected: what is kept of it.
      old_heads: slots of the heads of `rows`.
      heads: slots of the new rows' heads, at least the greatest of the lengths.
      room: slots of tail behind them.
    """
    source, head = selected.source, selected.head[:, None]
    if rows.cache.num_slots == heads == old_heads:  # all is head
        return jax.tree.map(lambda x: x[source], rows).grow(room)
    slot = jnp.arange(heads + room, dtype=jnp.int32)[None]
    index = jnp.where(slot < head, slot, old_heads + slot - head)
    index = jnp.minimum(index, rows.cache.num_slots - 1)[:, None]

    def moved(x: Float[Array, "A K S H"]) -> Float[Array, "B K P H"]:
        of_heads = jnp.arange(x.shape[1])[None, :, None]
        return x[source[:, None, None], of_heads, index]

    return Rows(rows.residual[source], jax.tree.map(moved, rows.cache))


def taken(tree: Any, kept: Int32[Array, " N"]) -> Any:
    """N rows of arrays [B, ...] by themselves; numbers stay as they are.

    Args:
      tree: of rows.
      kept: indices; from B on they stand for rows of padding.
    """

    def rows(x: Array) -> Array:
        return jnp.take(x, kept, axis=0, mode="clip") if jnp.ndim(x) else x

    return jax.tree.map(rows, tree)


def put_back(tree: Any, few: Any, kept: Int32[Array, " N"], room: int) -> Any:
    """All rows again, after some have gone on.

    Args:
      tree: of B rows, as `taken` took some.
      few: what became of these.
      kept: their indices.
      room: of caches only so many slots, the last ones, can have changed.
    """

    def put(x: Array, new: Array) -> Array:
        if not jnp.ndim(x):
            return new
        mine = kept[None] == jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        moved = new[jnp.argmax(mine, axis=1)]
        went_on = mine.any(axis=1).reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(went_on, moved, x)

    def put_part(x: Any, new: Any) -> Any:
        if not isinstance(x, KVCache):
            return put(x, new)
        return jax.tree.map(put_tail, x, new)

    def put_tail(x: Array, new: Array) -> Array:
        first = x.shape[2] - room
        tail = put(x[:, :, first:], new[:, :, first:])
        return jax.lax.dynamic_update_slice_in_dim(x, tail, first, axis=2)

    return jax.tree.map(put_part, tree, few, is_leaf=lambda x: isinstance(x, KVCache))


def places(lengths: Int32[Array, " B"], heads: int, slots: int) -> Int32[Array, "B S"]:
    """The place in its row of the token in each slot; -1 where a head is empty.

    Args:
      lengths: tokens in the head of each row.
      heads: slots of heads.
      slots: of heads and tail.
    """
    slot = jnp.arange(slots, dtype=jnp.int32)[None]
    in_head = jnp.where(slot < lengths[:, None], slot, -1)
    return jnp.where(slot < heads, in_head, lengths[:, None] + slot - heads)


@flax.struct.dataclass
class Given:
    """Tokens to read after each row: one row a text, padded on the right.

    Attributes:
      tokens: the ids.
      positions: of them.
      counts: how many each row has.
    """

    tokens: Int32[Array | np.ndarray, "B T"]
    positions: Int32[Array | np.ndarray, "B T"]
    counts: Int32[Array | np.ndarray, " B"]


def extend(
    config: DecoderConfig,
    params: Any,
    rows: Rows,
    heads: int,
    lengths: Int32[Array, " B"],
    given: Given,
    before: Int32[Array, ""] | int = 0,
) -> tuple[Rows, Float[Array, "B U D"]]:
    """Gathered rows with given tokens behind them.

    Args:
      config: the decoder's.
      params: the decoder's parameters.
      rows: as `gather` leaves them, with room for T tokens.
      heads: slots of their heads.
      lengths: tokens of each.
      given: what follows them.
      before: columns that were read after them already.

    Returns:
      The rows with these tokens in the next T slots of their tails; and T + 1 final
      states: of the token before them, as `rows` keeps it, and of these.
    """
    width = given.tokens.shape[1]
    written, cache = read_on(
        config,
        params,
        split_layers(params, config.num_layers),
        jnp.asarray(given.tokens),
        jnp.asarray(given.positions),
        lengths[:, None] + before + jnp.arange(width, dtype=jnp.int32)[None],
        rows.cache,
        heads + before,
        places(lengths, heads, rows.cache.num_slots),
    )
    written = jnp.concatenate([rows.residual[:, None], written], axis=1)
    last = jnp.take_along_axis(
        written, jnp.asarray(given.counts)[:, None, None], axis=1
    )[:, 0]
    states = Decoder(config).apply({"params": params}, written, method=Decoder.normed)
    return Rows(last, cache), cast(Array, states)
