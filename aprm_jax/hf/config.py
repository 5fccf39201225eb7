"""`config.json` to a `DecoderConfig`; what we cannot run is refused by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aprm_jax.hf import gguf
from aprm_jax.hf.architectures import LANGUAGE_HEAD, UnsupportedModelError, identify
from aprm_jax.hf.config_fields import (
    ACTIVATIONS,
    LAYER_TYPES,
    check_fields,
    check_options,
    model_type_of,
    parsed,
)
from aprm_jax.hf.rotary import rotary_fields
from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.io import read_object


def read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The `config.json` of a model's directory, or what a GGUF file says instead.

    Raises:
      FileNotFoundError: there is no such directory or no config in it.
      UnsupportedModelError: a GGUF file of an architecture that we do not have.
      ModelFileError: the file is not a JSON object.
    """
    if gguf.is_gguf(directory):
        return gguf.read_description(directory)
    path = Path(directory) / "config.json"
    if not path.is_file():
        reason = "no such directory" if not path.parent.is_dir() else "no such file"
        raise FileNotFoundError(
            f"{path}: {reason}; a Hugging Face model is a directory with config.json, "
            "*.safetensors and a tokenizer"
        )
    return read_object(path)


def has_logits(config: Mapping[str, Any]) -> bool:
    """Whether a model says something about the next token.

    It has an LM head, or is a backbone whose config ties one to its embedding.

    Raises:
      UnsupportedModelError: the architecture is none of ours, or no config of it.
    """
    family, head = identify(config)
    text = config.get("text_config", config)
    tied = parsed(model_type_of(family, text), text).tie_word_embeddings
    return head == LANGUAGE_HEAD or bool(tied)


def decoder_config(
    config: Mapping[str, Any],
    *,
    dtype: str = "float32",
    param_dtype: str = "float32",
    remat: str = "none",
) -> DecoderConfig:
    """The backbone that a `config.json` describes.

    A model without an LM head (a PRM, a bare backbone) comes out tied, so that no head
    is looked for.

    Args:
      config: `config.json`, parsed.
      dtype: of activations.
      param_dtype: of parameters, whatever the files hold.
      remat: see `DecoderConfig`.

    Raises:
      UnsupportedModelError: the architecture, or an option of it, is one that the
        decoder cannot run; nothing but the config has been read.
    """
    family, head = identify(config)
    text = config.get("text_config", config)
    check_options(text, config)
    read = parsed(model_type_of(family, text), text)
    check_fields(read, text)
    try:
        return DecoderConfig(
            vocab_size=read.vocab_size,
            d_model=read.hidden_size,
            num_layers=read.num_hidden_layers,
            num_heads=read.num_attention_heads,
            num_kv_heads=read.num_key_value_heads,
            head_dim=getattr(read, "head_dim", None)
            or read.hidden_size // read.num_attention_heads,
            d_ff=read.intermediate_size,
            norm_eps=float(read.rms_norm_eps),
            tie_embeddings=bool(read.tie_word_embeddings) or head != LANGUAGE_HEAD,
            dtype=dtype,
            param_dtype=param_dtype,
            remat=remat,
            activation=_activation(family, read),
            **_attention(family, read),
            **_windows(family, read),
            **rotary_fields(family, read),
            **_gemma(family, read),
        )
    except UnsupportedModelError:
        raise
    except ValueError as error:
        raise UnsupportedModelError(f"{family}: {error}") from None


def _activation(family: str, read: Any) -> str:
    gemma = family.startswith("gemma") and read.hidden_activation
    name = gemma or read.hidden_act
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"activation {name!r} is not supported; {', '.join(ACTIVATIONS)} are"
        )
    return ACTIVATIONS[name]


def _attention(family: str, read: Any) -> dict[str, Any]:
    # The other families' classes have the field, if at all, and compute without it.
    asked = family in ("llama", "qwen3", "gemma2", "gemma3") and read.attention_bias
    bias = "all" if asked else "none"
    return {
        "attention_bias": "qkv" if family == "qwen2" else bias,
        "qk_norm": family in ("qwen3", "gemma3"),
    }


def _windows(family: str, read: Any) -> dict[str, Any]:
    window = getattr(read, "sliding_window", None)
    if family == "llama":  # whatever its config names, transformers has no window
        return {}
    types = getattr(read, "layer_types", None)
    if family == "phi3" or not types:  # whatever the types of a Phi-3
        types = ["full_attention" if window is None else "sliding_attention"]
    if unknown := sorted(set(types) - LAYER_TYPES.keys()):
        raise UnsupportedModelError(f"layer type {unknown[0]!r} is not supported")
    letters = "".join(LAYER_TYPES[kind] for kind in types)
    return {
        "layer_pattern": _period(letters),
        "sliding_window": window if "l" in letters else None,
    }


def _period(letters: str) -> str:
    """The shortest start of the letters that the rest repeats."""
    count = len(letters)
    repeats = (
        letters[:size]
        for size in range(1, count + 1)
        if (letters[:size] * count)[:count] == letters
    )
    return next(repeats)


def _gemma(family: str, read: Any) -> dict[str, Any]:
    """What the Gemmas have and the others have not."""
    if family not in ("gemma2", "gemma3"):
        return {}
    scalar = float(read.query_pre_attn_scalar)
    if family == "gemma3" and read.attn_logit_softcapping is not None:
        # transformers' Gemma 3 has the field and computes without it.
        raise UnsupportedModelError(
            f"attn_logit_softcapping={read.attn_logit_softcapping} of Gemma 3 is not "
            "supported"
        )
    return {
        "query_scalar": None if scalar == read.head_dim else scalar,
        "attention_softcap": read.attn_logit_softcapping,
        "logit_softcap": read.final_logit_softcapping,
        "post_norms": True,
        "unit_offset_norms": True,
        "scale_embeddings": True,
    }
