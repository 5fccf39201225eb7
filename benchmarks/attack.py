"""How robust the PRMs of `configs/pressure.py` are, over as many seeds as there are.

    python benchmarks/attack.py collect RUN...   # of configs/attack.py:PRESSURE_RUN
    python benchmarks/attack.py tables           # docs/results.md

`collect` keeps what `job=attack` found of each PRM in
`benchmarks/results/attack/seed_K.json`; `tables` pools whichever seeds are there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, commit, one_line_each, replace_between, table

from aprm_jax.evals.records import RESULTS as RECORDS
from aprm_jax.evals.records import read_results

RESULTS = ROOT / "benchmarks/results/attack"
TITLES = {
    "prm_static": "static corruptions",
    "prm_monte_carlo": "Monte-Carlo labels",
    "prm_oracle": "exact labels of the solver's samples",
    "prm_frozen": "frozen Generator",
    "aprm_plain": "APRM without imitation",
    "aprm": "**APRM**",
}
COLUMNS = {
    "robustness": "robustness_score",
    "fooled at first, %": "start_fool_rate",
    "by the strongest attacker": "fool_rate",
    "by its best of 64": "searched_fool_rate",
    "right steps accepted, %": "accepted_rate",
}


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
    replace_between(args.page, "attack", render(seeds))


def collect(run: Path) -> None:
    """Writes what a finished run found, of each PRM under its stage's name."""
    config = json.loads((run / "config.json").read_text())
    found: dict[str, Any] = {
        "command": "python -m aprm_jax.main --config=configs/attack.py:RUN "
        f"--config.seed={config['seed']}",
        "commit": commit(),
        "seed": config["seed"],
        "oracle_calls": config["attack"]["oracle_calls"],
    }
    records, _ = read_results(run / "attack" / RECORDS, "")
    for record in records:
        if record.set == "robustness" and not record.part:
            stage = Path(record.verifier).parent.name  # of its model's folder
            prm = found.setdefault(stage, {})
            prm[record.metric] = round(record.value, 4)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"seed_{found['seed']}.json").write_text(one_line_each(found))


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: means, and each seed in brackets."""
    [calls] = {s["oracle_calls"] for s in seeds}
    rows = [
        (title, [_cell(seeds, prm, metric) for metric in COLUMNS.values()])
        for prm, title in TITLES.items()
    ]
    names = ", ".join(str(s["seed"]) for s in seeds)
    return "\n\n".join(
        [
            table(["attacked", *COLUMNS], rows),
            f"Seeds {names}; {calls:,} oracle calls an attacker, which starts from the "
            "run's Generator and imitates what fooled the PRM before. In brackets each "
            "seed. Made by `benchmarks/attack.py` from `benchmarks/results/attack/`.",
        ]
    )


def _cell(seeds: Sequence[dict[str, Any]], prm: str, metric: str) -> str:
    scale, digits = (1, 2) if metric == "robustness_score" else (100, 0)
    values = [scale * s[prm][metric] for s in seeds]
    each = ", ".join(f"{v:.{digits}f}" for v in values)
    return f"{np.mean(values):.{digits or 1}f} ({each})"


if __name__ == "__main__":
    main()
