"""Pools several seeds of `configs/ablation.py` into the ablation table.

    python benchmarks/ablation_table.py --command='…' RUN_SEED_0 RUN_SEED_1 RUN_SEED_2

Writes `benchmarks/results/ablation.json` and what stands between the `ablation` markers
of docs/results.md; given no runs, makes the table from that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import (
    ROOT,
    commit,
    interval_row,
    last_rounds,
    one_line_each,
    pooled_row,
    replace_between,
    table,
    write_seeds,
)

from aprm_jax.evals.intervals import over_seeds

TITLES = {
    "aprm": "APRM",
    "no_regulariser": "no KL, no entropy bonus",
    "no_optimism": "plain simultaneous Adam",
    "no_replay": "no replay; fresh ones instead",
    "caught_pays_0": "a caught G gets 0, not −1",
    "token_head": "no game: static corruptions",
    "two_class_head": "no game: static corruptions, two-class head",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--command", default="", help="what made the runs")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    args = parser.parse_args()
    out = ROOT / "benchmarks/results/ablation.json"
    if args.runs:
        results = {"command": args.command, "commit": commit(), **collect(args.runs)}
        write_seeds(out, results, one_line_each(results))
    replace_between(args.page, "ablation", render(json.loads(out.read_text())))


def collect(runs: Sequence[Path]) -> dict[str, Any]:
    """Every row's figures, over seeds, and what they are less than the base's."""
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    splits, n = configs[0]["evaluate"]["splits"], configs[0]["evaluate"]["samples"][0]
    # The base is the compare run's APRM: a folder, so its name differs by seed.
    bases = [c["evaluate"]["prms"][0] for c in configs]
    names = configs[0]["evaluate"]["prms"][1:]
    results: dict = {"rows": {}, "seeds": [c["seed"] for c in configs], "samples": n}
    for split in splits:
        arrays = [
            np.load(run / "evaluate/per_problem" / f"{split}.npz") for run in runs
        ]
        pairs = zip(arrays, bases, strict=True)
        base = np.stack([a[f"{name}.min@{n}"] for a, name in pairs])
        results["rows"].setdefault("aprm", {})[f"{split}.accuracy"] = pooled_row(base)
        for name in names:
            values = np.stack([a[f"{name}.min@{n}"] for a in arrays])
            row = results["rows"].setdefault(name, {})
            row[f"{split}.accuracy"] = pooled_row(values)
            row[f"{split}.difference"] = pooled_row(values - base)
    stages = {name: [run / name for run in runs] for name in names}
    stages["aprm"] = [Path(base).parent for base in bases]
    for name, folders in stages.items():
        for metric in ("game/fool_rate", "kind_share/illegal_contraction"):
            found = [last_rounds(folder, metric) for folder in folders]
            means = [m for m in found if m is not None]
            if len(means) == len(runs):
                row = interval_row(over_seeds(np.array(means)), means)
                results["rows"][name][metric] = row
    return results


def render(results: dict) -> str:
    """The table as Markdown."""
    measured = [key.rpartition(".") for key in results["rows"]["aprm"]]
    splits = [split for split, _, what in measured if what == "accuracy"]
    n = results.get("samples", 8)  # which older results do not say
    rows = []
    for name, row in results["rows"].items():
        cells = []
        for split in splits:
            mean = 100 * row[f"{split}.accuracy"]["mean"]
            change = row.get(f"{split}.difference")
            cell = f"{mean:.1f}"
            if change and change["stderr"] is not None:
                cell += f" ({100 * change['mean']:+.1f} ± {100 * change['stderr']:.1f})"
            cells.append(cell)
        for metric in ("game/fool_rate", "kind_share/illegal_contraction"):
            found = row.get(metric)
            cells.append(f"{100 * found['mean']:.1f} %" if found else "–")
        rows.append((TITLES.get(name, name), cells))
    header = [
        f"best of {n}",
        *splits,
        "fool rate at the end",
        "illegal contractions among G's errors at the end",
    ]
    seeds = ", ".join(map(str, results["seeds"]))
    return (
        f"{table(header, rows)}\n\nSeeds {seeds}; in brackets the paired difference to "
        f"APRM and its standard error. Made by `benchmarks/ablation_table.py` from "
        f"`benchmarks/results/ablation.json` (`{results['command']}`)."
    )


if __name__ == "__main__":
    main()
