"""Accuracy of `configs/naive_pressure.py`, over as many seeds as there are.

    python benchmarks/naive_pressure.py collect RUN...   # a file a seed
    python benchmarks/naive_pressure.py tables           # docs/results.md

`collect` keeps what a run found in `benchmarks/results/naive_pressure/seed_K.json`,
accuracies of every problem in thousandths; `tables` pools whichever seeds are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import (
    HARD,
    ROOT,
    last_rounds,
    one_line_each,
    pooled_row,
    replace_between,
    table,
)
from seed_files import of_run, read, tables_wanted, write

from aprm_jax.training.metrics import read_metrics

RESULTS = ROOT / "benchmarks/results/naive_pressure"
TITLES = {
    "prm_frozen_drawn": "frozen, as drawn",
    "aprm_drawn": "learning, as drawn",
    "prm_frozen": "frozen, hard rows",
    "aprm": "learning, hard rows",
    "aprm_replay": "learning and imitating, hard rows",
}
CALLS = "verdicts, thousands"
GAPS = {
    "learning − frozen, as drawn": ("aprm_drawn", "prm_frozen_drawn"),
    "learning − frozen, hard rows": ("aprm", "prm_frozen"),
    "learning and imitating − frozen, hard rows": ("aprm_replay", "prm_frozen"),
    "what imitation adds": ("aprm_replay", "aprm"),
}


def main() -> None:
    if args := tables_wanted(__doc__, collect, RESULTS):
        replace_between(args.page, "naive_pressure", render(read(args.results)))


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found."""
    return collect_arms(run, results, "naive_pressure", TITLES)


def collect_arms(
    run: Path, results: Path, config_name: str, arms: Iterable[str]
) -> Path:
    """Writes what a finished run of a config found of its games.

    Args:
      run: its folder.
      results: the folder of the file that is written.
      config_name: of `configs/`.
      arms: stages of the run.

    Returns:
      The file.
    """
    arms = list(arms)
    config, found = of_run(run, f"configs/{config_name}.py:RUN")
    sizes, splits = config["evaluate"]["samples"], config["evaluate"]["splits"]
    found |= {
        "sizes": sizes,
        "splits": splits,
        "illegal_contractions": {
            arm: last_rounds(run / arm, f"kind_share/{HARD}") for arm in arms
        },
        "oracle_calls": {arm: _oracle_calls(run / arm) for arm in arms},
    }
    for split in splits:
        found[split] = accuracies(run, split, arms, sizes)
    return write(found, results, one_line_each(found))


def accuracies(
    run: Path, split: str, arms: Iterable[str], sizes: Sequence[int]
) -> dict[str, list[int]]:
    """ARM@N: how often best-of-N solves each problem of a split, in thousandths."""
    with np.load(run / "evaluate/per_problem" / f"{split}.npz") as arrays:
        return {
            f"{arm}@{n}": np.round(1000 * arrays[f"{arm}.min@{n}"]).astype(int).tolist()
            for arm in arms
            for n in sizes
        }


def _oracle_calls(stage: Path) -> int:
    """How many verdicts a game asked for: one for each distinct step of a round."""
    return int(sum(row["game/oracle_calls"] for row in read_metrics(stage)))


def render(seeds: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    return render_arms(seeds, TITLES, GAPS, "naive_pressure")


def render_arms(
    seeds: Sequence[dict[str, Any]],
    titles: Mapping[str, str],
    pairs: Mapping[str, tuple[str, str]],
    script: str,
) -> str:
    """Tables of games as Markdown.

    Args:
      seeds: what was collected.
      titles: of the games, by their stages.
      pairs: title to (stage, the stage that is taken from it).
      script: in benchmarks/, with results of its name.
    """
    sizes, splits = seeds[0]["sizes"], seeds[0]["splits"]
    if any((s["sizes"], s["splits"]) != (sizes, splits) for s in seeds):
        raise ValueError("the seeds were not measured alike")
    little, much = sizes[0], sizes[-1]
    at = [(split, n) for split in splits for n in (little, much)]
    rows = []
    for arm, title in titles.items():
        cells = [f"{100 * values(seeds, place, arm).mean():.1f}" for place in at]
        shares = [s["illegal_contractions"][arm] or 0.0 for s in seeds]
        each = ", ".join(f"{100 * share:.1f}" for share in shares)
        calls = np.mean([s["oracle_calls"][arm] for s in seeds]) / 1000
        rows.append((title, [*cells, each, f"{calls:.0f}"]))
    header = ["G", *(f"{split}: {n}" for split, n in at)]
    gaps = []
    for title, (ours, theirs) in pairs.items():
        cells = []
        for place in at:
            row = pooled_row(values(seeds, place, ours) - values(seeds, place, theirs))
            each = ", ".join(f"{100 * v:+.1f}" for v in row["by_seed"])
            cells.append(f"{100 * row['mean']:+.1f} ({each})")
        gaps.append((title, cells))
    problems = len(seeds[0][splits[0]][f"{next(iter(titles))}@{much}"])
    names = ", ".join(str(s["seed"]) for s in seeds)
    return "\n\n".join(
        [
            table([*header, "illegal contractions at the end, %", CALLS], rows),
            table(["points", *header[1:]], gaps),
            f"Seeds {names}; {problems} problems a split; best of {little} and {much} "
            "by the least step score, in %; in brackets each seed. Made by "
            f"`benchmarks/{script}.py` from `benchmarks/results/{script}/`.",
        ]
    )


def values(
    seeds: Sequence[dict[str, Any]], place: tuple[str, int], arm: str
) -> np.ndarray:
    """[seeds, problems] of one arm on a split at one N."""
    split, n = place
    return np.array([s[split][f"{arm}@{n}"] for s in seeds]) / 1000


if __name__ == "__main__":
    main()
