"""Turns a workdir into `report.html` and its numbers, and prints the main table.

The numbers are in two files: `results.json` has the records of the evaluation, the ends
of the trainings and the seconds, for programs; `summary.json` the same as one flat map
from dotted names, for people.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from aprm_jax import __version__
from aprm_jax.config import Config, for_stage, jobs, stages
from aprm_jax.data.labelled import NEUTRAL
from aprm_jax.evals.records import (
    RESULTS,
    Results,
    by_name,
    ends_by_name,
    read_results,
    write_results,
)
from aprm_jax.files import atomic_write
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.jobs import charts, comparison, set_tables, tables
from aprm_jax.jobs.aprm import PERTURBATIONS
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.parts import part_path, read_part
from aprm_jax.jobs.rl_tables import rl_tables
from aprm_jax.jobs.search_trees import search_trees
from aprm_jax.jobs.teach import ROUNDS
from aprm_jax.jobs.verifier_tables import GIVEN, Verifier, verifiers
from aprm_jax.models.io import SPEC_FILE
from aprm_jax.report.contents import (
    Perturbation,
    ReportData,
    ScoredStep,
    Solution,
    Table,
    Timing,
)
from aprm_jax.report.page import write_report
from aprm_jax.training.lines import read_lines
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import check_done, done_info, is_done

TIME = "time/"
_LAST = 10  # steps that a final metric is the mean of


def _problems(config: Config) -> str:
    if config.domain.name != "arithmetic":
        return config.domain.name
    if config.domain.modulus:
        return (
            f"arithmetic modulo {config.domain.modulus}: every result is its last digit"
        )
    return "arithmetic in natural numbers, one operation a step"


def run(context: Context) -> dict[str, Any]:
    """Writes both files into the workdir, whatever of the pipeline is there.

    With `report.runs` those of the comparison besides, or alone in a new workdir.
    """
    config, root = context.config, context.root
    if config.report.runs:
        comparison.write(context)
        if not any(is_done(root / name) for name, _ in stages(config)):
            return {}
    for name, job in stages(config):
        if job != "report" and is_done(root / name):
            check_done(root / name)
    trained = {
        name: read_metrics(root / name)
        for name, job in stages(config)
        if jobs()[job].length
    }
    trained = {name: rows for name, rows in trained.items() if rows}
    evaluated = [name for name, job in stages(config) if job == "evaluate"]
    evaluation = root / evaluated[0] if evaluated else None
    shown_as = tables.as_measured(config, evaluated[0]) if evaluated else config
    parts = _parts(shown_as, evaluation) if evaluation is not None else []
    records = _records(shown_as, evaluation, [part["name"] for part in parts])
    more = {
        "training": {name: _ends(rows) for name, rows in trained.items()},
        "seconds": {
            name: sum(phases.values())
            for name, phases in _phases(context, trained).items()
        },
    }
    numbers = by_name(records) | ends_by_name(more["training"])
    numbers |= {f"time.{k}.seconds": value for k, value in more["seconds"].items()}
    numbers |= {
        f"left_out.{name}.{reason}": count
        for name, reasons in _left_out(context).items()
        for reason, count in reasons.items()
    }
    write_results(root / RESULTS, records, more)
    text = json.dumps(numbers, indent=1, sort_keys=True)
    atomic_write(root / "summary.json", text + "\n")
    results = Results(records)
    table = tables.main_table(shown_as, results) if evaluation is not None else None
    game = _game(context, trained)
    shown = sorted(trained, key=lambda name: name != game)  # the game first
    data = ReportData(
        title=config.report.title or config.name,
        subtitle=f"seed {config.seed}, problems: {_problems(config)}",
        facts=_facts(context, trained),
        main_table=table,
        tables=[
            *rl_tables(config, root),
            *(
                tables.more_tables(shown_as, results, _written(trained.get(game or "")))
                if evaluation is not None
                else ()
            ),
            *_further(context, evaluated[1:]),
        ],
        pressure=charts.pressure(shown_as, results),
        charts=[
            *charts.reliability(shown_as, parts),
            *(c for name in shown for c in charts.curves(config, name, trained[name])),
        ],
        progression=charts.progression(trained[game]) if game else None,
        perturbations=_perturbations(root / game) if game else (),
        solutions=_solutions(shown_as, parts),
        trees=search_trees(root),
        timings=[Timing(*phases) for phases in _phases(context, trained).items()],
        summary=numbers,
        config=json.dumps(dataclasses.asdict(config), indent=2),
    )
    write_report(root / "report.html", data)
    if table is not None:
        log.info("\n%s\n", tables.as_text(table))
    log.info("summary: %s", root / "summary.json")
    log.info("report:  %s", root / "report.html")
    return {"elsewhere": [root / RESULTS, root / "summary.json"]}


def _records(config: Config, evaluation: Path | None, parts: Sequence[str]):
    """What was measured, and APRM's lead over the others in the splits of `parts`."""
    if evaluation is None or not (evaluation / RESULTS).exists():
        return []
    path = evaluation / RESULTS
    remedy = f"Delete it (rm {path}) and run the same command again: its parts are kept"
    records, _ = read_results(path, f"{remedy}.")
    return [*records, *tables.differences(config, evaluation, parts)]


