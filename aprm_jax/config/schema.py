"""The schema of every config: what belongs to no job, and each job's own settings."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import ml_collections

from aprm_jax.config.groups import CommonConfig
from aprm_jax.config.job import Job, jobs
from aprm_jax.config.setting import Setting, settings_of

EXPORT_FORMATS = (
    "auto",
    "causal_lm",
    "token_classification",
    "qwen2_prm",
    "skywork",
    "peft",
    "merged",
)

_READ_BY_ALL = ("prm.backbone", "prm.d_model")  # as those of solver and generator


@functools.cache
def config_class() -> type[CommonConfig]:
    """The frozen dataclass of a whole config."""
    groups = [
        (job.group, job.settings, dataclasses.field(default_factory=job.settings))
        for job in jobs().values()
    ]
    return dataclasses.make_dataclass(
        "Config", groups, bases=(CommonConfig,), frozen=True
    )


def default_config() -> ml_collections.ConfigDict:
    """The full schema with its defaults: the embedded problems, small enough for a CPU.

    It is locked, but its fields may be set. APRM's constants are not published; every
    value here is ours.
    """
    return ml_collections.ConfigDict(dataclasses.asdict(config_class()())).lock()


@functools.cache
def settings() -> dict[str, Setting]:
    """Every field of the schema by its dotted name, `overrides` aside."""
    return {setting.name: setting for setting in settings_of(config_class())}


def group_meaning(name: str) -> str:
    """What a group of fields is about, by its dotted name; "" is the run itself."""
    group: Any = config_class()()
    for part in name.split(".") if name else ():
        group = getattr(group, part)
    return (CommonConfig if not name else type(group)).__doc__ or ""


def is_read_by(job: Job, name: str) -> bool:
    """Whether a job's results may depend on a field, by its dotted name."""
    reads = (*job.reads, *_READ_BY_ALL)
    if "" in reads or any(f"{name}.".startswith(f"{field}.") for field in reads):
        return True
    group = name.partition(".")[0]
    if group in {other.group for other in jobs().values()} - {job.group}:
        return False
    only = settings()[name].only
    return not only or job.name in only
