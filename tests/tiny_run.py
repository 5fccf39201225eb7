"""The config of a run of tiny models, for tests of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aprm_jax.config import (
    Config,
    as_read_by,
    default_config,
    jobs,
    validate,
    with_fields,
)
from aprm_jax.jobs.context import Context

# The architecture is that of `tiny.decoder`.
SMALL = {
    "compilation_cache": "",
    "metrics.tensorboard": False,
    "model.d_model": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.num_kv_heads": 1,
    "model.head_dim": 8,
    "model.d_ff": 32,
    "builder.buckets": (64,),
    "builder.line_stride": 0,
}
# A round of the game that is over soon.
SMALL_GAME = {
    "game.groups": 2,
    "game.group_size": 2,
    "game.generator_rows": 4,
    "game.prm_clean": 2,
    "game.prm_fresh": 2,
    "game.prm_replay": 2,
    "game.static_probe": 0,
}


def dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by names of arguments: `a__b` is `a.b`."""
    return {name.replace("__", "."): value for name, value in fields.items()}


def config(fields: Mapping[str, Any] | None = None, /, **more: Any) -> Config:
    """The defaults with other fields, by dotted name and as arguments; not checked."""
    return with_fields(default_config(), dict(fields or {}) | dotted(more))


def small(fields: Mapping[str, Any], **more: Any) -> Config:
    """The same of tiny models, checked."""
    return validate(config({**SMALL, **fields}, **more))


def at(job: str, config: Config, root: Path, stage: str = "") -> Context:
    """A stage of a run as it is computed: its config has what the job reads alone."""
    return Context(as_read_by(config, jobs()[job]), root, stage or job)
