"""What a config's steps will need on chips that are elsewhere, and what would fit.

Every step is the job's own compiled function on shapes (`plan_steps`), compiled ahead
of time for the chips (`training.forecast`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aprm_jax.config import Config, ConfigError, flat, for_stage, stages, with_fields
from aprm_jax.files import atomic_write
from aprm_jax.jobs import plan_steps
from aprm_jax.jobs.context import Context, log
from aprm_jax.report import markup
from aprm_jax.training.chips import SHARE_VARIABLE, Topology
from aprm_jax.training.forecast import Forecast, forecast
from aprm_jax.training.mesh import make_mesh

FILE, PAGE = "plan.json", "plan.html"
GB = 1e9
# Fields of how many parts a batch is computed in, by the job that has them.
_MICROBATCHES = {
    "sft": "sft.microbatches",
    "prm": "prm.microbatches",
    "aprm": "game.microbatches",
}
Changes = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A step of a stage.

    Attributes:
      stage: its name.
      job: what the stage runs.
      forecast: of the step, as the config is.
      changes: fields that were changed until it fitted; {} where it fits, or nothing
        helps.
      changed: the forecast with them; None where there is none.
    """

    stage: str
    job: str
    forecast: Forecast
    changes: Changes = dataclasses.field(default_factory=dict)
    changed: Forecast | None = None


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The topology is one, its compiler is here, and the stages are the config's.

    Raises:
      TopologyError, ConfigError: says what would be right.
    """
    c = context.config
    topology = Topology.of(c.plan.topology)
    known = [name for name, _ in stages(c)]
    for name in c.plan.stages:
        if name not in known:
            raise ConfigError(
                f"plan.stages: no stage is called {name!r}; there are "
                f"{', '.join(known)}"
            )
    topology.prepare()


def run(context: Context) -> dict[str, Any]:
    """Prints a line a step, and writes `plan.json` and `plan.html`."""
    topology = Topology.of(context.config.plan.topology)
    found = list(plans(context.config, context, topology))
    if not found:
        raise ConfigError(
            "plan: none of the stages computes on a device: "
            f"{', '.join(context.config.plan.stages or context.config.stages)}"
        )
    told = as_json(context.config.name, topology, found)
    atomic_write(context.directory / FILE, json.dumps(told, indent=2) + "\n")
    page = _page(context.config.name, topology, found)
    atomic_write(context.directory / PAGE, page)
    log.info("%s: %s", context.stage, context.directory / PAGE)
    return {"fits": all(p.forecast.fits for p in found)}


def plans(config: Config, context: Context, topology: Topology) -> Iterator[Planned]:
    """Each step of the stages, told on the console as it is known."""
    wanted, devices = config.plan.stages, topology.devices()
    for name, job in stages(config):
        if wanted and name not in wanted:
            continue
        own = for_stage(config, name)
        for step, told in _steps(
            own, context, name, job, topology, devices, config.plan.steps
        ):
            planned = Planned(name, job, told)
            if not told.fits:
                planned = _fitted(planned, own, context, step, topology, devices)
            for line in _lines(planned, topology):
                log.info("%s", line)
            yield planned


def _steps(
    config: Config,
    context: Context,
    stage: str,
    job: str,
    topology: Topology,
    devices: Sequence[Any],
    only: Sequence[str] = (),
) -> Iterator[tuple[str, Forecast]]:
    mesh = make_mesh(config.mesh, devices)
    of_stage = Context(config, context.root, stage)
    plain = Context(with_fields(config, {"model.remat": "none"}), context.root, stage)
    useful = {step.name: step for step in plan_steps.programs(plain, job, mesh)}
    for step in plan_steps.programs(of_stage, job, mesh):
        if not only or step.name in only:
            yield step.name, forecast(step, topology, mesh, useful[step.name])


def _fitted(
    planned: Planned,
    config: Config,
    context: Context,
    step: str,
    topology: Topology,
    devices: Sequence[Any],
) -> Planned:
    """The first changes, one after the other and kept, with which a step fits."""
    changes: Changes = {}
    for count, more in enumerate(_remedies(config, planned.job, topology)):
        if count == config.plan.tries:
            break
        changes |= more
        stage, job = planned.stage, planned.job
        changed = with_fields(config, changes)
        [(_, told)] = _steps(changed, context, stage, job, topology, devices, [step])
        if told.fits:
            return dataclasses.replace(planned, changes=changes, changed=told)
    return planned


def _remedies(config: Config, job: str, topology: Topology) -> Iterator[Changes]:
    """What needs less memory, the cheapest first; what is so already is left out."""
    c = config
    if c.model.remat != "full":
        yield {"model.remat": "full"}
    if topology.size > 1 and (c.mesh.fsdp, c.mesh.tensor) != (topology.size, 1):
        yield {"mesh.data": 1, "mesh.fsdp": topology.size, "mesh.tensor": 1}
    field = _MICROBATCHES.get(job)
    if field is not None:
        parts = flat(c)[field]
        yield {field: 2 * parts}
        yield {field: 4 * parts}
    full = job == "aprm" and not c.lora.rank
    if full and c.game.moments == "full" and c.game.optimistic and not c.game.b1:
        yield {"game.moments": "factored"}
    if full:
        yield {"lora.rank": 16}
    if c.model.dtype != "bfloat16":
        yield {"model.dtype": "bfloat16"}


def as_json(name: str, topology: Topology, found: Sequence[Planned]) -> dict[str, Any]:
    """All that is told, for a file."""
    return {
        "config": name,
        "topology": topology.name,
        "chips": topology.size,
        "chip": dataclasses.asdict(topology.chip),
        "links": topology.links,
        "memory_share": topology.share,
        "steps": [
            {
                "stage": p.stage,
                "job": p.job,
                **_json(p.forecast, topology),
                "changes": p.changes,
                "changed": p.changed and _json(p.changed, topology),
            }
            for p in found
        ],
    }


def _json(told: Forecast, topology: Topology) -> dict[str, Any]:
    values = told.as_json(topology.chip)
    finite = {k: None if v == float("inf") else v for k, v in values.items()}
    return finite


def _lines(planned: Planned, topology: Topology) -> Iterator[str]:
    """What the console is told of a step."""
    told = planned.forecast
    yield f"{planned.stage}/{told.name}: {summary(told, topology)}"
    held = ", ".join(f"{k} {v / GB:.2f}" for k, v in told.holds.items())
    yield f"  GB a chip: {held}, beside them {told.temporaries / GB:.2f}"
    crossing = ", ".join(
        f"{kind} along {axes} {size / GB:.2f}"
        for axes, kinds in told.links.items()
        for kind, size in kinds.items()
        if size >= 0.005 * GB
    )
    if crossing:
        yield f"  GB on the wire a chip: {crossing}"
    if planned.changed is not None:
        changes = " ".join(f"--config.{k}={v}" for k, v in planned.changes.items())
        yield f"  fits with {changes}: {summary(planned.changed, topology)}"
    elif not told.fits:
        yield "  and nothing that was tried makes it fit: take more chips"


def summary(told: Forecast, topology: Topology) -> str:
    """Memory, time and MFU in a line."""
    room = f"{told.peak / GB:.2f} of {told.room / GB:.1f} GB a chip"
    if not told.fits:
        return f"does not fit: {room}"
    parts = [room, f"{told.flops / 1e12:.3g} TFLOP"]
    if told.time:
        parts.append(f"at least {1e3 * told.time:.3g} ms ({told.bound})")
        alone = told.mfu(topology.chip, told.serial)
        parts.append(f"MFU at most {told.mfu(topology.chip):.0%}")
        parts.append(f"{alone:.0%} if no collective is hidden")
    return ", ".join(parts)


def _page(name: str, topology: Topology, found: Sequence[Planned]) -> str:
    rows = markup.macro("sections.html", "plan")(
        steps=[
            {
                "name": f"{p.stage}: {p.forecast.name}",
                "fits": p.forecast.fits,
                "lines": list(_lines(p, topology)),
            }
            for p in found
        ]
    )
    lacking = sum(not p.forecast.fits for p in found)
    headline = "Every step fits." if not lacking else f"{lacking} steps do not fit."
    chip = topology.chip
    facts = [
        ("chips", f"{topology.size} {topology.kind}"),
        (
            "memory of a chip",
            f"{chip.memory / GB:.1f} GB{_of_share(topology)}, "
            f"{chip.bandwidth / GB:.0f} GB/s",
        ),
        ("peak", f"{chip.flops / 1e12:.0f} TFLOP/s bfloat16"),
        ("links of a chip", f"{topology.links} of {chip.link / GB:.0f} GB/s"),
    ]
    return markup.document(
        f"{name} on {topology.name}",
        [("plan", "Steps", rows)],
        subtitle="compiled ahead of time; times are bounds at the makers' peaks",
        headline=headline,
        facts=facts,
    )


def _of_share(topology: Topology) -> str:
    """What of the memory a step may take, where that is not all."""
    if topology.share == 1:
        return ""
    return f", of which JAX hands out {topology.share:.0%} ({SHARE_VARIABLE})"
