"""Accuracy and cost of `configs/search_pressure.py`, over as many seeds as there are.

    python benchmarks/search_pressure.py collect RUN...   # a file a seed
    python benchmarks/search_pressure.py tables           # docs/results.md

`collect` keeps what a run found in `benchmarks/results/search_pressure/seed_K.json`, so
that seeds may be run one by one, on any machine: `tables` pools whichever are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import searches
from compare_table import ROOT, replace_between, table
from searches import cell, footnote, names
from seed_files import PRMS, read, tables_wanted

RESULTS = ROOT / "benchmarks/results/search_pressure"
TITLES = {
    **{k: v for k, v in PRMS.items() if k not in ("aprm_plain", "aprm_drawn")},
    "prm_oracle": "exact labels",
    "likelihood": "solver's likelihood",
    "oracle": "oracle",
}
METHODS = ("beam_16", "beam_64", "dvts_16", "dvts_64", "rebase_16", "rebase_64", "mcts")


def main() -> None:
    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "search_pressure", render(read(args.results)))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found."""
    return searches.collect(run, "configs/search_pressure.py:RUN", results)


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
