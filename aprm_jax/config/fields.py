"""Fields by their dotted names, and what a stage changes of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from aprm_jax.config.errors import UserError
from aprm_jax.config.job import jobs

_NOTHING = ml_collections.ConfigDict()


class ConfigError(UserError, ValueError):
    """A field of the config is wrong; the message names it and what would be right."""


def flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Dotted field name -> value, in the schema's order."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, ml_collections.ConfigDict) and name != "overrides":
            out.update(flat(value, f"{name}."))
        else:
            out[name] = value.to_dict() if name == "overrides" else value
    return out


def override(
    config: ml_collections.ConfigDict, stage: str, fields: Mapping[str, Any]
) -> None:
    """Sets dotted fields for one stage alone.

    They are kept nested: `override(c, "generator", {"sft.updates": 300})` may be
    changed again by `--config.overrides.generator.sft.updates=200`.
    """
    checked = config.copy_and_resolve_references()
    with config.unlocked():
        for name, value in fields.items():
            set_field(checked, name, value)
            *path, leaf = f"{stage}.{name}".split(".")
            node = config.overrides
            for key in path:
                if key not in node:
                    node[key] = ml_collections.ConfigDict()
                node = node[key]
            node[leaf] = flat(checked)[name]


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the closest of `names`, or nothing."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def set_field(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets a dotted field; an unknown name or another type is a ConfigError."""
    known = flat(config)
    if name not in known:
        raise ConfigError(f"unknown config field {name!r}.{nearest(name, list(known))}")
    old = known[name]
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(old) is not type(value):
        raise wrong_type(name, old, value)
    *path, leaf = name.split(".")
    node = config
    for key in path:
        node = node[key]
    with node.unlocked():
        node[leaf] = value


def wrong_type(name: str, default: Any, value: Any) -> ConfigError:
    """The error of a value whose type is not the default's."""
    return ConfigError(
        f"config field {name!r} takes {type(default).__name__} "
        f"(default {default!r}), not {type(value).__name__} {value!r}"
    )


def stages(config: ml_collections.ConfigDict) -> list[tuple[str, str]]:
    """The pipeline as (stage name, job): `"solver:sft"`, or a job's name alone."""
    out = []
    for stage in config.stages:
        name, _, job = str(stage).partition(":")
        job = job or name
        if job not in jobs():
            raise ConfigError(
                f"stages: {stage!r} runs no known job; "
                f"jobs are {', '.join(jobs())}.{nearest(job, list(jobs()))}"
            )
        out.append((name, job))
    names = [name for name, _ in out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"stages: {twice[0]!r} stands there twice")
    return out


def among_stages(
    config: ml_collections.ConfigDict, field: str, names: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """(field, name) of those names that are stages of the run, or in their folders."""
    known = {str(stage).partition(":")[0] for stage in config.stages}
    for name in names:
        if name.partition("/")[0] in known:
            yield field, name


def for_stage(
    config: ml_collections.ConfigDict, stage: str
) -> ml_collections.ConfigDict:
    """The config with a stage's overrides applied."""
    out = config.copy_and_resolve_references()
    for name, value in flat(config.overrides.get(stage, _NOTHING)).items():
        set_field(out, name, value)
    return out
