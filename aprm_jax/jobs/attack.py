"""Fresh attackers against frozen PRMs, of an evaluation or any within a budget.

The attacker starts from a Generator and learns to fool one R, which does not learn. Of
an evaluation all R are read as the run reads; of `job=attack` each as it was trained.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from aprm_jax.config import Config, as_read_by, flat, jobs
from aprm_jax.config.addresses import is_address
from aprm_jax.evals import robustness
from aprm_jax.evals.intervals import Interval
from aprm_jax.evals.records import (
    RESULTS,
    Record,
    Results,
    by_name,
    metric_records,
    write_results,
)
from aprm_jax.evals.robustness import SCORE, SEARCHED, SEARCHED_RATE, SET, Siege
from aprm_jax.files import atomic_write, fingerprint, to_json
from aprm_jax.game.arena import Arena, Player
from aprm_jax.game.config import GameConfig
from aprm_jax.hf.builders import open_builder
from aprm_jax.hf.locate import load_any
from aprm_jax.jobs import charts
from aprm_jax.jobs.backbones import BACKBONE
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.given_files import given_problems
from aprm_jax.jobs.parts import Part, keep, kept
from aprm_jax.jobs.records.attack import AttackConfig
from aprm_jax.jobs.row_files import (
    check_names,
    judged_in,
    located,
    published,
    served_verifier,
)
from aprm_jax.jobs.solvers import backbone_weights
from aprm_jax.jobs.spent import Spent
from aprm_jax.jobs.tables import as_text
from aprm_jax.jobs.verifier_tables import cell
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.lora import LoraConfig
from aprm_jax.report.contents import Chart, Column, ReportData, Row, Series, Table
from aprm_jax.report.page import write_report
from aprm_jax.verifiers.named import fingerprint_of

ATTACK_SEED = 1_000_003  # no training run uses it
PAGE = "attack.html"
AT = "fool_rate@"  # and the oracle's calls: names of the points of a curve


def attack_prm(context: Context, name: str) -> Part:
    """What becomes of a PRM of `evaluate.attack_prms` in `evaluate.attack_updates`."""
    c = context.config
    prm, spec = context.of("prm").load(
        name, "evaluate.attack_prms", "prm", any_size=True
    )
    assert spec.head is not None

    def progress(done: int, rates: dict[str, float]) -> None:
        if done % c.log_every == 0:
            log.info("attack on %s: round %d %s", name, done, rates)

    rates = robustness.attack(
        context.arena_of(spec),
        _game(context, c.evaluate.attack_learning_rate, c.evaluate.attack_updates),
        generator=_generator(context, c.game.generator_from, "game.generator_from"),
        prm=prm,
        head=spec.head,
        seed=ATTACK_SEED + c.seed,
        progress=progress,
    )
    if rates["diverged"]:
        rate = c.evaluate.attack_learning_rate
        _say_diverged(name, f"evaluate.attack_learning_rate={rate:g}")
    return kept(metric_records(SET, "", name, rates))


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The verifiers may be there.

    Raises:
      UnknownVerifierError: names what is not, and what would be right.
    """
    check_names(context, earlier, "attack", context.config.attack.verifiers)


def run(context: Context) -> dict[str, Any]:
    """Attacks each verifier, a part each, and writes the figures and the page."""
    c = context.config.attack
    parts = {}
    for name in c.verifiers:
        parts[name] = piece(context, name)
        context.spent.add(Spent(**parts[name]["spent"]))
    records = [Record.from_json(r) for part in parts.values() for r in part["records"]]
    write_results(context.directory / RESULTS, records)
    atomic_write(context.directory / "summary.json", to_json(by_name(records)))
    page = context.directory / PAGE
    table = _main_table(c, Results(records))
    write_report(page, _page(context, parts, table, records))
    log.info("\n%s\n\nreport:  %s", as_text(table), page)
    return {}


def piece(context: Context, name: str) -> Part:
    """The part of one verifier, computed once and kept."""
    place = located(context, name)
    part = f"{name}-{_made_by(context, place)[:12]}"
    return keep(context, part, functools.partial(_besieged, context, name, place))


