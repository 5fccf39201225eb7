"""Fields by their dotted names, and what a stage changes of them."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from aprm_jax.config.errors import UserError
from aprm_jax.config.groups import CommonConfig
from aprm_jax.config.job import jobs

_STAGE = re.compile(r"\w[\w-]*")  # also a folder, and a part of dotted names
_TAKEN = ("quarantine", "tokenizer")  # folders of the run itself

AnyConfig = ml_collections.ConfigDict | CommonConfig


class ConfigError(UserError, ValueError):
    """A field of the config is wrong; the message names it and what would be right."""


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted field name -> value of a config, a group or nested mappings, in order."""
    tree = vars(config) if dataclasses.is_dataclass(config) else config
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name == "overrides":
            is_dict = isinstance(value, ml_collections.ConfigDict)
            out[name] = value.to_dict() if is_dict else value
        elif isinstance(value, (ml_collections.ConfigDict, dict)):
            out.update(flat(value, f"{name}."))
        else:
            inside = dataclasses.is_dataclass(value)
            out.update(flat(value, f"{name}.") if inside else {name: value})
    return out


def override(
    config: ml_collections.ConfigDict, stage: str, fields: Mapping[str, Any]
) -> None:
    """Sets dotted fields for one stage alone.

    They are kept nested: `override(c, "generator", {"sft.updates": 300})` may be
    changed again by `--config.overrides.generator.sft.updates=200`.
    """
    known = flat(config)
    with config.unlocked():
        for name, value in fields.items():
            *path, leaf = f"{stage}.{name}".split(".")
            node = config.overrides
            for key in path:
                if key not in node:
                    node[key] = ml_collections.ConfigDict()
                node = node[key]
            node[leaf] = fitting(known, name, value)


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the closest of `names`, or nothing."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def set_field(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets a dotted field; an unknown name or another type is a ConfigError."""
    value = fitting(flat(config), name, value)
    *path, leaf = name.split(".")
    node = config
    for key in path:
        node = node[key]
    with node.unlocked():
        node[leaf] = value


def fitting(known: Mapping[str, Any], name: str, value: Any) -> Any:
    """A value for a dotted field, of the type that it has in `known`.

    Raises:
      ConfigError: there is no such field, or the value is of another type.
    """
    if name not in known:
        raise ConfigError(f"unknown config field {name!r}.{nearest(name, list(known))}")
    old = known[name]
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(old) is not type(value):
        raise wrong_type(name, old, value)
    return value


def wrong_type(name: str, default: Any, value: Any) -> ConfigError:
    """The error of a value whose type is not the default's."""
    return ConfigError(
        f"config field {name!r} takes {type(default).__name__} "
        f"(default {default!r}), not {type(value).__name__} {value!r}"
    )


def stages(config: AnyConfig) -> list[tuple[str, str]]:
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
        if not _STAGE.fullmatch(name) or name in _TAKEN:
            raise ConfigError(
                f"stages: {name!r} of {stage!r} is the name of a folder in the run's "
                "own: letters, digits, _ and - alone, and none of "
                f"{', '.join(_TAKEN)}"
            )
        out.append((name, job))
    names = [name for name, _ in out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"stages: {twice[0]!r} stands there twice")
    return out


def among_stages(
    config: CommonConfig, field: str, names: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """(field, name) of those names that are stages of the run, or in their folders."""
    known = {str(stage).partition(":")[0] for stage in config.stages}
    for name in names:
        if name.partition("/")[0] in known:
            yield field, name