def _further(context: Context, evaluated: Sequence[str]) -> list[Table]:
    """What evaluations after the first say; their numbers are in their folders."""
    shown = []
    for name in evaluated:
        config = tables.as_measured(context.config, name)
        records = _records(config, context.root / name, ())
        table = tables.main_table(config, Results(records))
        if any(any(row.cells) for row in table.rows):
            shown.append(dataclasses.replace(table, title=f"{name}: {table.title}"))
    return shown


def _ends(rows: Sequence[Mapping[str, int | float]]) -> dict[str, float]:
    """A training's metrics at its end, and its number of steps."""
    out = {}
    for metric in sorted({key for row in rows for key in row}):
        if metric != "step" and not metric.startswith(TIME):
            last = tables.mean(row.get(metric, math.nan) for row in rows[-_LAST:])
            if math.isfinite(last):
                out[metric] = last
    return out | {"steps": rows[-1]["step"]}


def _parts(config: Config, evaluation: Path) -> list[dict[str, Any]]:
    """The evaluation's splits and sets, as far as they are there."""
    splits = () if config.domain.name == "labelled" else config.evaluate.splits
    names = [*splits, *set_tables.set_names(config)]
    paths = [part_path(evaluation, name) for name in names]
    return [read_part(path) for path in paths if path.exists()]


def _phases(
    context: Context, trained: Mapping[str, Sequence[Mapping]]
) -> dict[str, dict[str, float]]:
    """Stage -> phase -> seconds, over all its starts as far as the log knows."""
    out: dict[str, dict[str, float]] = {}
    for name, job in stages(context.config):
        directory = context.root / name
        if name == context.stage or not is_done(directory):
            continue
        phases = collections.defaultdict[str, float](float)
        for phase, seconds in _timed(directory, trained.get(name, ())):
            phases[phase] += seconds
        rest = done_info(directory).get("seconds", 0.0) - sum(phases.values())
        if rest > 0:  # no phase: all of it is what the job is there for
            phases["everything else" if phases else job] = rest
        out[name] = dict(phases)
    return out


def _timed(
    directory: Path, rows: Sequence[Mapping[str, int | float]]
) -> Iterator[tuple[str, float]]:
    """(phase, seconds) of what a stage has timed itself: its steps, its parts."""
    rounds = sorted(directory.glob(f"{ROUNDS}/*/metrics.jsonl"))
    for row in itertools.chain(rows, *(read_metrics(path.parent) for path in rounds)):
        for key, seconds in row.items():
            if key.startswith(TIME) and key != "time/step":
                yield key.removeprefix(TIME), seconds
    for path in sorted((directory / "parts").glob("*.json")):
        part = read_part(path)
        yield part.get("of", part["name"]), part["seconds"]


def _left_out(context: Context) -> dict[str, dict[str, int]]:
    """Stage -> reason -> how much of its data it has not learned."""
    done = [name for name, _ in stages(context.config) if is_done(context.root / name)]
    known = {name: done_info(context.root / name).get("left_out", {}) for name in done}
    return {name: reasons for name, reasons in known.items() if reasons}


