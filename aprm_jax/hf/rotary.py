"""Rotary settings: transformers' `rope_parameters` to ours, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.config_fields import LAYER_TYPES, short
from aprm_jax.models.architecture import ROPE_KINDS, DecoderConfig, RopeScaling

# Of each kind of rotary scaling, what `RopeScaling` and transformers call the same.
_FIELDS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "truncate"),
    "longrope": ("attention_factor", "short_factor", "long_factor"),
}


def rotary_fields(family: str, read: Any) -> dict[str, Any]:
    """The rotary fields of a `DecoderConfig`, from a config as transformers read it."""
    given = read.rope_parameters
    nested = {kind: given[kind] for kind in LAYER_TYPES if given.get(kind) is not None}
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


def rope_parameters(config: DecoderConfig, family: str) -> dict[str, Any]:
    """The `rope_parameters` that say what the rotary fields of `config` say."""
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


def _real(settings: Mapping[str, Any], name: str) -> float:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedModelError(f"{name}={short(repr(value))} is no number")
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
