"""Exploration with a solver's help from a naive start, over as many seeds as there are.

    python benchmarks/explore.py collect RUN...   # a file a seed
    python benchmarks/explore.py tables           # docs/results.md

`collect` keeps what a run of `configs/explore.py` found in
`benchmarks/results/explore/seed_K.json`, accuracies of every problem in thousandths;
`tables` pools whichever seeds are there. Games without help are those of
`benchmarks/results/naive_pressure/`; that config plays them again, bit for bit. What
was tried on dev before, and is not in the code any more, is in `tried.json` there, with
the commit that has it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import naive_pressure
from compare_table import ROOT, replace_between, table
from seed_files import read, tables_wanted

RESULTS = ROOT / "benchmarks/results/explore"
# Its games without help, as naive_pressure.py names them.
ALONE = {"frozen": "prm_frozen", "alone": "aprm_replay"}
TITLES = {
    "frozen": "frozen",
    "frozen_forced": "frozen, replies begun by the solver",
    "alone": "learning",
    "forced": "learning, replies begun by the solver",
    "both": "learning, begun, and paid for plausible errors",
}
GAPS = {
    "learning − frozen, without help": ("alone", "frozen"),
    "learning − frozen, replies begun": ("forced", "frozen_forced"),
    "begun and paid − frozen, replies begun": ("both", "frozen_forced"),
    "what begun replies add to the frozen one": ("frozen_forced", "frozen"),
    "what they add to the learning one": ("forced", "alone"),
    "what both add to it": ("both", "alone"),
}


def main() -> None:
    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "explore", render(read(args.results)))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found."""
    helped = [arm for arm in TITLES if arm not in ALONE]
    return naive_pressure.collect_arms(run, results, "explore", helped)


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    alone = {s["seed"]: s for s in read(naive_pressure.RESULTS)}
    whole = [_with_alone(s, alone[s["seed"]]) for s in seeds]
    tables = naive_pressure.render_arms(whole, TITLES, GAPS, "explore")
    return f"{tables}\n\n{_tried(json.loads((RESULTS / 'tried.json').read_text()))}"


def _tried(found: dict[str, Any]) -> str:
    """What was tried on some seeds, as Markdown."""
    seeds = [str(seed) for seed in found["seeds"]]
    rows = [
        (way, [f"{by_seed[s]:.1f}" if s in by_seed else "–" for s in seeds])
        for way, by_seed in found["percent"].items()
    ]
    header = [f"tried on {found['split']}, best of {found['n']}"]
    told = f"Commit {found['commit'][:7]}; `benchmarks/results/explore/tried.json`."
    return table([*header, *(f"seed {s}" for s in seeds)], rows) + f"\n\n{told}"


def _with_alone(seed: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """A seed's results with the games that were played without help."""
    shares = {arm: before["illegal_contractions"][name] for arm, name in ALONE.items()}
    shares |= seed["illegal_contractions"]
    out = seed | {"illegal_contractions": shares}
    for split in seed["splits"]:
        games = {
            f"{arm}@{n}": before[split][f"{name}@{n}"]
            for arm, name in ALONE.items()
            for n in seed["sizes"]
        }
        out[split] = games | seed[split]
    return out


if __name__ == "__main__":
    main()
