"""What a config's steps will need on chips that are elsewhere, and what would fit.

Every step is the job's own compiled function on shapes (`plan_steps`), compiled ahead
of time for the chips (`training.forecast`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from aprm_jax.config import Config, ConfigError, flat, for_stage, stages, with_fields
from aprm_jax.files import atomic_write
from aprm_jax.jobs import plan_steps
from aprm_jax.jobs.context import Context, batch_buckets, log
from aprm_jax.report import markup
from aprm_jax.training import forecast as forecasts
from aprm_jax.training.chips import SHARE_VARIABLE, Topology
from aprm_jax.training.forecast import Forecast
from aprm_jax.training.mesh import make_mesh

FILE, PAGE = "plan.json", "plan.html"
GB = 1e9
# Fields of how many parts a batch is computed in, by the job that has them.
_MICROBATCHES = {
    "sft": "sft.microbatches",
    "prm": "prm.microbatches",
    "aprm": "game.microbatches",
    "teach": "sft.microbatches",
    "pav": "prm.microbatches",
    "rl": "rl.microbatches",
    "attack": "game.microbatches",
}
# Groups of settings that say what is kept of references.
_REFERENCES = {"aprm": "game", "rl": "rl"}
_UNTRAINED = ("evaluate", "search", "score", "select", "sft")
Changes = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A step of a stage.

    Attributes:
      stage: its name.
      job: what the stage runs.
      forecast: of the step, as the config is.
      times: how often the stage runs it, at most; 0 where the config does not say.
      changes: fields that were changed until it fitted; {} where it fits, or nothing
        helps.
      changed: the forecast with them; None where there is none.
    """

    stage: str
    job: str
    forecast: Forecast
    times: int = 0
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
    c = context.config
    found, missing = list(plans(c, context, topology)), list(left_out(c))
    for stage, what in missing:
        log.warning("%s: not planned: %s", stage, what)
    if not found:
        _nothing(c, missing)
    numbers = as_json(c.name, topology, found, missing, c.plan.price)
    atomic_write(context.directory / FILE, json.dumps(numbers, indent=2) + "\n")
    page = _page(c, topology, found, missing)
    atomic_write(context.directory / PAGE, page)
    log.info("%s: %s", context.stage, context.directory / PAGE)
    return {"fits": all(p.forecast.fits for p in found), "not_planned": len(missing)}


def left_out(config: Config) -> Iterator[tuple[str, str]]:
    """(stage, what of it) that computes on devices and is not planned."""
    for name, job in stages(config):
        if config.plan.stages and name not in config.plan.stages:
            if job not in plan_steps.ON_THE_HOST:
                yield name, "plan.stages does not name it"
            continue
        for what in plan_steps.left_out(for_stage(config, name), job):
            yield name, what
    if config.plan.steps:
        yield "every stage", f"steps other than {', '.join(config.plan.steps)}"


def _nothing(config: Config, missing: Sequence[tuple[str, str]]) -> NoReturn:
    if config.plan.steps:
        raise ConfigError(
            f"plan.steps={config.plan.steps!r}: no stage has such a step; there are "
            "update, score, prefill and decode"
        )
    named = ", ".join(config.plan.stages or config.stages)
    if missing:
        why = "; ".join(f"{stage}: {what}" for stage, what in missing)
        raise ConfigError(f"plan: nothing of {named} can be planned ({why})")
    raise ConfigError(f"plan: none of the stages computes on a device: {named}")


def plans(config: Config, context: Context, topology: Topology) -> Iterator[Planned]:
    """Each step of the stages, on the console as it is known."""
    wanted, devices = config.plan.stages, topology.devices()
    for name, job in stages(config):
        if wanted and name not in wanted:
            continue
        own = for_stage(config, name)
        for step, forecast in _steps(
            own, context, name, job, topology, devices, config.plan.steps
        ):
            times = plan_steps.updates(own, job) if step == "update" else 0
            planned = Planned(name, job, forecast, times)
            if not forecast.fits:
                planned = _fitted(planned, own, context, step, topology, devices)
            for line in _lines(planned, topology, config.plan.price):
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
            yield step.name, forecasts.forecast(step, topology, mesh, useful[step.name])


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
    for count, more in enumerate(_remedies(config, planned.job, step, topology)):
        if count == config.plan.tries:
            break
        changes |= more
        stage, job = planned.stage, planned.job
        changed = with_fields(config, changes)
        [(_, forecast)] = _steps(
            changed, context, stage, job, topology, devices, [step]
        )
        if forecast.fits:
            return dataclasses.replace(planned, changes=changes, changed=forecast)
    return planned


