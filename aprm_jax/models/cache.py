"""The decoder with a cache of keys and values: read a prompt, then what follows it.

Axes: B batch, T columns that are read, S cache slots, K KV heads, H head size, D model,
L layers.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from aprm_jax.models.decoder import Decoder
from aprm_jax.models.layers import DecoderConfig, Layer, scan_unroll
from aprm_jax.models.placement import by_rows
from aprm_jax.models.positions import attention_context, cache_context, layer_kinds


@flax.struct.dataclass
class KVCache:
    """Keys and values of every layer, one array a layer so that writes are in place.

    Attributes:
      keys: L arrays [B, K, S, H], rotated.
      values: L arrays [B, K, S, H].
    """

    keys: tuple[Float[Array, "B K S H"], ...]
    values: tuple[Float[Array, "B K S H"], ...]

    @property
    def num_slots(self) -> int:
        """S."""
        return self.keys[0].shape[2]

    def grow(self, slots: int) -> KVCache:
        """The same cache with empty slots behind it."""
        return jax.tree.map(
            lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, slots), (0, 0))), self
        )


def placed(cache: KVCache) -> KVCache:
    """A cache with rows and heads where `models.placement` puts them."""
    return jax.tree.map(lambda x: by_rows(x, split=1), cache)


def split_layers(params: Any, num_layers: int) -> tuple[Any, ...]:
    """The stacked layer parameters, one tree a layer: done once, outside the loop."""
    layers = params["layers"]
    return tuple(jax.tree.map(lambda p, i=i: p[i], layers) for i in range(num_layers))


def read_prompts(
    config: DecoderConfig,
    params: Any,
    tokens: Int32[Array, "B T"],
    positions: Int32[Array, "B T"],
    segment_ids: Int32[Array, "B T"],
    last: Int32[Array, " B"],
) -> tuple[Float[Array, "B D"], KVCache]:
    """What is written at column `last` of each prompt, and the cache of all columns.

    Of the last layer only keys and values are computed for every column.
    """
    # Any: flax types `apply` as if it always returned a tuple of outputs and state.
    decoder: Any = Decoder(config)
    layer: Any = Layer(config)
    variables = {"params": params}
    seen, before = (
        attention_context(config, positions, segment_ids),
        config.num_layers - 1,
    )

    def body(x, scanned):
        layer_params, local = scanned
        return layer.apply({"params": layer_params}, x, seen, True, local)

    x = decoder.apply(variables, tokens, method=Decoder.embedded)
    scanned = (params["layers"], layer_kinds(config))
    stack = jax.tree.map(lambda p: p[:before], scanned)
    x, (keys, values) = jax.lax.scan(body, x, stack, unroll=scan_unroll(before))
    top = {"params": jax.tree.map(lambda p: p[before], params["layers"])}
    cos_sin, mask = seen.of(config.local_layers[before])
    x, (key, value) = layer.apply(top, x, cos_sin, mask, last, method=Layer.last)
    return x[:, 0], KVCache((*keys, key), (*values, value))


def read_on(
    config: DecoderConfig,
    params: Any,
    layers: tuple[Any, ...],
    tokens: Int32[Array, "B T"],
    positions: Int32[Array, "B T"],
    places: Int32[Array, "B T"],
    cache: KVCache,
    slot: Int32[Array, ""] | int,
    filled: Int32[Array, "B S"],
) -> tuple[Float[Array, "B T D"], KVCache]:
    """What is written at tokens that follow a cache's, which then holds them too.

    The last layer's output, before the final norm.

    Args:
      config: the decoder's.
      params: the decoder's parameters.
      layers: `split_layers(params, L)`.
      tokens: T more of each row.
      positions: of these tokens.
      places: how many tokens of its row stand before each.
      cache: keys and values so far.
      slot: where the first of them is written, the same for every row.
      filled: the place in its row of the token in each slot, these T included; -1
        where a slot is empty.
    """
    decoder: Any = Decoder(config)
    layer: Any = Layer(config)
    variables, kvs = {"params": params}, []
    x = decoder.apply(variables, tokens, method=Decoder.embedded)
    seen = cache_context(config, positions, places, filled)
    for i, layer_params in enumerate(layers):
        x, kv = layer.apply(
            {"params": layer_params},
            x,
            *seen.of(config.local_layers[i]),
            cache.keys[i],
            cache.values[i],
            slot,
            method=Layer.extend,
        )
        kvs.append(kv)
    keys, values = zip(*kvs, strict=True)
    return x, KVCache(tuple(keys), tuple(values))
