"""The decoder with a cache of keys and values: read a prompt, then token by token.

Axes: B batch, T prompt columns, S cache slots, K KV heads, H head size, D model, V
vocabulary, L layers.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from aprm_jax.models.decoder import Decoder
from aprm_jax.models.layers import DecoderConfig, Layer, scan_unroll
from aprm_jax.models.positions import layer_kinds, sight, sight_of_last


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
) -> tuple[Float32[Array, "B V"], KVCache]:
    """The logits after column `last` of each prompt, and the cache of all columns.

    Of the last layer only keys and values are computed for every column.
    """
    # Any: flax types `apply` as if it always returned a tuple of outputs and state.
    decoder: Any = Decoder(config)
    layer: Any = Layer(config)
    variables = {"params": params}
    seen, before = sight(config, positions, segment_ids), config.num_layers - 1

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
    logits = decoder.apply(variables, x[:, 0], method=Decoder.norm_logits)
    return logits, KVCache((*keys, key), (*values, value))


def decode_step(
    config: DecoderConfig,
    params: Any,
    layers: tuple[Any, ...],
    tokens: Int32[Array, " B"],
    positions: Int32[Array, " B"],
    cache: KVCache,
    slot: Int32[Array, ""],
    visible: Bool[Array, "B S"],
) -> tuple[Float32[Array, "B V"], KVCache]:
    """The logits after one more token, written to `slot` of the cache.

    Args:
      config: the decoder's.
      params: the decoder's parameters.
      layers: `split_layers(params, L)`.
      tokens: the token drawn last.
      positions: its position in its row.
      cache: keys and values so far.
      slot: where to write, the same for every row.
      visible: the slots that hold a row's tokens, in their order, `slot` the last.
    """
    decoder: Any = Decoder(config)
    layer: Any = Layer(config)
    variables, kvs = {"params": params}, []
    x = decoder.apply(variables, tokens[:, None], method=Decoder.embedded)
    seen = sight_of_last(config, positions[:, None], visible)
    for i, layer_params in enumerate(layers):
        cos_sin, mask = seen.of(config.local_layers[i])
        x, kv = layer.apply(
            {"params": layer_params},
            x,
            cos_sin,
            mask,
            cache.keys[i],
            cache.values[i],
            slot,
            method=Layer.step,
        )
        kvs.append(kv)
    logits = decoder.apply(variables, x[:, 0], method=Decoder.norm_logits)
    keys, values = zip(*kvs, strict=True)
    return logits, KVCache(tuple(keys), tuple(values))
