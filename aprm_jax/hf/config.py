"""`config.json` to a `DecoderConfig` and back; what we cannot run is refused by name.

Defaults and the two spellings of rotary settings (transformers 5's `rope_parameters`,
and `rope_theta` beside `rope_scaling` at the top level) are read by transformers' own
configuration classes, which hold no weights and need no torch.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from aprm_jax.config.errors import UserError
from aprm_jax.hf import gguf
from aprm_jax.models.architecture import ROPE_KINDS, DecoderConfig, RopeScaling
from aprm_jax.models.io import read_object

# Family → transformers' model type and the prefix of its classes.
FAMILIES: dict[str, tuple[str, str]] = {
    "llama": ("llama", "Llama"),
    "mistral": ("mistral", "Mistral"),
    "qwen2": ("qwen2", "Qwen2"),
    "qwen3": ("qwen3", "Qwen3"),
    "gemma2": ("gemma2", "Gemma2"),
    "gemma3": ("gemma3_text", "Gemma3"),
    "phi3": ("phi3", "Phi3"),
}
LANGUAGE_HEAD = "ForCausalLM"
# What may sit on a backbone: an architecture is a family's prefix and one of these.
# Those after the first have no LM head; who reads them adds their heads.
HEADS = (
    LANGUAGE_HEAD,
    "ForTokenClassification",
    "ForProcessRewardModel",  # Qwen2.5-Math-PRM
    "ForPrmModel",  # Skywork-o1-Open-PRM
    "ForRewardModel",
    "Model",
)
_WITH_IMAGES = "Gemma3ForConditionalGeneration"
# transformers' names; the first one of ours is the one that is written.
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
}
# Of each kind of rotary scaling, what `RopeScaling` and transformers call the same.
_FIELDS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "truncate"),
    "longrope": ("attention_factor", "short_factor", "long_factor"),
}
_LETTERS = {"full_attention": "g", "sliding_attention": "l"}
# Fields that say that a model computes something which the decoder does not.
_OPTIONS = (
    "quantization_config",
    "mlp_bias",
    "use_bidirectional_attention",
    "use_mrope",
    "dual_chunk_attention_config",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "per_layer_config",  # fields that differ from layer to layer
    "transformers_weights",  # another file of weights
)
# And those that say so where they are off: transformers takes null for false.
_NEEDED = ("is_causal",)
# The fields of these families' classes in transformers that are read here, and those
# that change no logits. A newer transformers may have others: see `_check_fields`.
_READ = frozenset(
    (
        "architectures",
        "attention_bias",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "hidden_size",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_parameters",
        "sliding_window",
        "tie_word_embeddings",
        "use_sliding_window",
        "vocab_size",
    )
)
_INERT = frozenset(
    (
        "attention_dropout",  # of training, as the other two
        "embd_pdrop",
        "resid_pdrop",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "id2label",  # `prm_layouts` reads it
        "label2id",
        "problem_type",
        "initializer_range",
        "is_encoder_decoder",
        "output_hidden_states",
        "pretraining_tp",
        "return_dict",
        "tie_last_hidden_states",
        "transformers_version",
        "use_cache",
    )
)


class UnsupportedModelError(UserError, ValueError):
    """A model that the decoder cannot run; the message names what is in the way."""


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


def family_of(config: Mapping[str, Any]) -> str:
    """The family ("llama", "qwen2", ...) of a `config.json`.

    Raises:
      UnsupportedModelError: the architecture is none of ours.
    """
    return _identify(config)[0]


def has_language_head(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is a language model's, not a scorer's or a backbone's.

    Raises:
      UnsupportedModelError: the architecture is none of ours.
    """
    return _identify(config)[1] == LANGUAGE_HEAD


def has_logits(config: Mapping[str, Any]) -> bool:
    """Whether a model says something about the next token.

    It has an LM head, or is a backbone whose config ties one to its embedding.

    Raises:
      UnsupportedModelError: the architecture is none of ours, or no config of it.
    """
    family, head = _identify(config)
    text = config.get("text_config", config)
    tied = _parsed(_model_type(family, text), text).tie_word_embeddings
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
    family, head = _identify(config)
    text = config.get("text_config", config)
    _check_options(text, config)
    read = _parsed(_model_type(family, text), text)
    _check_fields(read, text)
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
            **_rope(family, read),
            **_gemma(family, read),
        )
    except UnsupportedModelError:
        raise
    except ValueError as error:
        raise UnsupportedModelError(f"{family}: {error}") from None


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
    activations = {ours: theirs for theirs, ours in [*_ACTIVATIONS.items()][::-1]}
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
        "rope_parameters": _rope_parameters(config, family),
        **_window_fields(config, family),
    }
    known = _config_class(model_type)().to_dict().keys() | {"architectures", "dtype"}
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
    done = {**_parsed(model_type, kept).to_diff_dict(), **kept}
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


