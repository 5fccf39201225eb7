"""A `DecoderConfig` to a `config.json` that transformers 5 and 4 read alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from aprm_jax.hf.architectures import (
    FAMILIES,
    HEADS,
    LANGUAGE_HEAD,
    UnsupportedModelError,
)
from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.config_fields import (
    ACTIVATIONS,
    LAYER_TYPES,
    config_class,
    parsed,
    short,
)
from aprm_jax.hf.rotary import rope_parameters
from aprm_jax.models.architecture import DecoderConfig


def hf_config(
    config: DecoderConfig, family: str, *, head: str = LANGUAGE_HEAD, **fields: Any
) -> dict[str, Any]:
    """A `config.json` in transformers 5's form for a decoder's weights.

    Args:
      config: the architecture.
      family: whose layout the weights are written in; any decoder that uses none of
        the options is a "llama".
      head: what sits on the backbone, one of `HEADS`.
      **fields: besides, such as `eos_token_id` or `max_position_embeddings`.

    Raises:
      UnsupportedModelError: the family has no field for an option that `config` uses.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, not {head!r}")
    model_type, prefix = FAMILIES[family]
    gated = "hidden_activation" if family.startswith("gemma") else "hidden_act"
    activations = {ours: theirs for theirs, ours in [*ACTIVATIONS.items()][::-1]}
    written: dict[str, Any] = {
        "architectures": [prefix + head],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.attention_bias == "all",
        "query_pre_attn_scalar": config.query_scalar or config.head_dim,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
        gated: activations[config.activation],
        "dtype": config.param_dtype,
        "rope_parameters": rope_parameters(config, family),
        **_window_fields(config, family),
    }
    known = config_class(model_type)().to_dict().keys() | {"architectures", "dtype"}
    kept = {key: value for key, value in written.items() if key in known}
    if family == "phi3":
        kept["partial_rotary_factor"] = (
            1.0 if config.rotary_dim is None else config.rotary_dim / config.head_dim
        )
        if config.rope_scaling is not None:  # its own field wins over the settings'
            kept["original_max_position_embeddings"] = (
                config.rope_scaling.original_length
            )
    if "head_dim" not in known and config.head_dim * config.num_heads != config.d_model:
        kept["head_dim"] = config.head_dim
    # transformers wants ints where a scalar is whole.
    scalar = kept.get("query_pre_attn_scalar")
    if scalar is not None and scalar == int(scalar):
        kept["query_pre_attn_scalar"] = int(scalar)
    kept = {**kept, **fields}
    done = {**parsed(model_type, kept).to_diff_dict(), **kept}
    done |= _older_fields(config, family, done)
    if family == "mistral" and {"g", "l"} <= set(config.layer_pattern):
        # No field of its class, but transformers then reads it as a Ministral.
        done["layer_types"] = written["layer_types"]
    _check_same(config, family, done)
    return done


def _older_fields(
    config: DecoderConfig, family: str, written: Mapping[str, Any]
) -> dict[str, Any]:
    """What transformers 4 reads in the place of `rope_parameters` and `dtype`.

    It passes over fields that it does not know, and would compute with its defaults.
    """
    rope = written["rope_parameters"]
    rope = dict(rope.get("full_attention", rope))
    older: dict[str, Any] = {
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": None,
        "torch_dtype": written["dtype"],
    }
    if family == "gemma3":
        local = written["rope_parameters"]["sliding_attention"]
        older["rope_local_base_freq"] = local["rope_theta"]
    scaling = config.rope_scaling
    if scaling is not None:
        rope.pop("partial_rotary_factor", None)  # a field of its own
        older["rope_scaling"] = rope
    if scaling is not None and scaling.kind == "longrope":
        # Outside its scaling alone does version 4 look for it; version 5 does too.
        older["original_max_position_embeddings"] = scaling.original_length
    if scaling is not None and family == "phi3":
        # Phi-3's class takes three fields, and the attention factor from the lengths.
        # Where they say another one it refuses all fields: better than a wrong factor.
        factor = scaling.factor
        wanted = math.sqrt(1 + math.log(factor) / math.log(scaling.original_length))
        if math.isclose(wanted, scaling.attention_factor, rel_tol=1e-6):
            names = ("short_factor", "long_factor")
            older["rope_scaling"] = {"type": scaling.kind} | {n: rope[n] for n in names}
            longest = round(factor * scaling.original_length)
            older["max_position_embeddings"] = longest
    return older


def _window_fields(config: DecoderConfig, family: str) -> dict[str, Any]:
    names = {letter: kind for kind, letter in LAYER_TYPES.items()}
    pattern = config.layer_pattern
    letters = [pattern[i % len(pattern)] for i in range(config.num_layers)]
    fields: dict[str, Any] = {"sliding_window": config.sliding_window}
    if family in ("gemma2", "gemma3"):
        # A window that no layer uses would be kept; the class default stands instead.
        if config.sliding_window is None:
            fields = {}
    elif family in ("qwen2", "qwen3"):
        fields["use_sliding_window"] = config.sliding_window is not None
        fields["max_window_layers"] = [*letters, "l"].index("l")
    return {**fields, "layer_types": [names[letter] for letter in letters]}


def _check_same(config: DecoderConfig, family: str, written: Mapping[str, Any]) -> None:
    """What was written must read back as what was meant."""
    again = decoder_config(
        written,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        remat=config.remat,
    )
    ours = {"attention", "remat"}  # how a thing is computed, not what
    if not written["architectures"][0].endswith(LANGUAGE_HEAD):
        ours.add("tie_embeddings")
    wrong = [
        f"{field.name}={short(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if field.name not in ours
        and getattr(again, field.name) != getattr(config, field.name)
    ]
    if wrong:
        raise UnsupportedModelError(
            f"a {family} config cannot say {', '.join(wrong)}: choose another family"
        )
