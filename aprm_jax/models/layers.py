"""The pieces of a decoder layer: RMSNorm, rotary positions, attention, gated MLP.

Axes: B batch, T target/query, S source/key, N heads, K KV heads, G = N / K query heads
to a KV head, H head size, D model, F feed-forward. Inside, heads come before time, as
matrix products and caches want them.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from aprm_jax.models import cpu_kernels
from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.attention import WholeRows, attend, kernel_of
from aprm_jax.models.placement import by_rows
from aprm_jax.models.positions import AttentionContext, Rotation
from aprm_jax.models.quantised import scaled

# What "names" of `DecoderConfig.remat` keeps of a layer.
KEPT = ("query", "key", "value", "mixed")

_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": jax.nn.gelu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
}


def scan_unroll(num_layers: int) -> int:
    """Layers to a turn of the loop: few layers run unrolled, where XLA fuses better."""
    return max(1, num_layers) if num_layers <= 4 else 1


def rotate(x: Float[Array, "B T N H"], cos_sin: Rotation) -> Float[Array, "B T N H"]:
    """Applies rotary positions, pairing i with i + half as Llama's weights do.

    Where there are fewer angles than H / 2, the numbers behind stay as they are.
    """
    cos, sin = (a[:, :, None] for a in cos_sin)
    wide, half = x.astype(jnp.float32), cos.shape[-1]
    first, second = wide[..., :half], wide[..., half : 2 * half]
    parts = [first * cos - second * sin, second * cos + first * sin]
    if 2 * half < x.shape[-1]:
        parts.append(wide[..., 2 * half :])
    return jnp.concatenate(parts, axis=-1).astype(x.dtype)


def soft_cap(x: Float[Array, "..."], cap: float | None) -> Float[Array, "..."]:
    """Cap * tanh(x / cap) (Gemma 2, arXiv:2408.00118); x where there is no cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class RMSNorm(nn.Module):
    """x / rms(x) * scale, or 1 + scale, in float32 (arXiv:1910.07467)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        offset = self.config.unit_offset_norms
        start = nn.initializers.zeros if offset else nn.initializers.ones
        scale = self.param("scale", start, (x.shape[-1],), self.config.param_dtype)
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(
            jnp.mean(wide * wide, axis=-1, keepdims=True) + self.config.norm_eps
        )
        scale = jnp.expand_dims(scale.astype(jnp.float32), tuple(range(x.ndim - 1)))
        if offset:
            scale = scale + 1.0
        return (wide * inverse * scale).astype(x.dtype)


class Projection(nn.Module):
    """A linear map of the last `inputs` axes to `outputs`."""

    config: DecoderConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stddev: float
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        kernel = self.param(
            "kernel",
            nn.initializers.normal(self.stddev),
            (*self.inputs, *self.outputs),
            self.config.param_dtype,
        )
        # As two matrices: for the gradient of a product with more axes XLA's CPU
        # backend copies a transpose of every activation (measured: 40% of a step).
        lead = x.shape[: x.ndim - len(self.inputs)]
        rows = x.reshape(math.prod(lead), math.prod(self.inputs))
        matrix = kernel.astype(self.config.dtype).reshape(rows.shape[1], -1)
        out = cpu_kernels.product(rows, matrix)
        out = scaled(out, _flat(self.get_variable("params", "kernel_scale")))
        if self.bias:
            bias = self.param(
                "bias", nn.initializers.zeros, self.outputs, self.config.param_dtype
            )
            out = out + bias.astype(self.config.dtype).reshape(1, -1)
        if self.has_variable("params", "lora_a"):  # of `lora.apply_lora`
            a = self.get_variable("params", "lora_a").astype(self.config.dtype)
            b = self.get_variable("params", "lora_b").astype(self.config.dtype)
            out = out + (rows @ a) @ b
        return out.reshape(*lead, *self.outputs)


def _flat(scale: Any) -> Any:
    return None if scale is None else scale.reshape(-1)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        d, n, k, h = c.d_model, c.num_heads, c.num_kv_heads, c.head_dim
        inner, outer = c.attention_bias != "none", c.attention_bias == "all"
        self.q = Projection(c, (d,), (n, h), d**-0.5, inner)
        self.k = Projection(c, (d,), (k, h), d**-0.5, inner)
        self.v = Projection(c, (d,), (k, h), d**-0.5, inner)
        # What a layer adds to the residual stream shrinks with depth (GPT-2).
        self.o = Projection(c, (n, h), (d,), (n * h * 2 * c.num_layers) ** -0.5, outer)
        if c.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(c), RMSNorm(c)

    def project(self, x: Float[Array, "B T D"], cos_sin: Rotation):
        """Rotated query [B, N, T, H] and key [B, K, T, H], value [B, K, T, H]."""
        query, key, value = self.q(x), self.k(x), self.v(x)
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, cos_sin), rotate(key, cos_sin)
        projected = (jnp.swapaxes(a, 1, 2) for a in (query, key, value))
        return tuple(
            checkpoint_name(by_rows(a, split=1), name)
            for a, name in zip(projected, KEPT, strict=False)
        )

    def mix(
        self, query, key, value, mask, rows: WholeRows | None
    ) -> Float[Array, "B T D"]:
        """What the heads read, back at the model's width."""
        mixed = by_rows(attend(query, key, value, mask, self.config, rows), split=1)
        if rows is None or kernel_of(self.config) != "splash":  # it names its own
            mixed = checkpoint_name(mixed, "mixed")
        return self.o(jnp.swapaxes(mixed, 1, 2))


