"""`select`: the best of the candidate solutions of each question."""

from __future__ import annotations

import dataclasses

from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.jobs.records.score import ScoreConfig, check_verifiers, stage_sources


@dataclasses.dataclass(frozen=True)
class SelectConfig(ScoreConfig):
    """What is chosen from, and how."""

    text: str = setting("", "not read: candidates may be texts or lists of steps")
    pick: str = setting(
        "best",
        "the highest score, the answer with the largest sum of scores, or the most "
        "frequent answer",
        choices=("best", "vote", "majority"),
    )
    aggregation: str = setting(
        "",
        "a candidate's score from its steps'; \"\" = the verifier's own: min, of one "
        "that was trained on outcomes last",
        choices=("", "min", "product", "mean", "last"),
    )
    answers: str = setting(
        "auto",
        "what a candidate's answer is: stated or else its last line, stated (#### or a "
        "box) alone, or as the run's domain has it",
        choices=("auto", "stated", "domain"),
    )


JOB = Job(
    name="select",
    place=46,
    purpose="choose the best of the candidate solutions of each question in a file",
    group="select",
    settings=SelectConfig,
    run=Lazy("select:run"),
    check=Lazy("select:check"),
    validate=lambda config: check_verifiers(config, "select"),
    needs=(),
    sources=lambda config: stage_sources(config, "select"),
    reads=("",),
    given=("select.input", "select.verifiers"),
    writes=Lazy("select:writes"),
    outputs=(),
    redone="asked",
    less_memory="a smaller select.batch",
)
