"""Turns a finished `configs/gsm8k.py` run into the GSM8K table.

    python benchmarks/gsm8k_table.py --command='…' RUN [RUN...]

Further runs evaluated the same models on what the first did not have. Writes
`benchmarks/results/gsm8k.json` and what stands between the `gsm8k` markers; given no
runs, makes the table from that file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from compare_table import ROOT, commit, replace_between, table, write_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--command", default="", help="what made the run")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    args = parser.parse_args()
    out = ROOT / "benchmarks/results/gsm8k.json"
    if args.runs:
        results = {"command": args.command, "commit": commit(), **collect(*args.runs)}
        write_seeds(out, results, json.dumps(results, indent=1) + "\n")
    replace_between(args.page, "gsm8k", render(json.loads(out.read_text())))


def collect(run: Path, *more: Path) -> dict[str, Any]:
    """What a run found, and others that evaluated its models."""
    config = json.loads((run / "config.json").read_text())
    summary = {}
    for evaluated in (*more, run):
        summary |= json.loads((evaluated / "evaluate/summary.json").read_text())
    stages = {
        path.parent.name: round(json.loads(path.read_text())["seconds"], 1)
        for path in sorted(run.glob("*/done.json"))
    }
    return {
        "seeds": [config["seed"]],
        "prms": ["likelihood", *config["evaluate"]["prms"]],
        "samples": config["evaluate"]["samples"][0],
        "stage_seconds": stages,
        "summary": summary,
    }


def render(results: dict) -> str:
    """The table as Markdown."""
    s, n = results["summary"], results["samples"]
    rows = []
    for name in results["prms"]:
        cells = [
            _number(s.get(f"outcome.{name}.auc")),
            _number(s.get(f"outcome.{name}.auc_within")),
            _number(s.get(f"outcome.{name}.chosen")),
            *(
                _number(_located(s, name, metric))
                for metric in ("f1", "error_accuracy", "correct_accuracy", "threshold")
            ),
            _number(s.get(f"solver.test.{name}.min@{n}")),
        ]
        rows.append((name, cells))
    header = [
        "verifier",
        "outcome AUC, least step score",
        "the same within one writer",
        "best of a question's writers",
        "ProcessBench-gsm8k F1",
        "on erroneous",
        "on correct",
        "threshold",
        f"solver, best of {n}",
    ]
    minutes = sum(results["stage_seconds"].values()) / 60
    rows_, cut = s.get("processbench.count"), s.get("processbench.cut")
    lost = s.get("outcome.likelihood.left_out")
    if rows_ is None:
        kinds = ("num_error", "num_correct")
        rows_ = sum(_located(s, "likelihood", kind) or 0 for kind in kinds)
        cut = _located(s, "likelihood", "cut")
        lost = s["outcome.likelihood.unscored"]
    located = ""
    if rows_:
        located = (
            f"ProcessBench: {rows_:.0f} rows, {cut:.0f} cut at the longest bucket; the "
            "metric is its own, the harmonic mean of both accuracies. "
        )
    return (
        f"{table(header, rows)}\n\nOutcome: {s['outcome.likelihood.count']:.0f} "
        f"graded solutions of other models ({lost:.0f} too long). {located}"
        "The solver alone: "
        f"greedy {_number(s['solver.test.greedy'])}, majority of {n} "
        f"{_number(s[f'solver.test.majority@{n}'])}. One seed, {minutes:.0f} minutes "
        "on two cores shared with another run. Made by `benchmarks/gsm8k_table.py`."
    )


def _located(summary: dict, name: str, metric: str) -> float | None:
    """A figure of ProcessBench; older results had a name of their own for it."""
    new = summary.get(f"first_error.processbench.{name}.{metric}")
    return summary.get(f"processbench.{name}.{metric}") if new is None else new


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
