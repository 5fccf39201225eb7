"""How much of each split's arithmetic a game's training problems hold.

    python benchmarks/arithmetic_facts.py [RUN...]

A fact is two numbers with a sign between them in a question or a step, such as
`7 * 4`; a PRM that has never met one cannot know its value. Counts the facts of the
quickstart's evaluation problems that stand in the problems of as many game rounds as
it plays, for three seeds; for each finished RUN of the quickstart, of how many more its
Generators write one, before the game and after it, in as many replies as a game draws
(every problem of it once, eight replies to a step). Writes
`benchmarks/results/arithmetic_facts.json`, in which what is not computed again stays.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from compare_table import ROOT, commit

from aprm_jax import Generator
from aprm_jax.config import Config, read_config_file, with_fields
from aprm_jax.data.problem import Problem
from aprm_jax.jobs.context import Context
from aprm_jax.tasks.protocols import Domain

SEEDS = (0, 1, 2)
GENERATORS = {"before": "generator/model", "after": "aprm/generator/model"}
_FACT = re.compile(r"(?=(?<!\d)(\d+) ([-+*]) (\d+)(?!\d))")
Fact = tuple[int, str, int]


def facts(problems: Iterable[Problem]) -> set[Fact]:
    """Of the questions and of the steps of their solutions."""
    return facts_of(line for p in problems for line in (p.question, *p.steps))


def facts_of(lines: Iterable[str]) -> set[Fact]:
    """Of lines of any kind."""
    return {
        (int(a), sign, int(b)) for line in lines for a, sign, b in _FACT.findall(line)
    }


def shares(seed: int) -> dict[str, float]:
    """Of each split, % of its facts that the game's problems hold."""
    config, domain = _domain(seed)
    known = facts(domain.train(i) for i in range(_drawn(config)))
    return {
        split: 100 * len(met & known) / len(met)
        for split, met in _asked(config, domain).items()
    }


def written(run: Path) -> dict[str, dict[str, float]]:
    """By Generator and split, % of the facts in the game's problems or its replies."""
    config, domain = _domain(json.loads((run / "config.json").read_text())["seed"])
    problems = [domain.train(i) for i in range(_drawn(config))]
    known, asked = facts(problems), _asked(config, domain)
    out = {}
    for name, folder in GENERATORS.items():
        more = known | facts_of(_replies(Generator.load(run / folder), problems))
        out[name] = {
            split: 100 * len(met & more) / len(met) for split, met in asked.items()
        }
    return out


def _replies(generator: Generator, problems: Sequence[Problem]) -> Iterator[str]:
    for index, problem in enumerate(problems):
        at = index % len(problem.steps)
        step, prefix = problem.steps[at], problem.steps[:at]
        yield from generator.perturb(problem.question, prefix, step, n=8, seed=index)


def _domain(seed: int) -> tuple[Config, Domain]:
    config = read_config_file(ROOT / "configs/quickstart.py")
    config = with_fields(config, {"seed": seed})
    return config, Context(config, Path(), "evaluate").domain


def _drawn(config: Config) -> int:
    """How many problems a game draws, at most."""
    game = config.game
    return 2 * max(game.groups, game.prm_clean, game.static_probe) * game.updates


def _asked(config: Config, domain: Domain) -> dict[str, set[Fact]]:
    return {
        split: facts(domain.problems(split, config.evaluate.problems))
        for split in ("test", "longer", "larger", "worded")
    }


def main() -> None:
    """Writes the shares of every seed, and their means and ranges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    args = parser.parse_args()
    path = ROOT / "benchmarks/results/arithmetic_facts.json"
    rows = {str(seed): shares(seed) for seed in SEEDS}
    record = {
        "command": "python benchmarks/arithmetic_facts.py RUN...",
        "commit": commit(),
        "seeds": list(SEEDS),
        "percent_known": rows,
        "percent_with_replies": json.loads(path.read_text())["percent_with_replies"],
    }
    for run in args.runs:
        seed = json.loads((run / "config.json").read_text())["seed"]
        record["percent_with_replies"][str(seed)] = written(run)
    path.write_text(json.dumps(record, indent=1) + "\n")
    for split in rows["0"]:
        values = [row[split] for row in rows.values()]
        print(
            f"{split}: {np.mean(values):.1f} % ({min(values):.1f} to {max(values):.1f})"
        )


if __name__ == "__main__":
    main()