class MLP(nn.Module):
    """down(activation(gate(x)) * up(x)) (arXiv:2002.05202)."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        d, f = c.d_model, c.d_ff
        self.gate = Projection(c, (d,), (f,), d**-0.5)
        self.up = Projection(c, (d,), (f,), d**-0.5)
        self.down = Projection(c, (f,), (d,), (f * 2 * c.num_layers) ** -0.5)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        activation = _ACTIVATIONS[self.config.activation]
        return self.down(by_rows(activation(self.gate(x)) * self.up(x), split=-1))


class Layer(nn.Module):
    """One pre-norm layer, for a whole sequence or for what follows a cache."""

    config: DecoderConfig

    def setup(self):
        self.attention_norm = RMSNorm(self.config)
        self.attention = Attention(self.config)
        self.mlp_norm = RMSNorm(self.config)
        self.mlp = MLP(self.config)
        if self.config.post_norms:
            self.attention_post_norm = RMSNorm(self.config)
            self.mlp_post_norm = RMSNorm(self.config)

    def __call__(self, x, context: AttentionContext, keep_kv: bool, local: Any = None):
        """The whole sequence; keys and values too where asked for.

        `local` says whether this layer has a window, where some have and some have not.
        """
        cos_sin, mask = context.of(local)
        query, key, value = self.attention.project(self.attention_norm(x), cos_sin)
        rows = WholeRows(context.segment_ids, local)
        x = self._finish(x, query, key, value, mask, rows)
        return x, ((key, value) if keep_kv else None)

    def extend(self, x, cos_sin, mask, keys, values, slot):
        """More tokens, attending over a cache that they are first written to."""
        query, key, value = self.attention.project(self.attention_norm(x), cos_sin)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, key, slot, axis=2)
        values = jax.lax.dynamic_update_slice_in_dim(values, value, slot, axis=2)
        return self._finish(x, query, keys, values, mask), (keys, values)

    def last(self, x, cos_sin, mask, at):
        """The whole sequence's keys and values, but the output of column `at` alone."""
        query, key, value = self.attention.project(self.attention_norm(x), cos_sin)
        query = jnp.take_along_axis(query, at[:, None, None, None], axis=2)
        x = jnp.take_along_axis(x, at[:, None, None], axis=1)
        mask = jnp.take_along_axis(mask, at[:, None, None], axis=1)
        return self._finish(x, query, key, value, mask), (key, value)

    def _finish(self, x, query, key, value, mask, rows: WholeRows | None = None):
        post = self.config.post_norms
        mixed = self.attention.mix(query, key, value, mask, rows)
        x = by_rows(x + (self.attention_post_norm(mixed) if post else mixed))
        out = self.mlp(self.mlp_norm(x))
        return by_rows(x + (self.mlp_post_norm(out) if post else out))
