"""How the GSM8K oracle judges human steps and mechanical corruptions of them.

    python benchmarks/oracle.py --train=data/gsm8k/train.jsonl

Writes `benchmarks/results/oracle.json` and what stands between the `oracle` markers of
README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter

import numpy as np
from compare_table import ROOT, commit, replace_between, table

from aprm_jax.data.gsm8k import Gsm8kDomain
from aprm_jax.oracle.verdict import Label

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--problems", type=int, default=7000)
    args = parser.parse_args()
    domain = Gsm8kDomain(train=args.train, test=args.train, seed=SEED, dev_count=1)
    rng = np.random.default_rng(SEED)
    human: Counter = Counter()
    corrupted: Counter = Counter()
    seconds = 0.0
    for index in range(min(args.problems, domain.num_train)):
        problem = domain.train(index)
        for k, step in enumerate(problem.steps):
            at = (problem.question, problem.steps[:k])
            start = time.perf_counter()
            human[domain.oracle.judge(*at, None, step).label] += 1
            seconds += time.perf_counter() - start
            wrong = domain.corrupt(rng, *at, step)
            if wrong is not None and wrong != step:
                corrupted[domain.oracle.judge(*at, step, wrong).label] += 1
    results = {
        "command": "python benchmarks/oracle.py --train=…/train.jsonl",
        "commit": commit(),
        "seeds": [SEED],
        "human": {label.name: human[label] for label in Label},
        "corrupted": {label.name: corrupted[label] for label in Label},
        "human_verdicts_per_second": round(sum(human.values()) / seconds),
    }
    out = ROOT / "benchmarks/results/oracle.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    replace_between(ROOT / "README.md", "oracle", render(results))


def render(results: dict) -> str:
    """The table as Markdown."""
    rows = []
    titles = {
        "human": "human steps, the original unknown",
        "corrupted": "one mechanical change each, the original known",
    }
    for key, title in titles.items():
        counts = results[key]
        total = sum(counts.values())
        shares = [f"{100 * counts[x.name] / total:.2f} %" for x in Label]
        rows.append((title, [f"{total:,}", *shares]))
    header = ["GSM8K train", "steps", *(label.name.lower() for label in Label)]
    return (
        f"{table(header, rows)}\n\nMade by `benchmarks/oracle.py`. Its rules were "
        "written while looking at this training split."
    )


if __name__ == "__main__":
    main()
