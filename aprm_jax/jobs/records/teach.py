"""`teach`: a Generator that is told in words learns to write one wrong step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.job import Curves, Job, Lazy
from aprm_jax.config.roles import alike
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config


@dataclasses.dataclass(frozen=True)
class TeachConfig:
    """Teaching a Generator before the game; batches and optimiser are those of sft."""

    init_from: str = setting(
        "", 'stage or directory of a generator; "" = generator.backbone'
    )
    updates: int = setting(
        200,
        "on corruptions that the oracle calls wrong, before the first round",
        least=1,
    )
    rounds: int = setting(6, "of rejection sampling, at most", least=0)
    round_updates: int = setting(50, "of each round", least=1)
    situations: int = setting(32, "(Q, S, s) that a round's replies are of", least=1)
    group_size: int = setting(4, "replies to each, at temperature 1", least=1)
    prm_from: str = setting(
        "",
        "stage or directory of the R that must believe a reply that is kept; "
        '"" = every wrong one is kept',
    )
    believed: float = setting(
        0.5, "R's probability of correct from which on it does", least=0, most=1
    )
    kept_share: float = setting(
        0.75,
        "of a round's batches: replies kept in rounds so far; the rest are corruptions",
        least=0,
        most=1,
    )
    one_step: float = setting(
        0.8, "share of replies that must be one step; else no game", least=0, most=1
    )
    wrong: float = setting(
        0.5,
        "share of replies that must be decidably wrong; else no game",
        least=0,
        most=1,
    )


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    if config.teach.init_from:
        yield "teach.init_from", config.teach.init_from
    if config.teach.prm_from:
        yield "teach.prm_from", config.teach.prm_from
    own = not alike(config, "solver", "generator")
    if config.sft.solver_share > 0 and own:
        yield "prm.solver", config.prm.solver


JOB = Job(
    name="teach",
    place=15,
    purpose="teach a Generator to write one step that is wrong, before the game",
    group="teach",
    settings=TeachConfig,
    run=Lazy("teach:run"),
    beside=True,
    sources=_sources,
    judges=lambda config: True,
    reads=("sft", "prm.solver", "prm.head"),
    outputs=("model", "rounds"),
    length="teach.updates",
    ends=("teach.rounds", "teach.one_step", "teach.wrong"),
    effort=2.0,
    shown=(("loss", "loss"), ("tokens/s", "tokens")),
    less_memory="more sft.microbatches or a smaller builder.sample_rows",
    charts=(Curves("Loss, nats a token", {"": "loss"}),),
)
