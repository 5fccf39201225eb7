"""Turns a workdir into `report.html` and `summary.json`, and prints the main table."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from aprm_jax import __version__
from aprm_jax.config import for_stage, stages
from aprm_jax.data.prompts import REASONS
from aprm_jax.jobs import report_labelled, tables
from aprm_jax.jobs.context import Context, log
from aprm_jax.models.io import SPEC_FILE
from aprm_jax.report.contents import (
    Chart,
    Perturbation,
    Progression,
    ReportData,
    ScoredStep,
    Series,
    Solution,
    Timing,
)
from aprm_jax.report.page import write_report
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import atomic_write, done_info, is_done

TIME = "time/"
_LAST = 10  # steps that a final metric is the mean of

# Charts of a stage: title -> (style, {name in the legend: metric}).
_CHARTS: Mapping[str, tuple[Any, Mapping[str, str]]] = {
    "Loss, nats a token": ("number", {"": "loss"}),
    "What became of perturbations": (
        "percent",
        {
            "fool R": "game/success_rate",
            "still correct": "game/still_correct_rate",
            "undecidable": "game/undecidable_rate",
            "copied": "game/copied_rate",
        },
    ),
    "Replies of G that are not one step": (
        "percent",
        {reason.replace("_", " "): f"reply/{reason}" for reason in REASONS},
    ),
    "Share of wrong steps that fool R": ("percent", {"": "game/fool_rate"}),
    "Accuracy of R": (
        "percent",
        {
            "clean": "prm/accuracy_clean",
            "fresh": "prm/accuracy_fresh",
            "replayed": "prm/accuracy_replayed",
            "static": "prm/accuracy_static",
            "right steps": "prm/accuracy_correct",
            "wrong steps": "prm/accuracy_incorrect",
        },
    ),
    "Loss of R, nats": ("number", {"": "prm/loss"}),
    "Entropy, nats": (
        "number",
        {"G, a token": "generator/entropy_token", "R, a step": "prm/entropy"},
    ),
    "KL to the reference, nats": (
        "number",
        {"G, a token": "generator/kl_token", "R, a step": "prm/kl"},
    ),
    "Reward": ("number", {"G": "generator/reward", "R": "prm/reward"}),
    "Edit distance and distinct replies": (
        "number",
        {"edit distance": "game/edit_distance", "distinct": "game/distinct_rate"},
    ),
    "Gradient change, ‖g − g before‖ / ‖g‖": (
        "number",
        {"G": "generator/grad_change", "R": "prm/grad_change"},
    ),
    "|Δ log p| between sampler and trainer": (
        "number",
        {"mean": "generator/sampler_gap_mean", "max": "generator/sampler_gap_max"},
    ),
}


def run(context: Context) -> dict[str, Any]:
    """Writes both files into the workdir, whatever of the pipeline is there."""
    config, root = context.config, context.root
    trained = {
        name: read_metrics(root / name)
        for name, job in stages(config)
        if job in ("sft", "prm", "aprm")
    }
    trained = {name: rows for name, rows in trained.items() if rows}
    evaluated = [name for name, job in stages(config) if job == "evaluate"]
    evaluation = root / evaluated[0] if evaluated else None
    numbers = _summary(context, trained, evaluation)
    text = json.dumps(
        {k: v for k, v in numbers.items() if math.isfinite(v)},
        indent=1,
        sort_keys=True,
    )
    atomic_write(root / "summary.json", text + "\n")
    labelled = config.domain.name == "labelled"
    views = report_labelled if labelled else tables
    table = views.main_table(config, numbers) if evaluation is not None else None
    game = _game(context, trained)
    shown = sorted(trained, key=lambda name: name != game)  # the game first
    measured = ()
    if labelled and evaluation is not None:
        measured = report_labelled.charts(config, evaluation)
    data = ReportData(
        title=config.report.title or config.name,
        subtitle=f"seed {config.seed}, problems: {config.domain.name}",
        facts=_facts(context, trained),
        main_table=table,
        tables=views.more_tables(config, numbers) if evaluation is not None else (),
        charts=[
            *measured,
            *(c for name in shown for c in _charts(name, trained[name])),
        ],
        progression=_progression(trained[game]) if game else None,
        perturbations=_perturbations(root / game) if game else (),
        solutions=_solutions(context, evaluation) if evaluation is not None else (),
        timings=_timings(context, trained, evaluation),
        summary=numbers,
        config=json.dumps(config.to_dict(), indent=2),
    )
    write_report(root / "report.html", data)
    if table is not None:
        log.info("\n%s\n", tables.as_text(table))
    log.info("summary: %s", root / "summary.json")
    log.info("report:  %s", root / "report.html")
    return {}


def _summary(
    context: Context, trained: Mapping[str, Sequence[Mapping]], evaluation: Path | None
) -> dict[str, float]:
    """Dotted names to numbers: evaluation, ends of trainings, seconds."""
    numbers: dict[str, float] = {}
    if evaluation is not None and (evaluation / "summary.json").exists():
        read = json.loads((evaluation / "summary.json").read_text())
        numbers |= {k: math.nan if v is None else v for k, v in read.items()}
        numbers |= tables.differences(context.config, evaluation)
    for name, rows in trained.items():
        for metric in sorted({key for row in rows for key in row}):
            if metric == "step" or metric.startswith(TIME):
                continue
            last = [row.get(metric, math.nan) for row in rows[-_LAST:]]
            numbers[f"train.{name}.{metric.replace('/', '.')}"] = tables.mean(last)
        numbers[f"train.{name}.steps"] = rows[-1]["step"]
    for name, phases in _phases(context, trained, evaluation).items():
        numbers[f"time.{name}.seconds"] = sum(phases.values())
    return numbers


def _phases(
    context: Context, trained: Mapping[str, Sequence[Mapping]], evaluation: Path | None
) -> dict[str, dict[str, float]]:
    """Stage -> phase -> seconds, over all its starts as far as the log knows."""
    out: dict[str, dict[str, float]] = {}
    for name, _ in stages(context.config):
        directory = context.root / name
        if name == context.stage or not is_done(directory):
            continue
        phases: dict[str, float] = {}
        if name in trained:
            for row in trained[name]:
                for key, seconds in row.items():
                    if key.startswith(TIME) and key != "time/step":
                        phase = key.removeprefix(TIME)
                        phases[phase] = phases.get(phase, 0.0) + seconds
        elif evaluation is not None and directory == evaluation:
            for path in sorted((evaluation / "parts").glob("*.json")):
                phases[path.stem] = json.loads(path.read_text()).get("seconds", 0.0)
        rest = done_info(directory).get("seconds", 0.0) - sum(phases.values())
        if rest > 0:
            phases["set-up"] = rest
        out[name] = phases
    return out


def _timings(context: Context, trained, evaluation) -> list[Timing]:
    phases = _phases(context, trained, evaluation)
    return [Timing(name, seconds) for name, seconds in phases.items()]


def _facts(context: Context, trained) -> list[tuple[str, str]]:
    facts = [("Version", __version__), ("Seed", str(context.config.seed))]
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
    """Of the float32 file beside a model's description; 0 where there is none."""
    params = spec.with_name("params.safetensors")
    return params.stat().st_size // 4 if params.is_file() else 0


