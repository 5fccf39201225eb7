"""What runs of many searches found, and the cells of their tables.

For `pav.py`, `search_pressure.py`: a file a seed, pooled from whichever are there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import CUT, one_line_each, pooled_row, share_ends
from seed_files import of_run, write

LEDGER = ("decoded", "prefilled", "verifier_tokens", "flops")


def collect(run: Path, config: str, folder: Path, name: str = "", **more: Any) -> Path:
    """Writes what a finished run found: who was right, and what it cost.

    Args:
      run: its folder.
      config: as the command names it.
      folder: of the results.
      name: of the file, before `seed_K.json`.
      **more: what else is kept.
    """
    settings, found = of_run(run, config)
    found |= {
        "problems": settings["search"]["problems"],
        **more,
        "searches": {
            f"{path.parent.name}/{split}": figures
            for path in sorted(run.glob("*/solutions.jsonl"))
            for split, figures in _by_split(path).items()
        },
    }
    return write(found, folder, one_line_each(found), name)


def _by_split(path: Path) -> dict[str, dict[str, Any]]:
    by_split: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        by_split.setdefault(row["split"], []).append(row)
    return {
        split: {
            "correct": [int(row["correct"]) for row in rows],
            **{
                k: round(float(np.mean([r["ledger"][k] for r in rows]))) for k in LEDGER
            },
        }
        for split, rows in by_split.items()
    }


def names(seeds: Sequence[dict[str, Any]]) -> tuple[set[str], list[str]]:
    """The searches of any seed, and the splits in their order."""
    keys = [key.split("/") for seed in seeds for key in seed["searches"]]
    return {name for name, _ in keys}, list(dict.fromkeys(split for _, split in keys))


def cell(seeds: Sequence[dict[str, Any]], name: str, split: str) -> str:
    """% solved with its interval, and millions of operations a problem."""
    key = f"{name}/{split}"
    found = [seed["searches"][key] for seed in seeds if key in seed["searches"]]
    if len(found) < len(seeds):
        return "–"
    row = pooled_row(np.array([f["correct"] for f in found], float))
    cost = np.mean([f["flops"] for f in found]) / 1e6
    return f"{100 * row['mean']:.1f} {share_ends(row, '.0f')}; {cost:,.0f}"


def footnote(seeds: Sequence[dict[str, Any]], script: str, results: str) -> str:
    """What stands below a table."""
    numbers = ", ".join(str(seed["seed"]) for seed in seeds)
    return (
        f"% solved; seeds {numbers}, {seeds[0]['problems']} problems a split; in "
        f"brackets 95 % intervals over problems and seeds{CUT}, behind them millions "
        f"of operations a problem. Made by `benchmarks/{script}` from "
        f"`benchmarks/results/{results}`."
    )
