"""The charts of a run: curves of its trainings, best-of-n against n, reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aprm_jax.config import Config, jobs, stages
from aprm_jax.evals import selection
from aprm_jax.evals.records import Results
from aprm_jax.jobs.step_data import CHANCE
from aprm_jax.jobs.verifier_tables import verifiers
from aprm_jax.report.contents import Chart, Perturbation, Progression, Series


def curves(
    config: Config,
    stage: str,
    rows: Sequence[Mapping[str, int | float]],
) -> list[Chart]:
    """Those that a stage's job names, as far as its metrics were logged."""
    x = [row["step"] for row in rows]
    charts = []
    for title, lines, style in jobs()[dict(stages(config))[stage]].charts:
        series = [
            Series(name, x, [row.get(metric, math.nan) for row in rows])
            for name, metric in lines.items()
            if any(not math.isnan(row.get(metric, math.nan)) for row in rows)
        ]
        if series:
            charts.append(Chart(title, series, "update", style, group=stage))
    return charts


def pressure(config: Config, results: Results) -> list[Chart]:
    """Accuracy against N of best-of-N, a line a verifier, what is possible above."""
    c = config.evaluate
    if config.domain.name == "labelled" or len(c.samples) < 3:
        return []
    lines = [(v.name, v.key, v.aggregation) for v in verifiers(config)]
    lines += [("majority", "", "majority"), ("any is right", "", "pass")]
    places = [(split, "") for split in c.splits]
    places += [(split, solver) for solver in c.solvers for split in c.solver_splits]
    charts = []
    for split, solver in places:
        series = []
        for name, key, how in lines:
            records = [
                results.find(selection.SET, split, key, f"{how}@{n}", solver)
                for n in c.samples
            ]
            known = [record for record in records if record is not None]
            if len(known) == len(c.samples):
                ends = zip(*((r.value, r.low, r.high) for r in known), strict=True)
                series.append(Series(name, list(c.samples), *map(list, ends)))
        if series:
            charts.append(
                Chart(
                    f"{split}, {solver}" if solver else split,
                    series,
                    "n",
                    doubling=True,
                )
            )
    return charts


def reliability(config: Config, parts: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Reliability diagrams of each set, as stated and calibrated."""
    out = []
    names = {v.key: v.name for v in verifiers(config) if v.key != CHANCE}
    for part in parts:
        for how in ("stated", "calibrated"):
            series = [Series("perfect", [0, 100], [0.0, 1.0], straight=True)]
            for key, diagrams in part.get("reliability", {}).items():
                if key in names and how in diagrams:
                    diagram = diagrams[how]
                    x = [100 * value for value in diagram["score"]]
                    series.append(Series(names[key], x, diagram["correct"]))
            if len(series) > 1:
                out.append(
                    Chart(
                        f"Steps that are right, scores {how}",
                        series,
                        "score, %",
                        group=f"calibration: {part['name']}",
                        note="Mean of ten bins of equal width, those that are filled.",
                    )
                )
    return out


def perturbation(row: Mapping[str, Any]) -> Perturbation:
    """A row of `game.rounds.logged`."""
    return Perturbation(
        iteration=row["step"],
        question=row["question"],
        previous=row["prefix"][-1] if row["prefix"] else "",
        original=row["correct_step"],
        perturbed=row["perturbed_step"],
        kind=row["kind"],
        score=math.nan if row["p_correct"] is None else row["p_correct"],
        incorrect={"incorrect": True, "correct": False}.get(row["label"]),
    )


def progression(rows: Sequence[Mapping[str, int | float]]) -> Progression | None:
    """The kinds of error that a game's G makes; None where there are none."""
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
