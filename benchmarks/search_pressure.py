"""Accuracy and cost of `configs/search_pressure.py`, over as many seeds as there are.

    python benchmarks/search_pressure.py collect RUN...   # a file a seed
    python benchmarks/search_pressure.py tables   # docs/results.md and the figure

`collect` keeps what a run found in `benchmarks/results/search_pressure/seed_K.json`, so
that seeds may be run one by one, on any machine: `tables` pools whichever are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import searches
from compare_table import ROOT, replace_between, save_figure, table
from searches import cell, footnote, names
from seed_files import PRMS, read, tables_wanted

RESULTS = ROOT / "benchmarks/results/search_pressure"
TITLES = {
    **{k: v for k, v in PRMS.items() if k not in ("aprm_plain", "aprm_drawn")},
    "prm_oracle": "exact labels",
    "likelihood": "solver's likelihood",
    "oracle": "oracle",
}
FAMILIES = {"beam": "o", "dvts": "s", "rebase": "^", "mcts": "*"}  # their marks
METHODS = ("beam_16", "beam_64", "dvts_16", "dvts_64", "rebase_16", "rebase_64", "mcts")


def main() -> None:
    figure = ROOT / "docs/search_pressure.svg"
    if args := tables_wanted(__doc__, collect, RESULTS, figure=figure):
        seeds = read(args.results)
        replace_between(args.page, "search_pressure", render(seeds))
        draw(seeds, args.figure)


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found."""
    return searches.collect(run, "configs/search_pressure.py:RUN", results)


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """A table a split as Markdown: methods down, verifiers across."""
    seen, splits = names(seeds)
    verifiers = [v for v in TITLES if any(f"{v}_{m}" in seen for m in METHODS)]
    parts = ["![Accuracy of searches against what they cost](search_pressure.svg)"]
    for split in splits:
        rows = []
        for method in METHODS:
            cells = [cell(seeds, f"{v}_{method}", split) for v in verifiers]
            rows.append((method.replace("_", ", N = "), cells))
        header = [f"{split}: method", *(TITLES[v] for v in verifiers)]
        parts.append(table(header, rows))
    parts.append(footnote(seeds, "search_pressure.py", "search_pressure/"))
    return "\n\n".join(parts)


def draw(seeds: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a split: a line a verifier and a family of methods, over its widths."""
    import matplotlib.pyplot as plt

    seen, splits = names(seeds)
    figure, panels = plt.subplots(1, len(splits), figsize=(12, 4.5))
    for panel, split in zip(panels, splits, strict=True):
        for k, (verifier, title) in enumerate(TITLES.items()):
            for family, marker in FAMILIES.items():
                wide = [m for m in METHODS if m.partition("_")[0] == family]
                points = [
                    point(seeds, f"{verifier}_{method}/{split}")
                    for method in wide
                    if f"{verifier}_{method}" in seen
                ]
                if points:
                    costs, shares = zip(*points, strict=True)
                    label = title.strip("*") if family == "beam" else None
                    panel.plot(costs, shares, f"{marker}-", color=f"C{k}", label=label)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        ticks = [t for t in (0.2, 0.5, 1, 2, 5) if low <= t <= high]
        panel.set_xticks(ticks, [str(t) for t in ticks])
        panel.minorticks_off()
        panel.set_xlabel("10⁹ operations a problem")
        panel.set_title(split)
    panels[0].set_ylabel("% solved")
    for family, marker in FAMILIES.items():
        panels[0].plot([], [], marker, color="grey", label=family)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=6, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    save_figure(figure, path)


def point(seeds: Sequence[dict[str, Any]], key: str) -> tuple[float, float]:
    """Mean cost of a problem in 10⁹ operations, and % solved."""
    found = [seed["searches"][key] for seed in seeds]
    cost = np.mean([f["flops"] for f in found]) / 1e9
    return float(cost), float(100 * np.mean([f["correct"] for f in found]))


if __name__ == "__main__":
    main()
