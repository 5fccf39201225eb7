"""What a config is checked for before anything is compiled."""

from __future__ import annotations

import re
from typing import Any

import ml_collections

from aprm_jax.config import schema
from aprm_jax.config.fields import (
    ConfigError,
    flat,
    for_stage,
    nearest,
    stages,
    wrong_type,
)
from aprm_jax.config.schema import AGGREGATIONS, JOBS, default_config

# Field -> what it may be.
CHOICES = {
    "domain.name": schema.DOMAINS,
    "domain.oracle": schema.ORACLES,
    "sft.task": ("solve", "perturb"),
    "prepare.label": schema.PREPARED_LABELS,
    "prepare.contaminated": schema.CONTAMINATED,
    "prm.reading": schema.READINGS,
    "prm.negatives": schema.NEGATIVES,
    "prm.objective": schema.PRM_OBJECTIVES,
    "prm.neutral": schema.NEUTRAL,
    "evaluate.neutral": schema.NEUTRAL[:-1],
    "game.prm_objective": schema.PRM_OBJECTIVES,
    "game.advantage": schema.ADVANTAGES,
    "export.format": schema.EXPORT_FORMATS,
    "model.dtype": ("float32", "bfloat16"),
    "model.param_dtype": ("float32", "bfloat16"),
}
AT_LEAST_ONE = (
    "model.d_model",
    "model.num_layers",
    "model.num_heads",
    "model.num_kv_heads",
    "model.head_dim",
    "model.d_ff",
    "builder.max_steps",
    "builder.max_new_tokens",
    "sft.updates",
    "sft.batch_size",
    "sft.pool",
    "prm.updates",
    "prm.batch_size",
    "game.updates",
    "game.groups",
    "game.group_size",
    "game.generator_rows",
    "game.prm_clean",
    "game.prm_fresh",
    "game.replay_capacity",
    "game.epochs",
    "checkpoint.every",
    "checkpoint.keep_last",
    "checkpoint.max_nonfinite",
    "export.max_shard_size",
    "evaluate.problems",
    "evaluate.bootstrap",
    "evaluate.attack_updates",
    "log_every",
    "domain.dev_count",
    "prepare.ngram",
    "prepare.rows_per_file",
)
AT_LEAST_ZERO = (
    "domain.oracle_workers",
    "prepare.max_tokens",
    "builder.window",
    "lora.rank",
    "game.prm_replay",
    "game.static_probe",
)
SHARES = ("sft.solver_share", "domain.max_bad_share", "prepare.dev_share")


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks what types cannot say.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
    names = [name for name, _ in stages(config)]
    if config.job not in (*JOBS, "pipeline"):
        _one_of("job", config.job, (*JOBS, "pipeline"))
    for stage in config.overrides:
        if stage not in names:
            raise ConfigError(
                f"overrides: no stage is called {stage!r}.{nearest(stage, names)}"
            )
    _check_schema(config)
    _validate_one(config)
    for stage in config.overrides:
        try:
            _validate_one(for_stage(config, stage))
        except ConfigError as error:
            raise ConfigError(f"overrides.{stage}: {error}") from error


def _check_schema(config: ml_collections.ConfigDict) -> None:
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
        if isinstance(default, tuple) and default:
            item = next((v for v in value if type(v) is not type(default[0])), None)
            if item is not None:
                raise ConfigError(
                    f"config field {name!r} takes a tuple of "
                    f"{type(default[0]).__name__} (default {default!r}), and {item!r} "
                    "is none"
                )


def _validate_one(c: ml_collections.ConfigDict) -> None:
    values = flat(c)
    for name, allowed in CHOICES.items():
        _one_of(name, values[name], allowed)
    for name in c.evaluate.aggregations:
        _one_of("evaluate.aggregations", name, AGGREGATIONS)
    _validate_numbers(values)
    _validate_shapes(c)
    _validate_text(c)
    _validate_labels(c)
    _validate_backbones(c)
    if c.game.advantage == "group" and c.game.group_size < 2:
        raise ConfigError(
            "game.group_size must be at least 2 for game.advantage='group', "
            f"not {c.game.group_size}"
        )