def _remedies(
    config: Config, job: str, step: str, topology: Topology
) -> Iterator[Changes]:
    """What needs less memory, the cheapest first; what is so already is left out."""
    c = config
    if step == "update" and c.model.remat != "full":
        yield {"model.remat": "full"}
    if topology.size > 1 and (c.mesh.fsdp, c.mesh.tensor) != (topology.size, 1):
        yield {"mesh.data": 1, "mesh.fsdp": topology.size, "mesh.tensor": 1}
    field = _MICROBATCHES.get(job) if step == "update" else None
    if field is not None:
        parts = flat(c)[field]
        yield {field: 2 * parts}
        yield {field: 4 * parts}
    if step in ("prefill", "decode"):
        yield from _smaller_samples(c, topology)
    full = job == "aprm" and not c.lora.rank
    if full and c.game.moments == "full" and c.game.optimistic and not c.game.b1:
        yield {"game.moments": "factored"}
    held = f"{_REFERENCES[job]}.references" if job in _REFERENCES else ""
    if held and not c.lora.rank and flat(c)[held] == "full":
        yield {held: "int8"}
    # Where nothing is trained beside it, adapters leave as much.
    if not c.lora.rank and job not in _UNTRAINED:
        yield {"lora.rank": 16} | ({held: "full"} if held else {})
    if c.model.dtype != "bfloat16":
        yield {"model.dtype": "bfloat16"}


