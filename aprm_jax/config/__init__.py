"""The config: its schema, its fields by name, and its checks.

A file under `configs/` starts from `default_config()` and changes what it needs. The
result is locked: a misspelt or ill-typed field fails before anything is compiled, and
`validate` checks what types cannot say.
"""

from aprm_jax.config.fields import (
    ConfigError,
    flat,
    for_stage,
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
from aprm_jax.config.validation import validate

__all__ = [
    "EXPORT_FORMATS",
    "ConfigError",
    "Job",
    "Setting",
    "check_arg",
    "default_config",
    "drop_overrides",
    "finished_models",
    "flat",
    "for_stage",
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
]
