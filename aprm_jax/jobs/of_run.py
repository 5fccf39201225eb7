"""The config of a run that was started before, as a config file: `FILE:RUN`.

The command takes it where `--workdir` is the folder of a run and `--config` is missing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ml_collections

from aprm_jax.config.fields import ConfigError, flat, override, set_field
from aprm_jax.config.schema import default_config, settings
from aprm_jax.files import parse_json
from aprm_jax.training.workdir import check_config

FILE = "config.json"
# What fields were called before.
_RENAMED = {"prm.reading": "prm.head"}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """What `RUN/config.json` says, all stages of it; `arg` is RUN.

    A field that the run did not know yet has its default; one that is no more is
    left out, and said so.

    Raises:
      ConfigError: there is no such file, or it is no config.
      DamagedFileError: it is not what was written.
    """
    path = Path(arg) / FILE
    check_config(path.parent)
    try:
        written = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not the config of a run: {error}") from error
    if not isinstance(written, dict):
        raise ConfigError(f"{path}: not the config of a run: no JSON object")
    config = default_config()
    try:
        overrides = written.pop("overrides", {})
        for name, value in _known(flat(written)).items():
            set_field(config, name, value)
        for stage, changes in overrides.items():
            override(config, stage, _known(flat(changes)))
    except (ConfigError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    # Choices of one start, not the run's.
    config.job, config.report.runs = "pipeline", ()
    return config


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """Under their names of today, without those that this version has no more."""
    fields = {_RENAMED.get(name, name): value for name, value in fields.items()}
    for name in sorted(fields.keys() - settings().keys()):
        logging.getLogger("aprm_jax").warning(
            "%s: this version has no such field, it is left out", name
        )
    return {
        name: _changed(name, value)
        for name, value in fields.items()
        if name in settings()
    }


def _changed(name: str, value: Any) -> Any:
    """The value as this version writes it."""
    if name == "model.remat" and isinstance(value, bool):
        return "full" if value else "none"
    return value
