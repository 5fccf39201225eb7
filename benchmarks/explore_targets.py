"""PRMs of `configs/explore_targets.py` as targets, over as many seeds as there are.

    python benchmarks/explore_targets.py collect RUN...   # a file a seed
    python benchmarks/explore_targets.py tables           # docs/results.md

`collect` keeps of each PRM what its attacker came to, and how a solver fared that
learned from it alone, in `benchmarks/results/explore_targets/seed_K.json`; `tables`
pools whichever seeds are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rl
from attack import COLUMNS
from compare_table import ROOT, one_line_each, replace_between, table
from explore import TITLES
from scipy import stats
from seed_files import of_run, read, tables_wanted, write

from aprm_jax.config import frozen
from aprm_jax.evals.records import RESULTS as RECORDS
from aprm_jax.evals.records import read_results
from aprm_jax.jobs import of_run as runs
from aprm_jax.training.workdir import is_done

RESULTS = ROOT / "benchmarks/results/explore_targets"
RL = {
    "RL: dev before": "dev/before",
    "dev after": "dev/after",
    "test, one of 16": "test/after/pass@1",
    "any of 16": "test/after/pass@16",
}
PASSED = [
    f"{s}/{w}/pass@{n}"
    for s in ("test", "longer")
    for w in ("before", "after")
    for n in (1, 16)
]
GAPS = {
    "begun and paid − frozen, replies begun": ("both", "frozen_forced"),
    "learning − frozen, replies begun": ("forced", "frozen_forced"),
    "learning − frozen, without help": ("alone", "frozen"),
}


def main() -> None:
    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "explore_targets", render(read(args.results)))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a run found of the PRMs whose stages are complete."""
    _, found = of_run(run, "configs/explore_targets.py")
    config = frozen(runs.get_config(str(run)))
    for prm in TITLES:
        attacked, solved = run / f"attack_{prm}", run / f"rl_{prm}"
        if not (is_done(attacked) and is_done(solved)):
            continue
        records, _ = read_results(attacked / RECORDS, "")
        measured = {
            r.metric: round(r.value, 4)
            for r in records
            if r.set == "robustness" and not r.part
        }
        arm = rl.collect_arm(run, config, [solved.name])
        measured["dev/before"] = arm["before"]
        measured["dev/after"] = round(float(rl.dev_curve(arm)[1][-1]), 4)
        found[prm] = measured | {name: arm["pass"][name] for name in PASSED}
    return write(found, results, one_line_each(found))


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown: means, and each seed in brackets."""
    columns = COLUMNS | RL
    prms = [prm for prm in TITLES if any(prm in seed for seed in seeds)]
    rows = []
    for prm in prms:
        known = [seed[prm] for seed in seeds if prm in seed]
        cells = [
            _cell([arm[metric] for arm in known], metric) for metric in columns.values()
        ]
        rows.append((f"{TITLES[prm]} ({len(known)})", cells))
    gaps = [
        (title, [_difference(seeds, *pair, metric) for metric in columns.values()])
        for title, pair in GAPS.items()
        if all(prm in prms for prm in pair)
    ]
    numbers = ", ".join(str(seed["seed"]) for seed in seeds)
    return "\n\n".join(
        [
            table(["G while R learned (seeds)", *columns], rows),
            table(["difference", *columns], gaps),
            f"Seeds {numbers}: means, in brackets each; of differences, of the same "
            "seed, the 95 % interval of their mean over seeds (Student's t). An "
            "attacker has 10,000 oracle calls, starts from a Generator that knows the "
            "solver's mistakes, and imitates what fooled the PRM before. RL takes 100 "
            "rounds from the PRM alone; dev is the mean of the last three looks, test "
            "has 100 problems. All but robustness in %. Made by "
            "`benchmarks/explore_targets.py` from "
            "`benchmarks/results/explore_targets/`.",
        ]
    )


def _scaled(metric: str) -> tuple[float, int]:
    return (1.0, 2) if metric == "robustness_score" else (100.0, 0)


def _cell(values: Sequence[float], metric: str) -> str:
    scale, digits = _scaled(metric)
    each = ", ".join(f"{scale * v:.{digits}f}" for v in values)
    return f"{scale * np.mean(values):.{digits or 1}f} ({each})"


def _difference(
    seeds: Sequence[dict[str, Any]], first: str, second: str, metric: str
) -> str:
    """Of the seeds that have both."""
    scale, digits = _scaled(metric)
    apart = scale * np.array(
        [
            s[first][metric] - s[second][metric]
            for s in seeds
            if first in s and second in s
        ]
    )
    mean, digits = apart.mean(), digits or 1
    if len(apart) < 2 or not apart.any():
        return f"{mean:+.{digits}f}"
    reach = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return (
        f"{mean:+.{digits}f} ({mean - reach:+.{digits}f} to {mean + reach:+.{digits}f})"
    )


if __name__ == "__main__":
    main()