def _made_by(context: Context, place: str) -> str:
    """What changes where a part does: other weights or settings are another part."""
    c = context.config
    settings = {k: v for k, v in flat(c.attack).items() if k != "verifiers"}
    generator = located(context, c.attack.generator)
    models = [fingerprint_of(place)]
    models.append(
        backbone_weights(c.generator.backbone)
        if generator == BACKBONE
        else fingerprint_of(generator)
    )
    known = [models, settings, dataclasses.asdict(c.game), flat(c.lora), c.seed]
    known += [judged_in(context), flat(c.builder), flat(c.generator)]
    known += [_situations_of(c), c.prompt.generator, c.prm.backbone]
    known += [kind for kind in published(c).values() if kind != "float32"]
    return hashlib.sha256(to_json(known).encode()).hexdigest()


def _situations_of(c: Config) -> list[Any]:
    """What decides on which problems a Generator attacks: the files' contents too."""
    read = as_read_by(c, jobs()["attack"])
    files = [
        (given.field, str(file.relative_to(given.path)), fingerprint(file)["sha256"])
        for given in given_problems(read)
        for file in given.files
    ]
    return [flat(read.domain), files]


def _game(context: Context, learning_rate: float, updates: int) -> GameConfig:
    """The attacker's, which differs from the run's in these."""
    c = context.config
    return GameConfig.of(
        c.game,
        updates=updates,
        generator_learning_rate=learning_rate,
        lora=LoraConfig.of(c.lora),
    )


def _generator(context: Context, source: str, field: str) -> Any:
    return context.of("generator").load(source, field, "generator")[0]


def _say_diverged(name: str, rate: str) -> None:
    log.warning(
        "attack on %s: the attacker's updates are not finite, so nothing was measured "
        "behind them; %s is too high",
        name,
        rate,
    )


def _besieged(context: Context, name: str, place: str) -> Part:
    """One verifier's part."""
    c = context.config
    arena, prm, head = _attacked(context, place)

    def progress(done: int, calls: int, rate: float) -> None:
        if done % c.log_every == 0:
            share = min(calls / c.attack.oracle_calls, 1.0)
            spent = f"round {done}, {calls} oracle calls ({share:.0%})"
            log.info("attack on %s: %s, fool rate %.3f", name, spent, rate)

    siege = robustness.besiege(
        arena,
        _game(context, c.attack.learning_rate, 1),
        generator=_generator(context, c.attack.generator, "attack.generator"),
        prm=prm,
        head=head,
        seed=ATTACK_SEED + c.seed,
        budget=c.attack.oracle_calls,
        points=c.attack.points,
        situations=c.attack.situations,
        progress=progress,
    )
    if siege.diverged:
        rate = c.attack.learning_rate
        _say_diverged(name, f"attack.learning_rate={rate:g}")
    elif siege.calls[-1] < c.attack.oracle_calls:
        log.warning(
            "attack on %s: the attacker repeats itself: %d oracle calls in %d rounds, "
            "not the %d that attack.oracle_calls allows",
            name,
            siege.calls[-1],
            siege.rounds,
            c.attack.oracle_calls,
        )
    return _part(name, siege, c.attack.bootstrap)


def _attacked(context: Context, place: str) -> tuple[Arena, Any, str]:
    """Where a verifier is attacked, its parameters and its head; {} of a server."""
    if is_address(place):
        served = served_verifier(context, place)
        return dataclasses.replace(context.arena, verifier=served), {}, ""
    params, spec, tokenizer = load_any(place, "prm", **published(context.config))
    assert spec.head is not None
    player = Player(open_builder(spec, tokenizer), Decoder(spec.decoder))
    arena = dataclasses.replace(context.arena, prm=player)
    return arena, context.place(params), spec.head