def _identify(config: Mapping[str, Any]) -> tuple[str, str]:
    """Family, and what sits on the backbone."""
    model_type, named = config.get("model_type"), config.get("architectures") or []
    if not named:
        by_type = {kind: family for family, (kind, _) in FAMILIES.items()}
        by_type["gemma3"] = "gemma3"
        if model_type not in by_type:
            raise UnsupportedModelError(
                f"no architectures, and model_type {model_type!r} is not one of "
                f"{', '.join(by_type)}"
            )
        return by_type[model_type], LANGUAGE_HEAD
    architecture = named[0]
    if architecture == _WITH_IMAGES:
        if not isinstance(config.get("text_config"), Mapping):
            raise UnsupportedModelError(f"{architecture} without a text_config")
        return "gemma3", LANGUAGE_HEAD
    for family, (kind, prefix) in FAMILIES.items():
        for head in HEADS:
            names = {prefix + head, prefix + "Text" + head}
            if architecture not in names:
                continue
            if model_type not in (None, kind):
                raise UnsupportedModelError(
                    f"architecture {architecture} with model_type {model_type!r}, not "
                    f"{kind!r}"
                )
            return family, head
    prefixes = ", ".join(prefix + LANGUAGE_HEAD for _, prefix in FAMILIES.values())
    own = " (and code of its own, which is never run)" if "auto_map" in config else ""
    raise UnsupportedModelError(
        f"architecture {architecture!r}{own} is not supported; these are: {prefixes}, "
        f"{_WITH_IMAGES} (its text), and the same with {', '.join(HEADS[1:])}"
    )


def _check_options(*given: Mapping[str, Any]) -> None:
    """Refuses what makes a model compute something which the decoder does not."""
    for fields in given:
        for name in _OPTIONS:
            if value := fields.get(name):
                raise UnsupportedModelError(f"{name}={_short(value)} is not supported")
        for name in _NEEDED:
            if not (value := fields.get(name, True)):
                raise UnsupportedModelError(f"{name}={value} is not supported")


def _check_fields(read: Any, given: Mapping[str, Any]) -> None:
    """Refuses what is set of a field that only a newer transformers has."""
    for field in dataclasses.fields(read):
        known = field.name in _READ | _INERT or field.name in _OPTIONS + _NEEDED
        value = given.get(field.name, field.default)
        if not known and value != field.default:
            raise UnsupportedModelError(
                f"{field.name}={_short(value)}: a field that this version of aprm_jax "
                f"does not know, and that transformers' {type(read).__name__} has"
            )


def _model_type(family: str, given: Mapping[str, Any]) -> str:
    """Whose class transformers reads a config with: its `AutoConfig` has one rule."""
    if family == "mistral" and "layer_types" in given:
        return "ministral"
    return FAMILIES[family][0]


def _parsed(model_type: str, fields: Mapping[str, Any]) -> Any:
    """The fields as transformers reads them, its defaults filled in."""
    fields = {key: copy.deepcopy(value) for key, value in fields.items()}
    fields.pop("model_type", None)
    try:
        read = _config_class(model_type)(**fields)
        # As its rotary functions do: now `original_max_position_embeddings` at the top
        # level is an attribute, and goes before the one in `rope_parameters`.
        read.standardize_rope_params()
        return read
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        message = " ".join(str(error).split())
        raise UnsupportedModelError(f"not a {model_type} config: {message}") from None


def _config_class(model_type: str) -> Any:
    # Imported late: it imports torch where that is installed, and only a model of
    # Hugging Face needs it.
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def _activation(family: str, read: Any) -> str:
    gemma = family.startswith("gemma") and read.hidden_activation
    name = gemma or read.hidden_act
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"activation {name!r} is not supported; {', '.join(_ACTIVATIONS)} are"
        )
    return _ACTIVATIONS[name]


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
    if unknown := sorted(set(types) - _LETTERS.keys()):
        raise UnsupportedModelError(f"layer type {unknown[0]!r} is not supported")
    letters = "".join(_LETTERS[kind] for kind in types)
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


