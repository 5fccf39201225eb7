"""`report`: a page and a summary of whatever a run has made."""

from __future__ import annotations

import dataclasses
import os

from aprm_jax.config.fields import ConfigError
from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The page."""

    title: str = setting("", '"" = the config\'s name')
    runs: tuple[str, ...] = setting(
        (),
        "folders of runs to compare: comparison.html has them side by side, those that "
        "differ in their seed alone as one, if their data files are the same",
    )


def _check_runs(config: Config) -> None:
    runs = [os.path.normpath(folder) for folder in config.report.runs]
    if len(runs) == 1 or len(set(runs)) < len(runs):
        raise ConfigError(
            f"report.runs={','.join(runs)}: name two folders or more, each once"
        )


JOB = Job(
    name="report",
    place=60,
    purpose="write report.html and summary.json, print the main table, compare runs",
    group="report",
    settings=ReportConfig,
    run=Lazy("report:run"),
    check=Lazy("comparison:check"),
    validate=_check_runs,
    needs=(),
    reads=("",),
    outputs=(),
    redone="always",
)
