"""The families of models, as data: which key of a checkpoint is which parameter.

A row is a checkpoint's key, how its axes are made of ours, and the parameters that lie
in it one after the other. Axes are spelt as in einops: a linear map that Hugging Face
stores as [(N H), D], its outputs first and heads merged, is our [D, N, H]. Rows whose
parameters a model has not (biases, an LM head of its own) do not apply to it.

Axes: V vocabulary, D model, N heads, K KV heads, H head size, F feed-forward, L layers.
"""

from __future__ import annotations

LAYERS = "layers/"
_Q, _K, _V = (f"layers/attention/{name}" for name in "qkv")

# Our parameters and their axes; those under LAYERS have L in front.
AXES: dict[str, str] = {
    "embed/embedding": "V D",
    "head/kernel": "D V",
    "final_norm/scale": "D",
    "layers/attention_norm/scale": "D",
    "layers/attention_post_norm/scale": "D",
    "layers/mlp_norm/scale": "D",
    "layers/mlp_post_norm/scale": "D",
    "layers/attention/q/kernel": "D N H",
    "layers/attention/k/kernel": "D K H",
    "layers/attention/v/kernel": "D K H",
    "layers/attention/o/kernel": "N H D",
    "layers/attention/q/bias": "N H",
    "layers/attention/k/bias": "K H",
    "layers/attention/v/bias": "K H",
    "layers/attention/o/bias": "D",
    "layers/attention/q_norm/scale": "H",
    "layers/attention/k_norm/scale": "H",
    "layers/mlp/gate/kernel": "D F",
    "layers/mlp/up/kernel": "D F",
    "layers/mlp/down/kernel": "F D",
}

# Key, then pairs of parameter and how the checkpoint groups its axes. Several pairs
# lie below one another along the checkpoint's first axis.
Row = tuple[str, tuple[tuple[str, str], ...]]

_ENDS: tuple[Row, ...] = (
    ("model.embed_tokens.weight", (("embed/embedding", "V D"),)),
    ("model.norm.weight", (("final_norm/scale", "D"),)),
    ("lm_head.weight", (("head/kernel", "V D"),)),
)
_AT = "model.layers.{layer}."
_OUT: Row = (
    _AT + "self_attn.o_proj.weight",
    (("layers/attention/o/kernel", "D (N H)"),),
)
_DOWN: Row = (_AT + "mlp.down_proj.weight", (("layers/mlp/down/kernel", "D F"),))
_SPLIT: tuple[Row, ...] = (
    (_AT + "self_attn.q_proj.weight", ((f"{_Q}/kernel", "(N H) D"),)),
    (_AT + "self_attn.k_proj.weight", ((f"{_K}/kernel", "(K H) D"),)),
    (_AT + "self_attn.v_proj.weight", ((f"{_V}/kernel", "(K H) D"),)),
    _OUT,
    (_AT + "self_attn.q_proj.bias", ((f"{_Q}/bias", "(N H)"),)),
    (_AT + "self_attn.k_proj.bias", ((f"{_K}/bias", "(K H)"),)),
    (_AT + "self_attn.v_proj.bias", ((f"{_V}/bias", "(K H)"),)),
    (_AT + "self_attn.o_proj.bias", (("layers/attention/o/bias", "D"),)),
    (_AT + "self_attn.q_norm.weight", (("layers/attention/q_norm/scale", "H"),)),
    (_AT + "self_attn.k_norm.weight", (("layers/attention/k_norm/scale", "H"),)),
    (_AT + "mlp.gate_proj.weight", (("layers/mlp/gate/kernel", "F D"),)),
    (_AT + "mlp.up_proj.weight", (("layers/mlp/up/kernel", "F D"),)),
    _DOWN,
)
_FUSED: tuple[Row, ...] = (
    (
        _AT + "self_attn.qkv_proj.weight",
        (
            (f"{_Q}/kernel", "(N H) D"),
            (f"{_K}/kernel", "(K H) D"),
            (f"{_V}/kernel", "(K H) D"),
        ),
    ),
    _OUT,
    (
        _AT + "mlp.gate_up_proj.weight",
        (("layers/mlp/gate/kernel", "F D"), ("layers/mlp/up/kernel", "F D")),
    ),
    _DOWN,
)
_NORMS: tuple[Row, ...] = (
    (_AT + "input_layernorm.weight", (("layers/attention_norm/scale", "D"),)),
    (_AT + "post_attention_layernorm.weight", (("layers/mlp_norm/scale", "D"),)),
)
# The same name is another norm here.
_GEMMA_NORMS: tuple[Row, ...] = (
    (_AT + "input_layernorm.weight", (("layers/attention_norm/scale", "D"),)),
    (
        _AT + "post_attention_layernorm.weight",
        (("layers/attention_post_norm/scale", "D"),),
    ),
    (_AT + "pre_feedforward_layernorm.weight", (("layers/mlp_norm/scale", "D"),)),
    (_AT + "post_feedforward_layernorm.weight", (("layers/mlp_post_norm/scale", "D"),)),
)

TABLES: dict[str, tuple[Row, ...]] = {
    "llama": (*_ENDS, *_SPLIT, *_NORMS),
    "mistral": (*_ENDS, *_SPLIT, *_NORMS),
    "qwen2": (*_ENDS, *_SPLIT, *_NORMS),
    "qwen3": (*_ENDS, *_SPLIT, *_NORMS),
    "gemma2": (*_ENDS, *_SPLIT, *_GEMMA_NORMS),
    "gemma3": (*_ENDS, *_SPLIT, *_GEMMA_NORMS),
    "phi3": (*_ENDS, *_FUSED, *_NORMS),
}