def _charts(stage: str, rows: Sequence[Mapping[str, float]]) -> list[Chart]:
    x = [row["step"] for row in rows]
    charts = []
    for title, (style, lines) in _CHARTS.items():
        series = [
            Series(name, x, [row.get(metric, math.nan) for row in rows])
            for name, metric in lines.items()
            if any(not math.isnan(row.get(metric, math.nan)) for row in rows)
        ]
        if series:
            charts.append(Chart(title, series, "update", style, group=stage))
    return charts


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


def _progression(rows: Sequence[Mapping[str, float]]) -> Progression | None:
    prefix = "kind_share/"
    kinds = sorted(
        {k.removeprefix(prefix) for r in rows for k in r if k.startswith(prefix)}
    )
    if not kinds:
        return None
    return Progression(
        x=[row["step"] for row in rows],
        shares={k: [row.get(prefix + k, 0.0) for row in rows] for k in kinds},
        accuracy={
            k: [row.get(f"kind_caught/{k}", math.nan) for row in rows] for k in kinds
        },
    )


def _perturbations(directory: Path) -> list[Perturbation]:
    """The logged ones; a resumed run has written some rounds twice."""
    path = directory / "perturbations.jsonl"
    if not path.exists():
        return []
    # A kill may have cut the last line, and the next start wrote on behind it.
    found: dict[tuple, dict] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        key = (row["step"], row["question"], *row["prefix"], row["perturbed_step"])
        found[key] = row
    return [
        Perturbation(
            iteration=row["step"],
            question=row["question"],
            previous=row["prefix"][-1] if row["prefix"] else "",
            original=row["correct_step"],
            perturbed=row["perturbed_step"],
            kind=row["kind"],
            score=math.nan if row["p_correct"] is None else row["p_correct"],
            incorrect={"incorrect": True, "correct": False}.get(row["label"]),
        )
        for row in sorted(found.values(), key=lambda row: row["step"])
    ]


def _solutions(context: Context, evaluation: Path) -> list[Solution]:
    """Examples of every split, scored by APRM, else by the last PRM."""
    if context.config.domain.name == "labelled":
        return report_labelled.solutions(context.config, evaluation)
    listed = tables.verifiers(context.config)
    chosen = next((v for v in listed if v.own), listed[-1])
    out = []
    for split in context.config.evaluate.splits:
        path = evaluation / "parts" / f"{split}.json"
        if not path.exists():
            continue
        for row in json.loads(path.read_text())["solutions"]:
            out.append(_solution(row, chosen, split))
    # One of each split in turn, so that the page opens on all of them.
    splits = context.config.evaluate.splits
    places = {
        id(s): k
        for split in splits
        for k, s in enumerate(x for x in out if x.split == split)
    }
    return sorted(out, key=lambda s: places[id(s)])


def _solution(
    row: Mapping[str, Any], verifier: tables.Verifier, split: str
) -> Solution:
    scores = row["scores"][verifier.key]
    steps = []
    for k, text in enumerate(row["steps"]):
        judged = k < len(row["labels"])
        steps.append(
            ScoredStep(
                text,
                scores[k] if k < len(scores) else math.nan,
                bool(row["labels"][k]) if judged else None,
                row["kinds"][k] if judged else "",
            )
        )
    return Solution(
        question=row["question"],
        steps=steps,
        answer=row["given"],
        expected=row["answer"],
        correct=row["correct"],
        split=split,
        method=f"scores: {verifier.name}",
    )
