"""The players of a run: which model each is, and which of them are alike."""

from __future__ import annotations

from aprm_jax.config.typed import Config


def name_of(config: Config, role: str) -> str:
    """What the config names for a role; "" for a model from scratch."""
    return getattr(config, role).backbone


def width_of(config: Config, role: str) -> int:
    """`d_model` of a role's model from scratch."""
    return getattr(config, role).d_model or config.model.d_model


def alike(config: Config, one: str, other: str) -> bool:
    """Whether two roles have the same tokenizer, architecture and step builder."""
    if one == other:
        return True
    names = {name_of(config, role) for role in (one, other)}
    if names == {""}:
        return width_of(config, one) == width_of(config, other)
    # A Generator of Hugging Face is told in words what to do: its prompts are its own.
    return len(names) == 1 and "generator" not in (one, other)
