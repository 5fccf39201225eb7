"""A config as jobs see it: frozen, and typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from aprm_jax.config.fields import AnyConfig, fitting, flat
from aprm_jax.config.groups import CommonConfig
from aprm_jax.config.job import Job
from aprm_jax.config.schema import config_class, is_read_by
from aprm_jax.config.setting import group_of

if TYPE_CHECKING:  # jobs are found by themselves; their settings' types are known here
    from aprm_jax.config.game import GameConfig
    from aprm_jax.config.rl import RLConfig
    from aprm_jax.jobs.records.attack import AttackConfig
    from aprm_jax.jobs.records.evaluate import EvaluateConfig
    from aprm_jax.jobs.records.export import ExportConfig
    from aprm_jax.jobs.records.pav import PavConfig
    from aprm_jax.jobs.records.plan import PlanConfig
    from aprm_jax.jobs.records.prepare import PrepareConfig
    from aprm_jax.jobs.records.prm import PrmConfig
    from aprm_jax.jobs.records.report import ReportConfig
    from aprm_jax.jobs.records.score import ScoreConfig
    from aprm_jax.jobs.records.search import SearchConfig
    from aprm_jax.jobs.records.select import SelectConfig
    from aprm_jax.jobs.records.sft import SftConfig
    from aprm_jax.jobs.records.teach import TeachConfig

    class Config(CommonConfig):
        """The settings that all jobs share, and a group for each job's own."""

        prepare: PrepareConfig
        sft: SftConfig
        teach: TeachConfig
        prm: PrmConfig
        pav: PavConfig
        game: GameConfig
        rl: RLConfig
        evaluate: EvaluateConfig
        search: SearchConfig
        score: ScoreConfig
        select: SelectConfig
        attack: AttackConfig
        export: ExportConfig
        report: ReportConfig
        plan: PlanConfig
else:
    Config = CommonConfig

T = TypeVar("T")


def frozen(config: AnyConfig) -> Config:
    """The config as a frozen dataclass, whose fields are those of the schema."""
    return _built(config_class(), flat(config))


def with_fields(config: AnyConfig, fields: Mapping[str, Any]) -> Config:
    """The config with other values of some dotted fields.

    Raises:
      ConfigError: there is no such field, or its type is another.
    """
    known = flat(config)
    changed = {name: fitting(known, name, value) for name, value in fields.items()}
    return _built(config_class(), known | changed)


def for_stage(config: AnyConfig, stage: str) -> Config:
    """The config with a stage's overrides applied."""
    return with_fields(config, flat(config.overrides.get(stage, {})))


def as_read_by(config: Config, job: Job) -> Config:
    """The config without the fields that a job does not say it reads.

    So that results depend on what is compared at the next start, and on nothing else.
    """
    values = flat(config).items()
    read = {k: v for k, v in values if k == "overrides" or is_read_by(job, k)}
    return _built(config_class(), read)


def extended(cls: type[T], group: Any, /, **changes: Any) -> T:
    """A group of a config as a subclass of it, with more fields or other values.

    Args:
      cls: a frozen dataclass with the group's fields, and others that have defaults.
      group: where it is of a job that does not read a field, the result is too.
      **changes: these win.

    Raises:
      TypeError: there is no such field.
    """
    names = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(changes) - names):
        raise TypeError(f"{cls.__name__} has no field {', '.join(unknown)}")
    out = object.__new__(cls)
    for name, value in (vars(group) | changes).items():
        object.__setattr__(out, name, value)
    return out


def _built(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass of dotted fields; one without a value is not there at all."""
    out = object.__new__(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        if group := group_of(field):
            object.__setattr__(out, field.name, _built(group, values, f"{name}."))
        elif name in values:
            object.__setattr__(out, field.name, values[name])
    return out
