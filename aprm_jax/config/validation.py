"""What a config is checked for before anything is compiled."""

from __future__ import annotations

import importlib.util
import math
import re
from typing import Any

from aprm_jax.config.addresses import addresses_in, check_url, read_address
from aprm_jax.config.fields import (
    AnyConfig,
    ConfigError,
    flat,
    nearest,
    stages,
    wrong_type,
)
from aprm_jax.config.job import jobs
from aprm_jax.config.schema import default_config, settings
from aprm_jax.config.setting import Setting, items_of
from aprm_jax.config.typed import Config, for_stage, frozen

_ITEM = re.compile(r"tuple\[(\w+), \.\.\.\]")  # type of a field that is a tuple
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
}
_SURROGATE = re.compile("[\ud800-\udfff]")


def validate(config: AnyConfig) -> Config:
    """Checks what types cannot say, and returns the config as jobs see it.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
    names = [name for name, _ in stages(config)]
    known = (*jobs(), "pipeline")
    if config.job not in known:
        raise ConfigError(
            f"job must be one of {', '.join(known)}; it is {config.job!r}."
            f"{nearest(config.job, list(known))}"
        )
    for stage in config.overrides:
        if stage not in names:
            raise ConfigError(
                f"overrides: no stage is called {stage!r}.{nearest(stage, names)}"
            )
    _check_schema(config)
    whole = frozen(config)
    _validate_one(whole)
    for stage in whole.overrides:
        try:
            _validate_one(for_stage(whole, stage))
        except ConfigError as error:
            raise ConfigError(f"overrides.{stage}: {error}") from error
    return whole


def _check_schema(config: AnyConfig) -> None:
    """Every field of the schema is there, of its type, and no other."""
    schema, values = flat(default_config()), flat(config)
    for name in values:
        if name not in schema:
            raise ConfigError(
                f"unknown config field {name!r}.{nearest(name, list(schema))}"
            )
    for name, default in schema.items():
        if name not in values:
            raise ConfigError(f"config field {name!r} is missing")
        value = values[name]
        if type(value) is not type(default):
            raise wrong_type(name, default, value)


def _validate_one(c: Config) -> None:
    values = flat(c)
    for name, setting in settings().items():
        _check_items(setting, values[name])
        _check_limits(setting, values[name])
    _validate_shapes(c)
    _validate_text(c)
    _validate_backbones(c)
    _validate_addresses(c)
    for job in jobs().values():
        job.validate(c)


def _check_items(setting: Setting, value: Any) -> None:
    """Items of a tuple are of its type, and text is such as a file may hold."""
    kind = _ITEM.fullmatch(setting.type)
    allowed = _KINDS[kind[1]] if kind else (type(setting.default),)
    for item in items_of(value):
        if type(item) not in allowed:
            raise ConfigError(
                f"config field {setting.name!r} takes a tuple of "
                f"{allowed[0].__name__} (default {setting.default!r}), and {item!r} "
                "is none"
            )
        if isinstance(item, str) and ("\0" in item or _SURROGATE.search(item)):
            raise ConfigError(
                f"{setting.name}: {item!r} is no text that a file may be named by: "
                "it holds a NUL or a lone surrogate"
            )
    if setting.limits.distinct and (twice := [v for v in value if value.count(v) > 1]):
        raise ConfigError(f"{setting.name}: {twice[0]!r} stands there twice")


def _check_limits(setting: Setting, value: Any) -> None:
    """Choices, counts, shares and rates, each by itself."""
    for item in items_of(value):
        fault = setting.limits.fault(item)
        if fault is None:
            continue
        hint = nearest(str(item), list(map(str, setting.limits.choices)))
        raise ConfigError(f"{setting.name} {fault}{hint}")


def _validate_shapes(c: Config) -> None:
    """Row lengths, and heads that divide."""
    buckets = c.builder.buckets
    if not buckets or list(buckets) != sorted(set(buckets)):
        raise ConfigError(f"builder.buckets must ascend, not {buckets!r}")
    if c.model.head_dim % 2:
        raise ConfigError(
            f"model.head_dim must be even, for its numbers turn in pairs (RoPE), not "
            f"{c.model.head_dim}"
        )
    if c.model.num_heads % c.model.num_kv_heads:
        raise ConfigError(
            f"model.num_kv_heads ({c.model.num_kv_heads}) must divide "
            f"model.num_heads ({c.model.num_heads})"
        )


def _validate_text(c: Config) -> None:
    """What goes with a domain alone, and regular expressions."""
    if c.domain.oracle == "text" and c.domain.name == "arithmetic":
        raise ConfigError(
            "domain.oracle='text' needs a domain of text, such as domain.name='gsm8k', "
            "not 'arithmetic', which has an exact oracle of its own"
        )
    wants_pool = c.domain.oracle == "text" and c.domain.oracle_workers > 0
    if wants_pool and importlib.util.find_spec("math_verify") is None:
        raise ConfigError(
            f"domain.oracle_workers is {c.domain.oracle_workers}, and math-verify is "
            "not installed: pip install 'aprm_jax[pool]', or set it to 0"
        )
    try:
        re.compile(c.lora.targets)
    except re.error as error:
        raise ConfigError(
            f"lora.targets is no regular expression: {c.lora.targets!r}: {error}"
        ) from None


def _validate_backbones(c: Config) -> None:
    """What models of Hugging Face need of other fields."""
    roles = {"solver": c.solver, "generator": c.generator, "prm": c.prm}
    named = [role for role, group in roles.items() if group.backbone]
    if named and c.builder.line_stride:
        raise ConfigError(
            f"{named[0]}.backbone was trained on contiguous positions: set "
            f"builder.line_stride=0, not {c.builder.line_stride}"
        )
    for role, group in roles.items():
        _check_width(c, role, group)
    if c.model.param_dtype != "float32" and not (named and c.lora.rank):
        raise ConfigError(
            f"model.param_dtype={c.model.param_dtype!r}: small updates would be lost "
            "in it. It is for the frozen base of lora.rank > 0 on a backbone"
        )


def _check_width(c: Config, role: str, group: Any) -> None:
    """A role's own width is of a model from scratch, and its heads are whole."""
    width, usual = group.d_model, c.model.d_model
    least = usual // math.gcd(usual, *c.model.in_proportion)
    if width and group.backbone:
        raise ConfigError(
            f"{role}.d_model={width}: {role}.backbone has its own width; set it to 0"
        )
    if width % least:
        raise ConfigError(
            f"{role}.d_model must be a multiple of {least}, not {width}: heads and "
            f"d_ff grow with it, from those of model.d_model={usual}"
        )


def _validate_addresses(c: Config) -> None:
    """Addresses are ones, with nothing secret in them: configs are kept and shown."""
    if c.solver.endpoint:
        ends, key = "a path up to /v1", "endpoint.key_variable"
        check_url(c.solver.endpoint, "solver.endpoint", ends, key)
    for job in jobs().values():
        for field, address in addresses_in(getattr(c, job.group), job.group):
            read_address(address, field)
