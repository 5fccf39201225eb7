"""`sft`: a solver on solutions, or a Generator on the perturbation format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.fields import ConfigError, among_stages
from aprm_jax.config.job import Curves, Job, Lazy
from aprm_jax.config.roles import alike
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config


@dataclasses.dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning."""

    task: str = setting(
        "solve",
        '"solve": next step; "perturb": the Generator\'s format',
        choices=("solve", "perturb"),
    )
    init_from: str = setting("", 'stage or directory of a model; "" = from scratch')
    data: str = setting(
        "",
        "solve: a prepare stage or its folder; a search stage or its file, whose right "
        'solutions are learned; "" = the domain\'s corpus',
    )
    updates: int = setting(3500, "updates in all", least=1)
    batch_size: int = setting(
        16,
        "solutions (solve), perturbations (perturb) or packed rows (data, labelled) "
        "an update",
        least=1,
    )
    microbatches: int = setting(
        1, "parts of a batch, one after the other: less memory", least=1
    )
    learning_rate: float = setting(1.5e-3, "of AdamW, its peak", above=0)
    warmup: int = setting(100, "updates until the peak", least=0)
    weight_decay: float = setting(0.01, "of AdamW", least=0)
    clip_norm: float = setting(1.0, "largest norm of a gradient", above=0)
    solver_share: float = setting(
        1.0,
        "perturb: share of targets that are the solver's own wrong samples (the oracle "
        "says so), of labelled solutions what people call wrong; the rest are static "
        "corruptions",
        least=0,
        most=1,
    )
    pool: int = setting(2048, "perturb: how many such samples are drawn, once", least=1)


def _validate(config: Config) -> None:
    c = config.sft
    if c.data and c.task != "solve":
        raise ConfigError(f"sft.data={c.data!r} needs sft.task='solve'")


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    c = config.sft
    if c.init_from:
        yield "sft.init_from", c.init_from
    yield from among_stages(config, "sft.data", [c.data])
    drawn = c.task == "perturb" and c.solver_share > 0
    if drawn and not alike(config, "solver", "generator"):  # else G starts as it
        yield "prm.solver", config.prm.solver


JOB = Job(
    name="sft",
    place=10,
    purpose="fine-tune a solver on solutions, or a Generator on wrong steps",
    group="sft",
    settings=SftConfig,
    run=Lazy("sft:run"),
    beside=True,
    together=True,
    check=Lazy("sft:check"),
    validate=_validate,
    sources=_sources,
    reads=("prm.solver",),
    judges=lambda config: config.sft.task == "perturb",
    given=("sft.data",),
    length="sft.updates",
    shown=(("loss", "loss"), ("tokens/s", "tokens")),
    less_memory="a smaller sft.batch_size or more sft.microbatches",
    charts=(Curves("Loss, nats a token", {"": "loss"}),),
)
