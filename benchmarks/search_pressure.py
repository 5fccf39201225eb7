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

from compare_table import ROOT, replace_between, table
from searches import cell, collect, footnote, names

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("collect", "tables"))
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    args = parser.parse_args()
    if args.action == "collect":
        for run in args.runs:
            collect(run, "configs/search_pressure.py:RUN", RESULTS, "")
        return
    seeds = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("seed_*"))]
    replace_between(args.page, "search_pressure", render(seeds))


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """A table a split as Markdown: methods down, verifiers across."""
    seen, splits = names(seeds)
    verifiers = [v for v in TITLES if any(f"{v}_{m}" in seen for m in METHODS)]
    parts = []
    for split in splits:
        rows = []
        for method in METHODS:
            cells = [cell(seeds, f"{v}_{method}", split) for v in verifiers]
            rows.append((method.replace("_", ", N = "), cells))
        header = [f"{split}: method", *(TITLES[v] for v in verifiers)]
        parts.append(table(header, rows))
    parts.append(footnote(seeds, "search_pressure.py", "search_pressure/"))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
