"""How much of each split's arithmetic a game's training problems hold.

    python benchmarks/arithmetic_facts.py

A fact is two numbers with a sign between them in a question or a step, such as
`7 * 4`; a PRM that has never met one cannot know its value. Counts the facts of the
quickstart's evaluation problems that stand in the problems of as many game rounds as
it plays, for three seeds, and writes `benchmarks/results/arithmetic_facts.json`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from compare_table import ROOT, commit

from aprm_jax.config import read_config_file, with_fields
from aprm_jax.data.problem import Problem
from aprm_jax.jobs.context import Context

SEEDS = (0, 1, 2)
_FACT = re.compile(r"(?=(?<!\d)(\d+) ([-+*]) (\d+)(?!\d))")
Fact = tuple[int, str, int]


def facts(problems: Iterable[Problem]) -> set[Fact]:
    """Of the questions and of the steps of their solutions."""
    lines = (line for p in problems for line in (p.question, *p.steps))
    return {
        (int(a), sign, int(b)) for line in lines for a, sign, b in _FACT.findall(line)
    }


def shares(seed: int) -> dict[str, float]:
    """Of each split, % of its facts that the game's problems hold."""
    config = read_config_file(ROOT / "configs/quickstart.py")
    config = with_fields(config, {"seed": seed})
    domain = Context(config, Path(), "evaluate").domain
    game = config.game
    drawn = 2 * max(game.groups, game.prm_clean, game.static_probe) * game.updates
    known = facts(domain.train(i) for i in range(drawn))
    out = {}
    for split in ("test", "longer", "larger", "worded"):
        met = facts(domain.problems(split, config.evaluate.problems))
        out[split] = 100 * len(met & known) / len(met)
    return out


def main() -> None:
    """Writes the shares of every seed, and their means and ranges."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = {str(seed): shares(seed) for seed in SEEDS}
    record = {
        "command": "python benchmarks/arithmetic_facts.py",
        "commit": commit(),
        "seeds": list(SEEDS),
        "percent_known": rows,
    }
    path = ROOT / "benchmarks/results/arithmetic_facts.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    for split in rows["0"]:
        values = [row[split] for row in rows.values()]
        print(
            f"{split}: {np.mean(values):.1f} % ({min(values):.1f} to {max(values):.1f})"
        )


if __name__ == "__main__":
    main()
