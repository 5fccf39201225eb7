"""Accuracy and cost of `configs/search_pressure.py`, over as many seeds as there are.

    python benchmarks/search_pressure.py collect RUN...   # a file a seed
    python benchmarks/search_pressure.py tables           # docs/results.md

`collect` keeps what a run found in `benchmarks/results/search_pressure/seed_K.json`, so
that seeds may be run one by one, on any machine: `tables` pools whichever are there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, commit, pooled_row, replace_between, table

RESULTS = ROOT / "benchmarks/results/search_pressure"
TITLES = {
    "prm_static": "static corruptions",
    "prm_monte_carlo": "Monte-Carlo labels",
    "prm_oracle": "exact labels",
    "prm_frozen": "frozen Generator",
    "aprm": "**APRM**",
    "likelihood": "solver's likelihood",
    "oracle": "oracle",
}
METHODS = ("beam_16", "beam_64", "dvts_16", "dvts_64", "rebase_16", "rebase_64", "mcts")
LEDGER = ("decoded", "prefilled", "verifier_tokens", "flops")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("collect", "tables"))
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    args = parser.parse_args()
    if args.action == "collect":
        for run in args.runs:
            collect(run)
        return
    seeds = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("seed_*"))]
    replace_between(args.page, "search_pressure", render(seeds))


def collect(run: Path) -> None:
    """Writes what a finished run found: of each search, who was right, and the cost."""
    config = json.loads((run / "config.json").read_text())
    found: dict[str, Any] = {
        "command": "python -m aprm_jax.main --config=configs/search_pressure.py:RUN "
        f"--config.seed={config['seed']}",
        "commit": commit(),
        "seed": config["seed"],
        "problems": config["search"]["problems"],
        "searches": {},
    }
    for path in sorted(run.glob("*/solutions.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        by_split: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_split.setdefault(row["split"], []).append(row)
        found["searches"][path.parent.name] = {
            split: {
                "correct": [int(row["correct"]) for row in part],
                **{k: round(np.mean([r["ledger"][k] for r in part])) for k in LEDGER},
            }
            for split, part in by_split.items()
        }
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [
        f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in found["searches"].items()
    ]
    head = json.dumps({k: v for k, v in found.items() if k != "searches"})
    text = head[:-1] + ', "searches": {\n' + ",\n".join(lines) + "\n}}\n"
    (RESULTS / f"seed_{found['seed']}.json").write_text(text)


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """A table a split as Markdown: methods down, verifiers across."""
    splits = list(next(iter(seeds[0]["searches"].values())))
    seen = {name for seed in seeds for name in seed["searches"]}
    verifiers = [v for v in TITLES if any(f"{v}_{m}" in seen for m in METHODS)]
    parts = []
    for split in splits:
        rows = []
        for method in METHODS:
            names = [f"{verifier}_{method}" for verifier in verifiers]
            cells = [_cell(seeds, name, split) for name in names]
            rows.append((method.replace("_", ", N = "), cells))
        header = [f"{split}: method", *(TITLES[v] for v in verifiers)]
        parts.append(table(header, rows))
    numbers = ", ".join(str(s["seed"]) for s in seeds)
    parts.append(
        f"% solved; seeds {numbers}, {seeds[0]['problems']} problems a split; in "
        "brackets 95 % intervals over problems and seeds, behind them millions of "
        "operations a problem. Made by `benchmarks/search_pressure.py` from "
        "`benchmarks/results/search_pressure/`."
    )
    return "\n\n".join(parts)


def _cell(seeds: Sequence[dict[str, Any]], name: str, split: str) -> str:
    found = [s["searches"][name][split] for s in seeds if name in s["searches"]]
    if len(found) < len(seeds):
        return "–"
    row = pooled_row(np.array([f["correct"] for f in found], float))
    cost = np.mean([f["flops"] for f in found]) / 1e6
    spread = f"({100 * row['low']:.0f}–{100 * row['high']:.0f})"
    return f"{100 * row['mean']:.1f} {spread}; {cost:,.0f}"


if __name__ == "__main__":
    main()