def _smaller_samples(c: Config, topology: Topology) -> Iterator[Changes]:
    """A copy of the weights over more chips, then fewer rows at once."""
    for chips in sorted({math.gcd(8, topology.size), topology.size}):
        if chips > max(1, c.mesh.sample_tensor):
            yield {"mesh.sample_tensor": chips}
    most = batch_buckets(c.builder.sample_rows, c.builder.buckets[-1])[-1]
    for part in (2, 4):
        if most % part == 0:
            yield {"builder.sample_rows": most // part}


def as_json(
    name: str,
    topology: Topology,
    found: Sequence[Planned],
    missing: Sequence[tuple[str, str]] = (),
    price: float = 0.0,
) -> dict[str, Any]:
    """All that is known, for a file.

    Args:
      name: of the config.
      topology: the chips.
      found: the steps.
      missing: see `left_out`.
      price: dollars a chip-hour; 0 where it is not known.
    """
    return {
        "config": name,
        "topology": topology.name,
        "chips": topology.size,
        "chip": dataclasses.asdict(topology.chip),
        "links": topology.links,
        "memory_share": topology.share,
        "price": price or None,
        "not_planned": [{"stage": stage, "what": what} for stage, what in missing],
        "steps": [
            {
                "stage": p.stage,
                "job": p.job,
                **_json(p.forecast, topology),
                "times": p.times or None,
                "dollars": dollars(p.forecast, topology, price),
                "changes": p.changes,
                "changed": p.changed and _json(p.changed, topology),
            }
            for p in found
        ],
    }


def dollars(
    forecast: Forecast, topology: Topology, price: float
) -> dict[str, float] | None:
    """What a step costs each time: "least", and "serial" if no collective is hidden.

    None where the price is not known, or the step does not fit.
    """
    if not (price and forecast.fits and forecast.time):
        return None
    second = topology.size * price / 3600
    return {"least": second * forecast.time, "serial": second * forecast.serial}


def _json(forecast: Forecast, topology: Topology) -> dict[str, Any]:
    values = forecast.as_json(topology.chip)
    finite = {k: None if v == float("inf") else v for k, v in values.items()}
    return finite


def _lines(planned: Planned, topology: Topology, price: float) -> Iterator[str]:
    """What the console shows of a step."""
    forecast = planned.forecast
    yield f"{planned.stage}/{forecast.name}: {summary(forecast, topology)}"
    held = ", ".join(f"{k} {v / GB:.2f}" for k, v in forecast.holds.items())
    stays = f", of its stage {forecast.beside / GB:.2f}" if forecast.beside else ""
    yield f"  GB a chip: {held}, beside them {forecast.temporaries / GB:.2f}{stays}"
    crossing = ", ".join(
        f"{kind} along {axes} {size / GB:.2f}"
        for axes, kinds in forecast.links.items()
        for kind, size in kinds.items()
        if size >= 0.005 * GB
    )
    if crossing:
        yield f"  GB on the wire a chip: {crossing}"
    if cost := dollars(forecast, topology, price):
        yield f"  {_priced(planned, cost)}"
    if planned.changed is not None:
        changes = " ".join(f"--config.{k}={v}" for k, v in planned.changes.items())
        yield f"  fits with {changes}: {summary(planned.changed, topology)}"
    elif not forecast.fits:
        yield "  and nothing that was tried makes it fit: take more chips"


def summary(forecast: Forecast, topology: Topology) -> str:
    """Memory, time and MFU in a line."""
    room = f"{forecast.peak / GB:.2f} of {forecast.room / GB:.1f} GB a chip"
    if not forecast.fits:
        return f"does not fit: {room}"
    parts = [room, f"{forecast.flops / 1e12:.3g} TFLOP"]
    if forecast.time:
        parts.append(f"at least {1e3 * forecast.time:.3g} ms ({forecast.bound})")
        alone = forecast.mfu(topology.chip, forecast.serial)
        parts.append(f"MFU at most {forecast.mfu(topology.chip):.0%}")
        parts.append(f"{alone:.0%} if no collective is hidden")
    return ", ".join(parts)


def _priced(planned: Planned, cost: Mapping[str, float]) -> str:
    """Dollars of all updates of a stage; of other steps, of a thousand times."""
    times, what = planned.times, f"{planned.times:,} updates cost"
    if not times:
        times, what = 1000, "1,000 times cost"
    least, serial = (times * cost[name] for name in ("least", "serial"))
    return (
        f"{what} at least {_money(least)}, {_money(serial)} if no collective is hidden"
    )


def _money(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.2g}"


def _page(
    config: Config,
    topology: Topology,
    found: Sequence[Planned],
    missing: Sequence[tuple[str, str]],
) -> str:
    price = config.plan.price
    rows = markup.macro("sections.html", "plan")(
        steps=[
            {
                "name": f"{p.stage}: {p.forecast.name}",
                "fits": p.forecast.fits,
                "lines": list(_lines(p, topology, price)),
            }
            for p in found
        ],
        missing=[f"{stage}: {what}" for stage, what in missing],
    )
    subtitle = "compiled ahead of time; times are bounds at the makers' peaks"
    return markup.document(
        f"{config.name} on {topology.name}",
        [("plan", "Steps", rows)],
        subtitle=subtitle,
        headline=_headline(found, missing),
        facts=_facts(topology, price),
    )


def _headline(found: Sequence[Planned], missing: Sequence[tuple[str, str]]) -> str:
    """Whether all fits; never of what was not planned."""
    lacking = sum(not p.forecast.fits for p in found)
    if not missing:
        return f"{lacking} steps do not fit." if lacking else "Every step fits."
    fitting = f"{len(found) - lacking} of {len(found)} planned steps fit"
    return f"{fitting}; what is not planned stands below them."


def _facts(topology: Topology, price: float) -> list[tuple[str, str]]:
    chip = topology.chip
    memory = f"{chip.memory / GB:.1f} GB{_of_share(topology)}"
    facts = [
        ("chips", f"{topology.size} {topology.kind}"),
        ("memory of a chip", f"{memory}, {chip.bandwidth / GB:.0f} GB/s"),
        ("peak", f"{chip.flops / 1e12:.0f} TFLOP/s bfloat16"),
        ("links of a chip", f"{topology.links} of {chip.link / GB:.0f} GB/s"),
    ]
    if price:
        facts.append(("price", f"${price:g} a chip-hour (plan.price)"))
    return facts


def _of_share(topology: Topology) -> str:
    """What of the memory a step may take, where that is not all."""
    if topology.share == 1:
        return ""
    return f", of which JAX hands out {topology.share:.0%} ({SHARE_VARIABLE})"