def _rope(family: str, read: Any) -> dict[str, Any]:
    given = read.rope_parameters
    nested = {kind: given[kind] for kind in _LETTERS if given.get(kind) is not None}
    if nested and family != "gemma3":
        raise UnsupportedModelError(
            f"rope_parameters of each layer type in a {family} are not supported"
        )
    everywhere = nested.get("full_attention", given)
    local = nested.get("sliding_attention")
    if local is not None and local.get("rope_type", "default") != "default":
        raise UnsupportedModelError(
            f"rope type {local['rope_type']!r} in layers with a window is not supported"
        )
    local_theta = None if local is None else _real(local, "rope_theta")
    return {
        "rope_theta": _real(everywhere, "rope_theta"),
        "rope_scaling": _scaling(everywhere, read),
        "rotary_dim": _rotary_dim(family, filter(None, (everywhere, local)), read),
        "local_rope_theta": local_theta if _has_windows(read) else None,
    }


def _real(settings: Mapping[str, Any], name: str) -> float:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedModelError(f"{name}={_short(repr(value))} is no number")
    return float(value)


def _rotary_dim(
    family: str, settings: Iterable[Mapping[str, Any]], read: Any
) -> int | None:
    for share in {each.get("partial_rotary_factor", 1.0) for each in settings} - {1.0}:
        if family != "phi3":
            raise UnsupportedModelError(
                f"partial_rotary_factor={share} of a {family} is not supported"
            )
        head = getattr(read, "head_dim", None)
        return int((head or read.hidden_size // read.num_attention_heads) * share)
    return None


def _scaling(settings: Mapping[str, Any], read: Any) -> RopeScaling | None:
    """As transformers' `modeling_rope_utils` reads the settings of each kind."""
    kind = settings.get("rope_type", "default")
    if kind == "default":
        return None
    if kind not in ROPE_KINDS:
        raise UnsupportedModelError(
            f"rope type {kind!r} is not supported; default, {', '.join(ROPE_KINDS)} are"
        )
    factor = settings.get("factor")
    if kind == "linear":
        return RopeScaling("linear", float(settings["factor"]))
    original = settings["original_max_position_embeddings"]
    if factor is None:
        factor = read.max_position_embeddings / original
    if kind == "llama3":
        return RopeScaling(
            kind,
            float(factor),
            float(settings["low_freq_factor"]),
            float(settings["high_freq_factor"]),
            original,
        )
    attention = settings.get("attention_factor")
    if attention is None and kind == "yarn":
        attention = _yarn_attention(factor, settings)
    elif attention is None:
        wide = factor > 1.0 and original > 1
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if wide else 1
    own: dict[str, Any] = {
        name: tuple(map(float, settings[name]))
        for name in ("short_factor", "long_factor")
        if kind == "longrope"
    }
    if kind == "yarn":
        own = {
            "beta_fast": float(settings.get("beta_fast") or 32),
            "beta_slow": float(settings.get("beta_slow") or 1),
            # transformers asks the outer settings, whatever the layer's say.
            "truncate": bool(read.rope_parameters.get("truncate", True)),
        }
    return RopeScaling(
        kind,
        max(1.0, float(factor)) if kind == "longrope" else float(factor),
        original_length=original,
        attention_factor=float(attention),
        **own,
    )


def _yarn_attention(factor: float, settings: Mapping[str, Any]) -> float:
    def scale(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    some, every = settings.get("mscale"), settings.get("mscale_all_dim")
    return scale(some) / scale(every) if some and every else scale(1.0)


def _has_windows(read: Any) -> bool:
    return "sliding_attention" in (getattr(read, "layer_types", None) or ())


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


def _rope_parameters(config: DecoderConfig, family: str) -> dict[str, Any]:
    everywhere: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": config.rope_theta,
    }
    if (scaling := config.rope_scaling) is not None:
        everywhere |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind != "linear":
            everywhere["original_max_position_embeddings"] = scaling.original_length
        for name in _FIELDS[scaling.kind]:
            value = getattr(scaling, name)
            everywhere[name] = list(value) if isinstance(value, tuple) else value
    if config.rotary_dim is not None:
        everywhere["partial_rotary_factor"] = config.rotary_dim / config.head_dim
    if family != "gemma3":
        return everywhere
    local = config.local_rope_theta or config.rope_theta
    return {
        "full_attention": everywhere,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def _window_fields(config: DecoderConfig, family: str) -> dict[str, Any]:
    names = {letter: kind for kind, letter in _LETTERS.items()}
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
    if (
        written["architectures"][0].removesuffix(LANGUAGE_HEAD)
        == (written["architectures"][0])
    ):
        ours.add("tie_embeddings")
    wrong = [
        f"{field.name}={_short(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if field.name not in ours
        and getattr(again, field.name) != getattr(config, field.name)
    ]
    if wrong:
        raise UnsupportedModelError(
            f"a {family} config cannot say {', '.join(wrong)}: choose another family"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
