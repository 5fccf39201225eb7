"""RL on the planted-subsequence task: provers of gamma 2 to 100, and outcomes alone.

    python benchmarks/didactic.py run            # a seed after the other; goes on
    python benchmarks/didactic.py tables         # docs/results.md and docs/didactic.svg

`run` keeps what is done in `benchmarks/results/didactic.json`, a curve a seed and
prover, in means of 50 iterations. The paper reports that the planted sequence is found
by all samples after 350 iterations at gamma 10, and that gamma in [8, 15] helps alone.

Hardware: 2 CPU cores, no GPU. Time: 9 s a curve of 2,000 iterations on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import (
    ROOT,
    commit,
    one_line_each,
    replace_between,
    save_figure,
    table,
)

from aprm_jax.evals.intervals import over_seeds
from aprm_jax.theory.didactic import Didactic

GAMMAS = (None, 2, 5, 8, 10, 15, 25, 100)
MEAN = 50  # iterations of a point
SHARE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("run", "tables"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=2_000)
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks/results/didactic.json"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/didactic.svg")
    args = parser.parse_args()
    if args.action == "run":
        run(args.results, args.seeds, args.iterations)
        return
    found = json.loads(args.results.read_text())
    replace_between(args.page, "didactic", render(found))
    draw(found, args.figure)


def run(path: Path, seeds: int, iterations: int) -> None:
    """Computes the curves that are missing, and writes after each."""
    command = f"python benchmarks/didactic.py run --iterations={iterations}"
    found: dict[str, Any] = {"command": command, "curves": {}}
    if path.exists():
        found = json.loads(path.read_text())
        if found["command"] != command:
            raise SystemExit(f"{path} was made by {found['command']!r}: delete it")
    for seed in range(seeds):
        for gamma in GAMMAS:
            name = f"{_name(gamma)}/{seed}"
            if name in found["curves"]:
                continue
            curve = Didactic().rewards(gamma, iterations, seed)
            points = curve[: len(curve) // MEAN * MEAN].reshape(-1, MEAN).mean(axis=1)
            found["curves"][name] = [round(float(x), 4) for x in points]
            found["commit"] = commit()
            path.write_text(one_line_each(found))
            print(name, found["curves"][name][-1], flush=True)


def _name(gamma: int | None) -> str:
    return "outcomes" if gamma is None else f"gamma {gamma}"


def _curves(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Of each prover, [seeds, points]."""
    names = dict.fromkeys(key.partition("/")[0] for key in found["curves"])
    return {
        name: np.array(
            [c for key, c in found["curves"].items() if key.partition("/")[0] == name]
        )
        for name in names
    }


def render(found: dict[str, Any]) -> str:
    """The table as Markdown: when each prover's curve arrives, and where it ends."""
    rows = []
    for name, curves in _curves(found).items():
        reached = [np.flatnonzero(curve >= SHARE) for curve in curves]
        each = [f"{MEAN * (int(r[0]) + 1)}" if r.size else "–" for r in reached]
        ends = over_seeds(curves[:, -1])
        spread = "" if np.isnan(ends.stderr) else f" ± {100 * ends.stderr:.1f}"
        rows.append((name, [", ".join(each), f"{100 * ends.mean:.1f}{spread}"]))
    header = ["prover", f"iterations to {SHARE:.0%}, by seed", "rewarded at the end, %"]
    return "\n\n".join(
        [
            "![Share of rewarded samples against iterations](didactic.svg)",
            table(header, rows),
            "± is the standard error over seeds. Made by `benchmarks/didactic.py` from "
            "`benchmarks/results/didactic.json`.",
        ]
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """One line a prover, the least and the most of the seeds around it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, curves in _curves(found).items():
        x = MEAN * (1 + np.arange(curves.shape[1]))
        style = "k--" if name == "outcomes" else "-"
        axes.plot(x, curves.mean(axis=0), style, label=name)
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(x, low, high, alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.set_xlabel("iterations of RL")
    axes.set_ylabel("rewarded samples")
    axes.legend()
    figure.tight_layout()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