def _facts(context: Context, trained) -> list[tuple[str, str]]:
    facts = [("Version", __version__), ("Seed", str(context.config.seed))]
    for name, reasons in _left_out(context).items():
        counts = (f"{n} {reason.replace('_', ' ')}" for reason, n in reasons.items())
        facts.append((f"Not learned by {name}", ", ".join(counts)))
    sizes = {
        name: _parameters(context.root / name / "model" / SPEC_FILE) for name in trained
    }
    known = [size for size in sizes.values() if size]
    if known:
        facts.append(("Parameters", f"{known[0] / 1e6:.2f} M"))
    devices = jax.devices()
    facts.append(("Devices", f"{len(devices)} × {devices[0].device_kind}"))
    facts.append(("Machine", f"{platform.system()} {platform.machine()}"))
    return facts


def _parameters(spec: Path) -> int:
    """How many lie beside a model's description; 0 where there is none."""
    if not spec.with_name("params.safetensors").is_file():
        return 0
    with Checkpoint.open(spec.parent, "params") as checkpoint:
        return sum(math.prod(shape) for shape in checkpoint.shapes.values())


def _game(context: Context, trained: Mapping[str, Sequence]) -> str | None:
    """The stage whose Generator learns; else one where it is frozen."""
    games = [name for name, job in stages(context.config) if job == "aprm"]
    games = [name for name in games if name in trained]
    live = [
        name
        for name in games
        if not for_stage(context.config, name).game.freeze_generator
    ]
    return next(iter([*live, *games]), None)


def _perturbations(directory: Path) -> list[Perturbation]:
    return [charts.perturbation(row) for row in read_lines(directory / PERTURBATIONS)]


def _written(rows: Sequence[Mapping[str, int | float]] | None) -> dict[str, float]:
    """Share of each kind among all wrong replies of a game."""
    prefix, rows = "kind_share/", rows or ()
    kinds = sorted({k for row in rows for k in row if k.startswith(prefix)})
    weights = [row.get("game/incorrect_rate", 0.0) for row in rows]
    total = sum(weights) or 1.0
    return {
        kind.removeprefix(prefix): sum(
            w * row.get(kind, 0.0) for w, row in zip(weights, rows, strict=True)
        )
        / total
        for kind in kinds
    }


def _solutions(config: Config, parts: Sequence[Mapping[str, Any]]) -> list[Solution]:
    """Examples of every split and set, scored by APRM, else by the last PRM."""
    listed = [v for v in verifiers(config) if v.group != GIVEN]
    own = [v for v in listed if v.own]
    order = [*(reversed(own) if config.domain.name == "labelled" else own)]
    order += reversed(listed)
    columns = [
        [
            _solution(row, chosen, part["name"])
            for row in part.get("solutions", ())
            for chosen in [v for v in order if v.key in row["scores"]][:1]
        ]
        for part in parts
    ]
    columns += [
        [_solution(row, verifier, f"{part['name']}, wrong winners") for row in rows]
        for part in parts
        for verifier in listed
        if (rows := part.get("winners", {}).get(verifier.key, ()))
    ]
    # One of each split in turn, so that the page opens on all of them.
    turns = itertools.zip_longest(*columns)
    return [chart for turn in turns for chart in turn if chart is not None]


def _solution(row: Mapping[str, Any], verifier: Verifier, split: str) -> Solution:
    scores, labels, kinds = row["scores"][verifier.key], row["labels"], row["kinds"]
    steps = []
    for k, text in enumerate(row["steps"]):
        score = scores[k] if k < len(scores) else None
        label = labels[k] if k < len(labels) else None
        steps.append(
            ScoredStep(
                text,
                math.nan if score is None else score,
                None if label is None else label >= NEUTRAL,
                kinds[k] if k < len(kinds) else "",
            )
        )
    return Solution(
        question=row["question"],
        steps=steps,
        answer=row["given"],
        expected=row["answer"],
        correct=row["correct"],
        split=split,
        method=f"scores: {verifier.key if row['answer'] is None else verifier.name}",
    )
