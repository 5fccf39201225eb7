"""`plan`: what a config needs on chips that are elsewhere, before they are paid for."""

from __future__ import annotations

import dataclasses

from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """Compiling a config's steps ahead of time, for chips that are elsewhere."""

    topology: str = setting(
        "",
        "the chips: v5e:8x8, v6e:4x4, v5p:2x2x4 (libtpu compiles, no TPU is needed) or "
        "gpu:h100x8 (devices of the CPU stand for them)",
    )
    stages: tuple[str, ...] = setting((), "which stages; () = all that train or sample")
    steps: tuple[str, ...] = setting(
        (), "which of their steps: update, score, prefill, decode; () = all"
    )
    tries: int = setting(
        7,
        "where a step does not fit: changes that are tried, each compiled, in the "
        "order remat, mesh, microbatches, moments, references, LoRA, dtype; for "
        "sampling mesh, sample_tensor, rows in place of the others",
        least=0,
    )
    price: float = setting(
        0.0, "dollars a chip-hour, for the cost of steps; 0 = not known", least=0
    )


JOB = Job(
    name="plan",
    place=70,
    purpose="tell memory, time and traffic of every step on chips that are elsewhere",
    group="plan",
    settings=PlanConfig,
    run=Lazy("plan:run"),
    check=Lazy("plan:check"),
    here=False,
    needs=(),
    reads=("",),
    outputs=(),
    redone="asked",
)
