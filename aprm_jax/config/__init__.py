"""The config: its schema, its fields by name, and its checks.

A file under `configs/` starts from `default_config()` and changes what it needs. The
result is locked: a misspelt or ill-typed field fails before anything is compiled.
`validate` checks what types cannot say, and makes of it what jobs are given: a
`Config`, a frozen dataclass with one for each group of fields.
"""

from aprm_jax.config.fields import (
    ConfigError,
    flat,
    nearest,
    override,
    set_field,
    stages,
)
from aprm_jax.config.files import (
    check_arg,
    drop_overrides,
    finished_models,
    is_made_up,
    made_up_folder,
    read_config_file,
    run_local,
    set_stages,
)
from aprm_jax.config.job import Job, jobs
from aprm_jax.config.schema import (
    EXPORT_FORMATS,
    default_config,
    group_meaning,
    is_read_by,
    settings,
)
from aprm_jax.config.setting import Setting, setting
from aprm_jax.config.typed import Config, as_read_by, for_stage, frozen, with_fields
from aprm_jax.config.validation import validate

__all__ = [
    "EXPORT_FORMATS",
    "Config",
    "ConfigError",
    "Job",
    "Setting",
    "as_read_by",
    "check_arg",
    "default_config",
    "drop_overrides",
    "finished_models",
    "flat",
    "for_stage",
    "frozen",
    "group_meaning",
    "is_made_up",
    "is_read_by",
    "jobs",
    "made_up_folder",
    "nearest",
    "override",
    "read_config_file",
    "run_local",
    "set_field",
    "set_stages",
    "setting",
    "settings",
    "stages",
    "validate",
    "with_fields",
]
