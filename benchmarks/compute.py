"""Accuracy against the compute of training, of every row of `configs/compare.py`.

The APRM paper's Fig. 3. `compare_table.py` makes it with its own tables, of the same
runs: what stands between the `compute` markers of docs/results.md, docs/compute.svg.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compare_table import SOLVER, TITLES, save_figure, table

NOT_YET = "Not measured yet."
SPLITS = ("test", "longer")
FREE = ("majority@{n}", "likelihood.{how}@{n}")  # nothing is trained but the solver
COSTS = {
    "flops": "10¹² operations",
    "cpu_seconds": "CPU seconds",
    "trained_tokens": "tokens learned from",
    "read_tokens": "tokens read",
    "sampled_tokens": "of these sampled",
    "oracle_calls": "oracle calls",
}
UNITS = {  # what the costs are told in, where it is not one
    "flops": 1e12,
    "trained_tokens": 1e3,
    "read_tokens": 1e3,
    "sampled_tokens": 1e3,
}
AXES = {
    "flops": "10¹² operations of training",
    "cpu_seconds": "CPU seconds of training",
}
MARKS = "os"  # of few and of many samples
Results = dict[str, Any]


def rows(results: Results) -> Iterator[tuple[str, str]]:
    """Pattern and stage of each row that something was trained for."""
    for pattern in TITLES:
        stage = pattern.partition(".")[0]
        if ".vote_" not in pattern and results.get("spent", {}).get(stage):
            yield pattern, stage


def accuracy(results: Results, pattern: str, split: str, n: int) -> float:
    """Of a row's choice from n samples, in %."""
    name = pattern.format(how=results["aggregation"], n=n)
    return 100 * results["accuracy"][f"{split}/{name}"]["mean"]


def render(results: Results) -> str:
    """The tables as Markdown, cheapest rows first."""
    found = list(rows(results))
    if not found:
        return NOT_YET
    sizes, costs = results["sizes"], results["spent"]
    right = [f"{split}: {n}" for split in SPLITS for n in sizes]
    none = ["–"] * len(COSTS)
    lines = [
        (
            "the solver, which every row needs",
            [*_cells(costs[SOLVER]), *("–" for _ in right)],
        ),
        *((TITLES[p].format(n="N"), [*none, *_shares(results, p)]) for p in FREE),
    ]
    for pattern, stage in sorted(found, key=lambda row: costs[row[1]]["flops"]):
        cells = [*_cells(costs[stage]), *_shares(results, pattern)]
        lines.append((TITLES[pattern], cells))
    seeds = ", ".join(map(str, results["seeds"]))
    return "\n\n".join(
        (
            "![Accuracy against the compute of training](compute.svg)",
            table(["trained", *COSTS.values(), *right], lines),
            _stage_table(results),
            f"Seeds {seeds}: means. Accuracy of the best of "
            f"{' and of '.join(map(str, sizes))} in %; tokens in thousands. Made by "
            "`benchmarks/compare_table.py` from `benchmarks/results/compare.json`.",
        )
    )


def _stage_table(results: Results) -> str:
    """What each stage took by itself, in the order of the run."""
    lines = [
        (stage, _cells(costs))
        for stage, costs in results["stage_costs"].items()
        if costs and costs["flops"]
    ]
    return table(["stage by itself", *COSTS.values()], lines)


def _shares(results: Results, pattern: str) -> list[str]:
    sizes = results["sizes"]
    found = (accuracy(results, pattern, s, n) for s in SPLITS for n in sizes)
    return [f"{share:.1f}" for share in found]


def _cells(costs: dict[str, float]) -> list[str]:
    scaled = (costs[name] / UNITS.get(name, 1) for name in COSTS)
    places = (3 if name == "flops" else 0 for name in COSTS)
    return [f"{n:,.{digits}f}" for n, digits in zip(scaled, places, strict=True)]


def draw(results: Results, path: Path) -> None:
    """A line an axis, a panel a split: each row's choices from few and many samples."""
    import matplotlib.pyplot as plt

    if not (found := list(rows(results))):
        return
    shape = (len(AXES), len(SPLITS))
    figure, panels = plt.subplots(*shape, figsize=(12, 9), squeeze=False)
    sizes = results["sizes"]
    for line, (name, axis) in zip(panels, AXES.items(), strict=True):
        for panel, split in zip(line, SPLITS, strict=True):
            for k, (pattern, stage) in enumerate(found):
                cost = results["spent"][stage][name] / UNITS.get(name, 1)
                shares = [accuracy(results, pattern, split, n) for n in sizes]
                panel.plot([cost] * len(sizes), shares, "-", color=f"C{k}", lw=1)
                for share, mark in zip(shares, MARKS, strict=False):
                    panel.plot(cost, share, mark, color=f"C{k}")
            majority = accuracy(results, FREE[0], split, sizes[-1])
            panel.axhline(majority, ls=":", color="grey")
            panel.set_xlim(left=0)
            panel.set_xlabel(axis)
            panel.set_title(split)
        line[0].set_ylabel("% solved")
    panel = panels[0][0]
    for k, (pattern, _) in enumerate(found):
        panel.plot([], [], color=f"C{k}", label=TITLES[pattern].strip("*"))
    for n, mark in zip(sizes, MARKS, strict=False):
        panel.plot([], [], mark, color="grey", label=f"best of {n}")
    panel.plot([], [], ":", color="grey", label=f"majority of {sizes[-1]}")
    figure.legend(loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    save_figure(figure, path)
