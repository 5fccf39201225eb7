"""Turns what `benchmarks/smollm2.py` has measured so far into its tables.

    python benchmarks/smollm2_table.py

Reads `benchmarks/results/smollm2.json` and, for the small PRM beside it,
`benchmarks/results/prm800k.json`; writes what stands between the `smollm2` markers of
docs/results.md. Parts that have not been run yet are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from compare_table import ROOT, replace_between, table

_SMALL = {"likelihood": "likelihood of a 0.8 M model", "prm": "PRM of 0.8 M, from it"}
_OURS = {
    "chance": "chance",
    "position": "position of the step alone",
    "prm": "**SmolLM2 as PRM**",
}
_STEPS = {
    "step AUC": "steps.phase1_test.{}.auc",
    "step F1": "steps.phase1_test.{}.f1",
}
_LOCATED = {
    "{set}, F1": "first_error.{set}.{{}}.f1",
    "{set}, at 0.5": "first_error.{set}.{{}}.f1@0.5",
    "{set}, calibrated": "first_error.{set}.{{}}.f1@platt",
}
_PLAYED = {
    "one step": "reply/one_step",
    "decidably wrong": "game/incorrect_rate",
    "of these R believes": "game/fool_rate",
    "distinct": "game/distinct_rate",
    "static ones caught": "prm/accuracy_static",
    "right steps accepted": "prm/accuracy_clean",
}
_PHASES = ("sample", "verify", "score", "update")
_EVERY = 10  # rounds of the game to a line
_SHOWN = 8  # perturbations


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    results, small = (
        json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        for name in ("smollm2", "prm800k")
    )
    page = ROOT / "docs/results.md"
    replace_between(page, "smollm2", render(results, small))


def render(results: dict[str, Any], small: dict[str, Any]) -> str:
    """All parts that are there, as Markdown.

    Args:
      results: of `benchmarks/smollm2.py`.
      small: of `benchmarks/prm800k_table.py`: the same data, a small model.
    """
    parts: list[str] = []
    prm, game = results.get("prm"), results.get("game")
    if prm and prm["results"]:
        parts.append(_labelled(prm["results"], small["summaries"]))
    if game and game["taught"]:
        parts.append(_taught(game["taught"]))
    if game and game["training"]:
        parts.append(_rounds(game["training"]))
        parts.append(_examples(game["perturbations"]))
    if game and game["results"]:
        parts.append(_before_and_after(game["results"]))
    parts.append(_costs(results))
    return "\n\n".join(parts)


def _labelled(ours: dict[str, float], small: Sequence[dict[str, float]]) -> str:
    columns = dict(_STEPS)
    for name in ("gsm8k", "math"):
        if f"first_error.{name}.prm.f1" in ours:
            columns |= {
                heading.format(set=name): metric.format(set=name)
                for heading, metric in _LOCATED.items()
            }
    rows = [(title, _cells([ours], columns, v)) for v, title in _OURS.items()]
    rows += [(title, _cells(small, columns, v)) for v, title in _SMALL.items()]
    return table(["verifier", *columns], rows)


def _cells(
    summaries: Sequence[dict[str, float]], columns: dict[str, str], verifier: str
) -> list[str]:
    cells = []
    for metric in columns.values():
        name = metric.format(verifier)
        values = [s[name] for s in summaries if s.get(name) is not None]
        cells.append(f"{statistics.mean(values):.3f}" if values else "–")
    return cells


def _taught(rounds: Sequence[dict[str, float]]) -> str:
    rows = [
        (
            str(int(found["round"])),
            [f"{100 * found[k]:.0f} %" for k in ("one_step", "wrong", "believed")],
        )
        for found in rounds
    ]
    names = ("one step", "decidably wrong", "of these R believes")
    return table(["G's replies, after round of teaching", *names], rows)


def _rounds(training: Sequence[dict[str, float]]) -> str:
    rows = []
    for start in range(0, len(training), _EVERY):
        lines = training[start : start + _EVERY]
        cells = [_share(lines, name) for name in _PLAYED.values()]
        seconds = [_mean(lines, f"time/{phase}") or 0.0 for phase in _PHASES]
        cells.append(", ".join(f"{s:.0f}" for s in seconds))
        rows.append((f"{start + 1} to {start + len(lines)}", cells))
    heading = ["rounds", *_PLAYED, f"seconds to {', '.join(_PHASES)}"]
    return table(heading, rows)


def _mean(lines: Sequence[dict[str, float]], name: str) -> float | None:
    values = [line[name] for line in lines if line.get(name) is not None]
    return statistics.mean(values) if values else None


def _share(lines: Sequence[dict[str, float]], name: str) -> str:
    mean = _mean(lines, name)
    return "–" if mean is None else f"{100 * mean:.0f} %"


def _examples(perturbations: Sequence[dict[str, Any]]) -> str:
    wrong = [p for p in perturbations if p["label"] == "incorrect"]
    shown = wrong[:: max(1, len(wrong) // _SHOWN)][:_SHOWN]
    rows = [
        (
            str(p["step"]),
            [_text(p["correct_step"]), _text(p["perturbed_step"]), f"{p['p_correct']}"],
        )
        for p in shown
    ]
    return table(["round", "the right step", "G's", "R believes it by"], rows)


def _text(step: str) -> str:
    """A step in a cell; it is a model's, and a cell ends at a bar or a line's end."""
    plain = " ".join(step.split()).replace("`", "'").replace("|", "¦")
    return f"`{plain[:120]}`"


def _before_and_after(results: dict[str, float]) -> str:
    columns = {
        "outcome AUC, least step score": "outcome.{}.auc",
        "best of a question's writers": "outcome.{}.chosen",
        "ProcessBench-gsm8k F1": "first_error.processbench.{}.f1",
        "at 0.5": "first_error.processbench.{}.f1@0.5",
    }
    titles = {"prm": "R before the game", "aprm": "R after it"}
    rows = [(title, _cells([results], columns, v)) for v, title in titles.items()]
    count, share = (results.get(f"outcome.prm.{k}") for k in ("count", "correct_share"))
    said = "" if share is None else f"\n\n{count:.0f} solutions, {share:.3f} right."
    return table(["verifier", *columns], rows) + said


def _costs(results: dict[str, Any]) -> str:
    said = "; ".join(_spent(results))
    return (
        f"{said}. {results['cpus']} cores, which others used too; one seed. Made by "
        "`benchmarks/smollm2_table.py` from `benchmarks/results/smollm2.json`."
    )


def _spent(results: dict[str, Any]) -> Iterator[str]:
    titles = {"memory": "Three rounds for their memory", "prm": "R", "game": "the game"}
    for part, title in titles.items():
        found = results.get(part, {})
        if not found.get("costs"):
            continue
        # Of the run that is published: others of other settings were given up.
        costs, fields = found["costs"], found["costs"][-1].get("fields")
        peak = max(c["peak_gigabytes"] for c in costs if c.get("fields") == fields)
        stages = [
            f"{stage} {done['cpu_seconds'] / 60:.0f}"
            for stage, done in found.get("stages", {}).items()
        ]
        minutes = f", CPU minutes: {', '.join(stages)}" if stages else ""
        yield f"{title}: at most {peak:.1f} GB{minutes}"


if __name__ == "__main__":
    main()
