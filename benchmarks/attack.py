"""How robust the PRMs of `configs/pressure.py` are, over as many seeds as there are.

    python benchmarks/attack.py collect RUN...   # of configs/attack.py:PRESSURE_RUN
    python benchmarks/attack.py tables           # docs/results.md

`collect` keeps what `job=attack` found of each PRM in
`benchmarks/results/attack/seed_K.json`; `tables` pools whichever seeds are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, one_line_each, replace_between, table
from seed_files import PRMS, of_run, read, tables_wanted, write

from aprm_jax.evals.records import RESULTS as RECORDS
from aprm_jax.evals.records import read_results

RESULTS = ROOT / "benchmarks/results/attack"
TITLES = {k: v for k, v in PRMS.items() if k != "aprm_drawn"}
COLUMNS = {
    "robustness": "robustness_score",
    "fooled at first, %": "start_fool_rate",
    "by the strongest attacker": "fool_rate",
    "by its best of 64": "searched_fool_rate",
    "right steps accepted, %": "accepted_rate",
}


def main() -> None:
    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "attack", render(read(args.results)))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found, of each PRM under its stage's name."""
    config, found = of_run(run, "configs/attack.py:RUN")
    found["oracle_calls"] = config["attack"]["oracle_calls"]
    records, _ = read_results(run / "attack" / RECORDS, "")
    for record in records:
        if record.set == "robustness" and not record.part:
            stage = Path(record.verifier).parent.name  # of its model's folder
            prm = found.setdefault(stage, {})
            prm[record.metric] = round(record.value, 4)
    imitates = config["game"]["generator_replay"] > 0
    name = "" if imitates else "without_imitation_"
    found["command"] += "" if imitates else " --config.game.generator_replay=0"
    return write(found, results, one_line_each(found), name)


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
