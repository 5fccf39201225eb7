"""Prefill: distinct prompts to the decode loop's first state.

Axes: U distinct prompts, P prompt bucket, B rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from aprm_jax.models.cache import KVCache, read_prompts
from aprm_jax.models.decoder import DecoderConfig


@flax.struct.dataclass
class Prefilled:
    """Prompts that have been read.

    Attributes:
      logits: of the token that follows each prompt.
      lengths: tokens in each prompt.
      last: position of each prompt's last token; new ones count on from it.
      cache: keys and values in the first P slots; slots past the length are garbage.
    """

    logits: Float32[Array, "U V"]
    lengths: Int32[Array, " U"]
    last: Int32[Array, " U"]
    cache: KVCache


def prefill(
    config: DecoderConfig,
    params: Any,
    tokens: Int32[Array, "U P"],
    lengths: Int32[Array, " U"],
    positions: Int32[Array, "U P"],
) -> Prefilled:
    """Reads prompts that start at column 0 and are padded on the right."""
    columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    inside = (columns < lengths[:, None]).astype(jnp.int32)
    last = jnp.maximum(lengths - 1, 0)
    logits, cache = read_prompts(config, params, tokens, positions, inside, last)
    position = jnp.take_along_axis(positions, last[:, None], axis=1)[:, 0]
    return Prefilled(logits=logits, lengths=lengths, last=position, cache=cache)


def gather(prefilled: Prefilled, rows: Int32[Array, " B"]) -> Prefilled:
    """One entry for each row that samples from a prompt."""
    return jax.tree.map(lambda x: x[rows], prefilled)
