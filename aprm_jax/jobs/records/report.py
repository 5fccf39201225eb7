"""`report`: a page and a summary of whatever a run has made."""

from __future__ import annotations

import dataclasses

from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The page."""

    title: str = setting("", '"" = the config\'s name')


JOB = Job(
    name="report",
    place=60,
    purpose="write report.html and summary.json, and print the main table",
    group="report",
    settings=ReportConfig,
    run=Lazy("report:run"),
    needs=(),
    reads=("",),
    outputs=(),
    redone="always",
)