def _part(name: str, siege: Siege, resamples: int) -> Part:
    """The figures of an attack, and what the page shows of it."""
    strongest = siege.probes[siege.strongest]
    values: dict[str, float | Interval] = {
        SCORE: robustness.robustness_score(siege, resamples),
        "fool_rate": strongest.interval(resamples),
        "start_fool_rate": siege.probes[0].interval(resamples),
        "accepted_rate": float(siege.accepted.mean()),
        "success_rate": strongest.rates()["success_rate"],
        "still_correct_rate": strongest.rates()["still_correct_rate"],
        "oracle_calls": float(siege.calls[-1]),
        "diverged": float(siege.diverged),
    }
    if siege.searched is not None:
        values[SEARCHED_RATE] = siege.searched.searched_rate
    for calls, probe in zip(siege.calls, siege.probes, strict=True):
        values[f"{AT}{calls}"] = probe.interval(resamples)
    records = metric_records(SET, "", name, values)
    for kind, (wrong, fooled) in strongest.kinds.items():
        of_kind = {"wrong": float(wrong), "fool_rate": fooled / wrong}
        records += metric_records(SET, "", name, of_kind, part=kind)
    return kept(
        records,
        of=name,
        calls=list(siege.calls),
        examples=list(strongest.examples),
        spent=Spent(oracle_calls=siege.calls[-1]).to_json(),
    )


_COLUMNS = {
    SCORE: Column("robustness", "number", share=True),
    "start_fool_rate": Column("fooled at first", best="min"),
    "fool_rate": Column("fooled by the strongest", best="min"),
    SEARCHED_RATE: Column(f"by the best of {SEARCHED}", best="min"),
    "accepted_rate": Column("right steps accepted"),
    "oracle_calls": Column("oracle calls", "count", ""),
}


def _main_table(c: AttackConfig, results: Results) -> Table:
    return Table(
        title=f"PRMs under attack within {c.oracle_calls} oracle calls",
        columns=list(_COLUMNS.values()),
        rows=[
            Row(name, [cell(results.find(SET, "", name, m)) for m in _COLUMNS])
            for name in c.verifiers
        ],
        corner="Attacked",
        note="Fooled: the share of the attacker's wrong steps that the PRM accepts, at "
        "0.5, where the attacker was strongest. Robustness: the harmonic mean of the "
        "share that it catches and the share of right steps that it accepts. 95 % "
        "intervals over situations; one attacker, so its own variance is not in them.",
    )


def _page(
    context: Context,
    parts: Mapping[str, Part],
    table: Table,
    records: Sequence[Record],
) -> ReportData:
    c, results = context.config, Results(records)
    examples = [
        charts.perturbation(row | {"kind": f"{name}: {row['kind']}"})
        for name, part in parts.items()
        for row in part["examples"]
    ]
    return ReportData(
        title=f"{c.name}: attack",
        subtitle=f"attacker: {c.attack.generator}, {c.attack.oracle_calls} oracle "
        f"calls, seed {c.seed}",
        main_table=table,
        tables=[table for table in [_kinds(results, parts)] if table.rows],
        charts=[_curve(results, parts)],
        perturbations=examples,
        summary=by_name(records),
    )


def _curve(results: Results, parts: Mapping[str, Part]) -> Chart:
    """Fool rate against oracle calls, a line a verifier."""
    series = []
    for name, part in parts.items():
        found = [results.find(SET, "", name, f"{AT}{n}") for n in part["calls"]]
        known = [
            (n, r) for n, r in zip(part["calls"], found, strict=True) if r is not None
        ]
        ends = ([getattr(r, k) for _, r in known] for k in ("value", "low", "high"))
        series.append(Series(name, [n for n, _ in known], *ends))
    return Chart("Wrong steps that fool the PRM", series, "oracle calls")


def _kinds(results: Results, parts: Mapping[str, Part]) -> Table:
    """How often each kind of error passes, where the attacker was strongest."""
    kinds = results.parts(SET, "")
    columns = [
        column
        for name in parts
        for column in (Column(f"{name}: wrong", "count", ""), Column("pass", best=""))
    ]
    rows = [
        Row(
            kind.replace("_", " "),
            [
                cell(results.find(SET, "", name, metric, kind))
                for name in parts
                for metric in ("wrong", "fool_rate")
            ],
        )
        for kind in kinds
    ]
    return Table("Kinds of error that the attacker writes", columns, rows)
