"""What a `config.json` names: a family, and what sits on its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aprm_jax.config.errors import UserError

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


class UnsupportedModelError(UserError, ValueError):
    """A model that the decoder cannot run; the message names what is in the way."""


def family_of(config: Mapping[str, Any]) -> str:
    """The family ("llama", "qwen2", ...) of a `config.json`.

    Raises:
      UnsupportedModelError: the architecture is none of ours.
    """
    return identify(config)[0]


def has_language_head(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is a language model's, not a scorer's or a backbone's.

    Raises:
      UnsupportedModelError: the architecture is none of ours.
    """
    return identify(config)[1] == LANGUAGE_HEAD


def identify(config: Mapping[str, Any]) -> tuple[str, str]:
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
