"""Turns a finished `configs/prm800k.py` run into the README's PRM800K table.

    python benchmarks/prm800k_table.py --command='…' RUN

Writes `benchmarks/results/prm800k.json` and what stands between the `prm800k` markers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from compare_table import ROOT, commit, replace_between, table

NAMES = {
    "chance": "chance",
    "position": "position of the step alone",
    "likelihood": "likelihood of the language model",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--command", required=True, help="what made the run")
    args = parser.parse_args()
    config = json.loads((args.run / "config.json").read_text())
    summary = json.loads((args.run / "evaluate/summary.json").read_text())
    stages = {
        path.parent.name: round(json.loads(path.read_text())["seconds"], 1)
        for path in sorted(args.run.glob("*/done.json"))
    }
    given = [entry.partition("=")[0] for entry in config["evaluate"]["scores"]]
    results = {
        "command": args.command,
        "commit": commit(),
        "seeds": [config["seed"]],
        "verifiers": [*NAMES, *config["evaluate"]["prms"], *given],
        "sets": [entry.partition("=")[0] for entry in config["evaluate"]["sets"]],
        "updates": {stage: config[stage]["updates"] for stage in ("sft", "prm")},
        "stage_seconds": stages,
        "summary": summary,
    }
    (ROOT / "benchmarks/results/prm800k.json").write_text(
        json.dumps(results, indent=1) + "\n"
    )
    replace_between(ROOT / "README.md", "prm800k", render(results))


def render(results: dict) -> str:
    """Two tables as Markdown: single steps, then first errors."""
    summary = results["summary"]
    parts = []
    for name in results["sets"]:
        if f"steps.{name}.chance.auc" in summary:
            parts.append(_steps(results, name))
    located = [s for s in results["sets"] if f"first_error.{s}.chance.f1" in summary]
    if located:
        parts.append(_first_errors(results, located))
    minutes = sum(results["stage_seconds"].values()) / 60
    parts.append(
        f"One seed, {results['updates']['sft']} updates of the language model and "
        f"{results['updates']['prm']} of the PRM, {minutes:.0f} minutes in all. "
        "Intervals are 95 %, over questions and rows. Made by "
        "`benchmarks/prm800k_table.py`."
    )
    return "\n\n".join(parts)


def _steps(results: dict, name: str) -> str:
    summary = results["summary"]
    columns = {
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "ece": "ECE",
        "ece_calibrated": "ECE, calibrated",
    }
    rows = []
    for verifier in results["verifiers"]:
        start = f"steps.{name}.{verifier}"
        cells = [_interval(summary, f"{start}.auc", ".3f")]
        cells += [_number(summary.get(f"{start}.{metric}")) for metric in columns]
        rows.append((NAMES.get(verifier, verifier), cells))
    count = summary[f"steps.{name}.chance.count"]
    share = summary[f"steps.{name}.chance.incorrect_share"]
    left_out = summary[f"steps.{name}.prm.left_out"]
    return (
        f"{table([name, 'AUC', *columns.values()], rows)}\n\n"
        f"{count:.0f} rated steps, {share:.0%} of them wrong; precision, recall and F1 "
        "are of catching wrong steps, at the threshold with the best balanced accuracy "
        f"on held-out training questions. The {left_out:.0f} steps that do not fit a "
        "row are left out for the models."
    )


def _first_errors(results: dict, names: list[str]) -> str:
    summary = results["summary"]
    rows = []
    for verifier in results["verifiers"]:
        cells = []
        for name in names:
            start = f"first_error.{name}.{verifier}"
            cells += [
                _interval(summary, f"{start}.f1", ".3f"),
                _number(summary.get(f"{start}.error_accuracy")),
                _number(summary.get(f"{start}.correct_accuracy")),
                _number(summary.get(f"{start}.threshold")),
            ]
        rows.append((NAMES.get(verifier, verifier), cells))
    header = ["ProcessBench"]
    for name in names:
        header += [f"{name}: F1", "on erroneous", "on correct", "threshold"]
    return (
        f"{table(header, rows)}\n\nThe metric is ProcessBench's own, the harmonic mean "
        "of both accuracies; thresholds from held-out training questions of PRM800K."
    )


def _interval(summary: dict, name: str, form: str) -> str:
    if summary.get(name) is None:
        return "–"
    low, high = summary[f"{name}.low"], summary[f"{name}.high"]
    return f"{summary[name]:{form}} ({low:{form}}–{high:{form}})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
