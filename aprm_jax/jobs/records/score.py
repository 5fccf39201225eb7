"""`score`: the step scores of a file of solutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.fields import ConfigError, among_stages
from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What is scored, and by whom."""

    input: str = setting("", "file of solutions, JSONL for one of any size")
    output: str = setting("", '"" = in the stage\'s folder, named after the input')
    verifiers: tuple[str, ...] = setting(
        ("aprm",),
        "one, or several that are combined: a stage, a model's folder, an export, a "
        'PRM of the hub, "likelihood:SOLVER", "scores:FILE", "oracle" (the domain\'s), '
        "a server's address (docs/endpoints.md)",
    )
    combine: str = setting(
        "mean",
        "of several verifiers' probabilities",
        choices=("mean", "min", "product"),
    )
    text: str = setting("", 'field of a solution in one text; "" = a list of steps')
    split: str = setting(
        "lines", "what the steps of such a text are", choices=("lines", "paragraphs")
    )
    batch: int = setting(256, "rows that are held at once, at most", least=1)


def stage_sources(
    config: Config, group: str, field: str = "verifiers"
) -> Iterator[tuple[str, str]]:
    """Those of a group's verifiers that are stages of the run."""
    named = getattr(getattr(config, group), field)
    names = (named,) if isinstance(named, str) else named
    sources = [name.removeprefix("likelihood:") for name in names]
    return among_stages(config, f"{group}.{field}", sources)


def check_verifiers(config: Config, group: str) -> None:
    """There is one."""
    if not getattr(config, group).verifiers:
        raise ConfigError(f"{group}.verifiers is empty: name a PRM's stage or folder")


JOB = Job(
    name="score",
    place=44,
    purpose="score the steps of a file of solutions",
    group="score",
    settings=ScoreConfig,
    run=Lazy("score:run"),
    check=Lazy("score:check"),
    validate=lambda config: check_verifiers(config, "score"),
    needs=(),
    sources=lambda config: stage_sources(config, "score"),
    reads=("",),
    given=("score.input", "score.verifiers"),
    writes=Lazy("score:writes"),
    outputs=(),
    redone="asked",
    less_memory="a smaller score.batch",
)