def _validate_numbers(values: dict[str, Any]) -> None:
    """Counts, shares and rates, each by itself."""
    for name in AT_LEAST_ONE:
        _at_least(name, values[name], 1)
    for name in AT_LEAST_ZERO:
        _at_least(name, values[name], 0)
    for name in SHARES:
        if not 0 <= values[name] <= 1:
            raise ConfigError(f"{name} is a share in [0, 1], not {values[name]!r}")
    if not 0 < values["prepare.max_overlap"] <= 1:
        raise ConfigError(
            "prepare.max_overlap is a share in (0, 1], not "
            f"{values['prepare.max_overlap']!r}"
        )
    if not values["lora.alpha"] > 0:
        raise ConfigError(f"lora.alpha must be positive, not {values['lora.alpha']!r}")
    for name, value in values.items():
        if name.endswith(("learning_rate", "temperature")) and not value >= 0:
            raise ConfigError(f"{name} must not be negative, is {value!r}")
    samples = values["evaluate.samples"]
    if not samples or min(samples) < 1:
        raise ConfigError(f"evaluate.samples lists the n of best-of-n, not {samples!r}")


def _validate_shapes(c: ml_collections.ConfigDict) -> None:
    """Row lengths, and heads that divide."""
    buckets = c.builder.buckets
    if not buckets or list(buckets) != sorted(set(buckets)):
        raise ConfigError(f"builder.buckets must ascend, not {buckets!r}")
    if c.model.num_heads % c.model.num_kv_heads:
        raise ConfigError(
            f"model.num_kv_heads ({c.model.num_kv_heads}) must divide "
            f"model.num_heads ({c.model.num_heads})"
        )


def _validate_text(c: ml_collections.ConfigDict) -> None:
    """What goes with a domain or a task alone, and regular expressions."""
    if c.domain.oracle == "text" and c.domain.name != "gsm8k":
        raise ConfigError(
            f"domain.oracle='text' needs domain.name='gsm8k', not {c.domain.name!r}"
        )
    if c.sft.data and c.sft.task != "solve":
        raise ConfigError(f"sft.data={c.sft.data!r} needs sft.task='solve'")
    try:
        re.compile(c.lora.targets)
    except re.error as error:
        raise ConfigError(
            f"lora.targets is no regular expression: {c.lora.targets!r}: {error}"
        ) from None


def _validate_labels(c: ml_collections.ConfigDict) -> None:
    """What stages on labelled solutions need of each other's fields."""
    if (c.prm.neutral == "class") != (c.prm.reading == "three_class"):
        raise ConfigError(
            f"prm.neutral={c.prm.neutral!r} and prm.reading={c.prm.reading!r}: a class "
            "of neutral steps needs prm.neutral='class' and prm.reading='three_class'"
        )
    plain = c.prm.objective == "cross_entropy" and c.prm.beta == c.prm.eta == 0
    if c.prm.reading == "three_class" and not plain:
        raise ConfigError(
            "prm.reading='three_class' learns by cross-entropy alone: "
            "prm.objective='cross_entropy', prm.beta=0 and prm.eta=0"
        )
    for field in ("evaluate.sets", "evaluate.scores"):
        entries = flat(c)[field]
        if entries and c.domain.name != "labelled":
            raise ConfigError(f"{field} needs domain.name='labelled'")
        for entry in entries:
            name, _, source = str(entry).partition("=")
            if not name or not source or not name.replace("_", "").isalnum():
                raise ConfigError(
                    f"{field}: {entry!r} must be NAME=SOURCE, the name of letters, "
                    "digits and underscores"
                )
        names = [str(entry).partition("=")[0] for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"{field}: {twice[0]!r} stands there twice")


def _validate_backbones(c: ml_collections.ConfigDict) -> None:
    """What models of Hugging Face need of other fields."""
    named = [r for r in ("solver", "generator", "prm") if c[r].backbone]
    if named and c.builder.line_stride:
        raise ConfigError(
            f"{named[0]}.backbone was trained on contiguous positions: set "
            f"builder.line_stride=0, not {c.builder.line_stride}"
        )
    if c.model.param_dtype != "float32" and not (named and c.lora.rank):
        raise ConfigError(
            f"model.param_dtype={c.model.param_dtype!r}: small updates would be lost "
            "in it. It is for the frozen base of lora.rank > 0 on a backbone"
        )
    if c.evaluate.splits and not c.evaluate.solver and c.domain.name != "labelled":
        raise ConfigError("evaluate.splits needs evaluate.solver, or set both empty")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name} must be one of {', '.join(allowed)}; it is {value!r}."
            f"{nearest(str(value), list(allowed))}"
        )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, not {value!r}")
