"""`pav`: values of a policy, learned from completions; what progress is measured by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config
from aprm_jax.jobs.records.prm import CHARTS

SAMPLINGS = ("all", "first_pit")


@dataclasses.dataclass(frozen=True)
class PavConfig:
    """Process advantage verifiers: whose values, from how many completions."""

    solver: str = setting(
        "solver", "the base policy, who writes the seed rollouts: stage or directory"
    )
    prover: str = setting(
        "",
        'whose values are learned: another policy, likewise, or "endpoint"; "" = the '
        "base's own, from which those of the best of K follow without a model",
    )
    best_of: int = setting(
        4, "K of the best of K whose fitness as a prover is told", least=1
    )
    problems: int = setting(400, "training questions", least=1)
    n_cov: int = setting(
        4, "seed rollouts a question; small budgets favour many", least=1
    )
    n_mc: int = setting(
        8, "completions of each distinct prefix; large budgets favour many", least=1
    )
    sampling: str = setting(
        "all",
        "which prefixes are completed: of all rollouts, or of wrong ones that pass a "
        "state of high value, up to the first step from which no completion arrives",
        choices=SAMPLINGS,
    )
    high: float = setting(0.5, "first_pit: a high value", least=0, most=1)
    prefixes: int = setting(
        0, "all: so many of a question's, chosen at random; 0 = each", least=0
    )
    temperature: float = setting(1.0, "of rollouts and completions", above=0)
    measured: int = setting(
        32,
        "prover: questions, in all, whose prefixes the base completes too, so that "
        "both can be compared",
        least=1,
    )
    batch: int = setting(
        16, "questions side by side; what a kill loses of the labels", least=1
    )


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    yield "prm.init_from", config.prm.init_from
    yield "pav.solver", config.pav.solver
    if config.pav.prover:
        yield "pav.prover", config.pav.prover


JOB = Job(
    name="pav",
    place=25,
    purpose="learn values of a policy from completions, for progress as reward (PAV)",
    group="pav",
    settings=PavConfig,
    run=Lazy("pav:run"),
    beside=True,
    together=True,
    check=Lazy("pav:check"),
    sources=_sources,
    reads=("prm",),
    outputs=("model", "summary.json"),
    length="prm.updates",
    effort=2.0,
    shown=(
        ("loss", "prm/loss"),
        ("accuracy on high values", "prm/accuracy_correct"),
        ("on low", "prm/accuracy_incorrect"),
    ),
    less_memory="a smaller pav.batch or prm.batch_size, or more prm.microbatches",
    charts=CHARTS,
)
