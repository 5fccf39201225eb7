"""The pieces of a decoder layer: RMSNorm, rotary positions, attention, gated MLP.

Axes: B batch, T target/query, S source/key, N heads, K KV heads, G = N / K query heads
to a KV head, H head size, D model, F feed-forward. Inside, heads come before time, as
matrix products and caches want them.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

# Large and finite: softmax of a wholly masked row is uniform rather than NaN.
MASKED = -1e30


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The architecture of a decoder; everything that changes a parameter's shape.

    Attributes:
      vocab_size: V.
      d_model: D.
      num_layers: L.
      num_heads: N.
      num_kv_heads: K, a divisor of N.
      head_dim: H, even.
      d_ff: F.
      rope_theta: base of the rotary wavelengths.
      norm_eps: added to the mean square in RMSNorm.
      tie_embeddings: whether the LM head is the embedding, transposed.
      dtype: of activations, "float32" or "bfloat16"; norms, softmax and logits are
        float32 whatever it says.
      param_dtype: of parameters.
      remat: recompute layers in the backward pass instead of keeping activations.
      attention: "einsum", or "dot_product_attention" for `jax.nn`'s.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: bool = False
    attention: str = "einsum"

    def __post_init__(self):
        sizes = ("vocab_size", "d_model", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "d_ff"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads "
                f"({self.num_kv_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for RoPE, not {self.head_dim}")
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in ("float32", "bfloat16"):
                raise ValueError(
                    f"{name} must be float32 or bfloat16, not {getattr(self, name)!r}"
                )
        if self.attention not in ("einsum", "dot_product_attention"):
            raise ValueError(f"no attention named {self.attention!r}")


def scan_unroll(num_layers: int) -> int:
    """Layers to a turn of the loop: few layers run unrolled, where XLA fuses better."""
    return max(1, num_layers) if num_layers <= 4 else 1


def causal_mask(segment_ids: Int32[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Which columns a token sees: those of its segment up to itself."""
    index = jnp.arange(segment_ids.shape[1])
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return same & (index[:, None] >= index[None, :])[None]


Rotation = tuple[Float32[Array, "B T half"], Float32[Array, "B T half"]]


def rotation(positions: Int32[Array, "B T"], head_dim: int, theta: float) -> Rotation:
    """Cosine and sine of the rotary angles (Su et al., arXiv:2104.09864)."""
    exponent = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    angles = positions[..., None].astype(jnp.float32) / theta ** exponent[None, None]
    # Without the barrier XLA recomputes them in every layer, forward and backward.
    return jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))


def rotate(x: Float[Array, "B T N H"], cos_sin: Rotation) -> Float[Array, "B T N H"]:
    """Applies rotary positions, pairing i with i + H/2 as Llama's weights do."""
    cos, sin = (a[:, :, None] for a in cos_sin)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    out = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return out.astype(x.dtype)


def attend(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    kind: str,
) -> Float[Array, "B N T H"]:
    """Grouped-query attention with a float32 softmax."""
    if kind == "dot_product_attention":
        query, key, value = (jnp.swapaxes(a, 1, 2) for a in (query, key, value))
        out = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None])
        return jnp.swapaxes(out, 1, 2)
    b, n, t, h = query.shape
    k = key.shape[1]
    query = (query * h**-0.5).reshape(b, k, n // k, t, h)
    scores = jnp.einsum(
        "bkgth,bksh->bkgts", query, key, preferred_element_type=jnp.float32
    )
    scores = jnp.where(mask[:, None, None], scores, MASKED)
    probs = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bkgts,bksh->bkgth", probs, value).reshape(b, n, t, h)


class RMSNorm(nn.Module):
    """x / rms(x) * scale, computed in float32 (arXiv:1910.07467)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = self.param(
            "scale", nn.initializers.ones, (x.shape[-1],), self.config.param_dtype
        )
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(
            jnp.mean(wide * wide, axis=-1, keepdims=True) + self.config.norm_eps
        )
        scale = jnp.expand_dims(scale.astype(jnp.float32), tuple(range(x.ndim - 1)))
        return (wide * inverse * scale).astype(x.dtype)


class Projection(nn.Module):
    """A linear map of the last `inputs` axes to `outputs`, without bias."""

    config: DecoderConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stddev: float

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
        return (rows @ matrix).reshape(*lead, *self.outputs)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        d, n, k, h = c.d_model, c.num_heads, c.num_kv_heads, c.head_dim
        self.q = Projection(c, (d,), (n, h), d**-0.5)
        self.k = Projection(c, (d,), (k, h), d**-0.5)
        self.v = Projection(c, (d,), (k, h), d**-0.5)
        # What a layer adds to the residual stream shrinks with depth (GPT-2).
        self.o = Projection(c, (n, h), (d,), (n * h * 2 * c.num_layers) ** -0.5)

    def project(self, x: Float[Array, "B T D"], cos_sin: Rotation):
        """Rotated query [B, N, T, H] and key [B, K, T, H], value [B, K, T, H]."""
        query, key, value = self.q(x), self.k(x), self.v(x)
        query, key = rotate(query, cos_sin), rotate(key, cos_sin)
        return tuple(jnp.swapaxes(a, 1, 2) for a in (query, key, value))

    def mix(self, query, key, value, mask) -> Float[Array, "B T D"]:
        """What the heads read, back at the model's width."""
        mixed = attend(query, key, value, mask, self.config.attention)
        return self.o(jnp.swapaxes(mixed, 1, 2))


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        d, f = c.d_model, c.d_ff
        self.gate = Projection(c, (d,), (f,), d**-0.5)
        self.up = Projection(c, (d,), (f,), d**-0.5)
        self.down = Projection(c, (f,), (d,), (f * 2 * c.num_layers) ** -0.5)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """One pre-norm layer, for a whole sequence or for one token and a cache."""

    config: DecoderConfig

    def setup(self):
        self.attention_norm = RMSNorm(self.config)
        self.attention = Attention(self.config)
        self.mlp_norm = RMSNorm(self.config)
        self.mlp = MLP(self.config)

    def __call__(self, x, cos_sin, mask, keep_kv: bool):
        """The whole sequence; keys and values too where asked for."""
        query, key, value = self.attention.project(self.attention_norm(x), cos_sin)
        x = self._finish(x, query, key, value, mask)
        return x, ((key, value) if keep_kv else None)

    def step(self, x, cos_sin, mask, keys, values, slot):
        """One token, attending over a cache that it is first written to."""
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

    def _finish(self, x, query, key, value, mask):
        x = x + self.attention.mix(query, key, value, mask)
        return x + self.mlp(self.mlp_norm(x))
