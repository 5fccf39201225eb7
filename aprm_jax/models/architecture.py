"""What a decoder is: sizes, and the options in which model families differ.

The defaults are a plain Llama. Everything here is hashable, so that a compiled
function may take it as a static argument, and survives JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

ROPE_KINDS = ("linear", "llama3", "yarn", "longrope")
ACTIVATIONS = ("silu", "gelu_tanh", "gelu", "relu")
ATTENTION_BIASES = ("none", "qkv", "all")
REMATS = ("none", "dots", "names", "full")
ATTENTIONS = ("auto", "einsum", "dot_product_attention", "splash", "cudnn")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched past the length of the first training.

    Attributes:
      kind: "linear" divides all of them by `factor`; "llama3" the slow ones alone,
        with a ramp between (Llama 3.1's rule, transformers' "llama3"); "yarn" likewise
        by another ramp (arXiv:2309.00071); "longrope" each by a factor of its own,
        which depends on whether the row is longer than `original_length`
        (arXiv:2402.13753).
      factor: at least 1.
      low_freq_factor: of "llama3": wavelengths above `original_length /
        low_freq_factor` are divided.
      high_freq_factor: of "llama3": wavelengths below `original_length /
        high_freq_factor` stay.
      original_length: of all but "linear": tokens of the first training.
      attention_factor: of "yarn" and "longrope": queries and keys are multiplied by it.
      beta_fast: of "yarn": turns within `original_length` from which a frequency stays.
      beta_slow: of "yarn": turns up to which it is divided.
      truncate: of "yarn": whether the ramp starts and ends at whole dimensions.
      short_factor: of "longrope": divisors in rows up to `original_length`, one a pair.
      long_factor: of "longrope": divisors in longer rows.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 8192
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self):
        for name in ("short_factor", "long_factor"):  # lists, as JSON has them
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in ROPE_KINDS:
            raise ValueError(f"rope kind must be in {ROPE_KINDS}, not {self.kind!r}")
        if self.factor < 1 or self.original_length < 1:
            raise ValueError(f"rope factor and length must be at least 1: {self}")
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"rope needs 0 < low_freq_factor < high_freq_factor: {self}"
            )
        if not 0 < self.beta_slow <= self.beta_fast or self.attention_factor <= 0:
            raise ValueError(
                "rope needs 0 < beta_slow <= beta_fast and attention_factor > 0: "
                f"{self}"
            )
        if min((*self.short_factor, *self.long_factor, 1.0)) <= 0:
            raise ValueError(f"longrope's factors must be positive: {self}")


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
      remat: what of a layer the backward pass computes again instead of keeping it:
        "none" of it; "dots" all but what products with weights gave; "names" all but
        queries, keys, values and what the heads read (`layers.KEPT`); "full" all of it.
      attention: the kernel that computes it over whole rows; see `models.attention`.
      rope_scaling: of the layers that see everything; None for none.
      rotary_dim: how many of a head's H numbers rotate, the first ones (Phi-4-mini);
        None for all.
      local_rope_theta: base in layers with a window (Gemma 3), unscaled; None where
        they rotate like the others.
      attention_bias: which projections have one: "none", "qkv" (Qwen 2) or "all".
      qk_norm: RMSNorm of each query and key head before rotation (Qwen 3, Gemma 3).
      layer_pattern: a letter a layer, repeated over the layers: "g" sees its whole
        segment, "l" only the last `sliding_window` tokens, itself included.
      sliding_window: tokens; None where no layer has a window.
      query_scalar: scores are divided by its square root; None for H.
      attention_softcap: c in c tanh(score / c) (Gemma 2); None for no cap.
      logit_softcap: the same for the LM head's logits.
      post_norms: RMSNorm of what attention and MLP add to the residual (Gemma).
      unit_offset_norms: RMSNorm multiplies by 1 + scale, and scale starts at 0 (Gemma).
      scale_embeddings: the embedding is multiplied by sqrt(D) (Gemma).
      activation: of the gate, one of `ACTIVATIONS`.
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
    remat: str = "none"
    attention: str = "auto"
    rope_scaling: RopeScaling | None = None
    rotary_dim: int | None = None
    local_rope_theta: float | None = None
    attention_bias: str = "none"
    qk_norm: bool = False
    layer_pattern: str = "g"
    sliding_window: int | None = None
    query_scalar: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    post_norms: bool = False
    unit_offset_norms: bool = False
    scale_embeddings: bool = False
    activation: str = "silu"

    def __post_init__(self):
        scaling: Any = self.rope_scaling
        if isinstance(scaling, Mapping):  # as JSON has it
            object.__setattr__(self, "rope_scaling", RopeScaling(**scaling))
        if isinstance(self.remat, bool):  # as models were saved before
            object.__setattr__(self, "remat", "full" if self.remat else "none")
        self._check_sizes()
        _among("dtype", self.dtype, ("float32", "bfloat16"))
        _among("param_dtype", self.param_dtype, ("float32", "bfloat16"))
        _among("remat", self.remat, REMATS)
        _among("activation", self.activation, ACTIVATIONS)
        _among("attention_bias", self.attention_bias, ATTENTION_BIASES)
        _among("attention", self.attention, ATTENTIONS)
        if why := attention_refusal(self, self.attention):
            raise ValueError(f"attention={self.attention!r} {why}")
        self._check_windows()

    def _check_sizes(self) -> None:
        sizes = ("vocab_size", "d_model", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "d_ff"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads "
                f"({self.num_kv_heads})"
            )
        for name in ("head_dim", "rotary_dim"):
            size = getattr(self, name)
            if size is not None and (size % 2 or not 0 < size <= self.head_dim):
                raise ValueError(
                    f"{name} must be even for RoPE and at most head_dim, not {size}"
                )
        if (scaling := self.rope_scaling) is not None and scaling.kind == "longrope":
            pairs = (self.rotary_dim or self.head_dim) // 2
            if {len(scaling.short_factor), len(scaling.long_factor)} != {pairs}:
                raise ValueError(
                    f"longrope needs a factor for each of the {pairs} pairs that "
                    f"rotate, not {len(scaling.short_factor)} and "
                    f"{len(scaling.long_factor)}"
                )
        caps = ("query_scalar", "attention_softcap", "logit_softcap")
        for name in ("rope_theta", "local_rope_theta", *caps):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")

    def _check_windows(self) -> None:
        pattern, window = self.layer_pattern, self.sliding_window
        if not pattern or set(pattern) - {"g", "l"} or len(pattern) > self.num_layers:
            raise ValueError(
                f"layer_pattern must be 1 to {self.num_layers} letters g or l, "
                f"not {pattern!r}"
            )
        if ("l" in pattern) != (window is not None):
            raise ValueError(
                f"layer_pattern {pattern!r} and sliding_window {window} disagree: "
                "layers l have a window, and nothing else has"
            )
        if window is not None and window < 1:
            raise ValueError(f"sliding_window must be at least 1, not {window}")
        if self.local_rope_theta is not None and window is None:
            raise ValueError("local_rope_theta needs layers with a window")

    def computes_as(self, other: DecoderConfig) -> bool:
        """Whether both give the same: how they compute it aside."""
        how = {"remat": other.remat, "attention": other.attention}
        return dataclasses.replace(self, **how) == other

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """Which layers have a window."""
        pattern = self.layer_pattern
        return tuple(pattern[i % len(pattern)] == "l" for i in range(self.num_layers))

    @property
    def switches_rope(self) -> bool:
        """Whether a row's rotary angles depend on how long it is."""
        return self.rope_scaling is not None and self.rope_scaling.kind == "longrope"

    @property
    def reads_branches(self) -> bool:
        """Whether it reads rows that branch: columns as distances it does not need."""
        return not any(self.local_layers) and not self.switches_rope

    @property
    def mixes_layers(self) -> bool:
        """Whether some layers have a window and some have not."""
        return len(set(self.local_layers)) == 2


def attention_refusal(config: DecoderConfig, kernel: str) -> str:
    """Why a kernel of attention cannot do a model; "" where it can."""
    cap, size = config.attention_softcap, config.head_dim
    if cap is not None and kernel in ("dot_product_attention", "cudnn"):
        return f"has no soft cap: use 'einsum' with attention_softcap={cap}"
    if kernel == "splash" and size % 64:
        return f"needs head_dim to be a multiple of 64, not {size}: use 'einsum'"
    if kernel == "cudnn" and (size % 8 or size > 256):
        return f"needs head_dim to be a multiple of 8 up to 256, not {size}"
    if kernel == "cudnn" and config.dtype != "bfloat16":
        return f"needs dtype='bfloat16', not {config.dtype!r}"
    return ""


def _among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        listed = ", ".join(allowed[:-1]) + " or " + allowed[-1]
        raise ValueError(f"{name} must be {listed}, not {value!r}")
