"""How the text oracle judges steps whose truth is known.

    python benchmarks/oracle.py --gsm8k=data/gsm8k/train.jsonl --prm800k=data/prm800k
    python benchmarks/oracle.py --speed=data/gsm8k/train.jsonl

Writes `benchmarks/results/oracle.json`, `benchmarks/results/oracle_disagreements.json`
and what stands between the `oracle` markers of docs/oracle.md. Parts that are not asked
for keep the figures that they have. `--prm800k-half=0` measures the development half of
PRM800K's training steps and writes the disagreements only: the causes that somebody
filled in stay.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import oracle_gsm8k
import oracle_prm800k
import oracle_speed
from compare_table import ROOT, commit, replace_between, table
from oracle_changes import CHANGES, REWORDINGS

from aprm_jax.oracle.pool import EquivalencePool, PoolConfig
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Label

COMMAND = (
    "python benchmarks/oracle.py --gsm8k=data/gsm8k/train.jsonl --prm800k=data/prm800k"
)
SEED = 0
STEPS = 20_000
VARIED = 4_000
SPEED_STEPS = 2_000
DISAGREEMENTS = 50
DEADLINE = 60.0  # seconds: how busy a machine is must not change the figures
PARTS = ("gsm8k", "prm800k", "speed")
RESULTS = ROOT / "benchmarks/results/oracle.json"
READ = ROOT / "benchmarks/results/oracle_disagreements.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gsm8k", type=Path, help="GSM8K's train.jsonl")
    parser.add_argument("--steps", type=int, default=STEPS, help="GSM8K steps to draw")
    parser.add_argument(
        "--varied", type=int, default=VARIED, help="of these, to change and to reword"
    )
    parser.add_argument("--prm800k", type=Path, help="folder of PRM800K's phase 1")
    parser.add_argument("--workers", type=int, default=0, help="of the pool; 0 = none")
    parser.add_argument("--prm800k-half", type=int, choices=(0, 1))
    parser.add_argument("--speed", type=Path, help="GSM8K's train.jsonl, to time it")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/oracle.md")
    args = parser.parse_args()
    found = {}
    if args.gsm8k is not None:
        steps = oracle_gsm8k.read_steps(args.gsm8k, args.steps, SEED)
        found["gsm8k"] = {
            "commit": commit(),
            "steps": len(steps),
            "varied": args.varied,
            "verdicts": oracle_gsm8k.measure(steps, SEED, args.varied),
        }
    if args.speed is not None:
        steps = oracle_gsm8k.read_steps(args.speed, SPEED_STEPS, SEED)
        found["speed"] = {
            "commit": commit(),
            "load_average": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
            **oracle_speed.measure(steps),
        }
    if args.prm800k is not None:
        measured = _prm800k(args.prm800k, args.prm800k_half, args.workers)
        if args.prm800k_half is None:
            found["prm800k"] = {"commit": commit(), **measured}
        else:
            print(json.dumps(measured, indent=1))
    before = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results = {"command": COMMAND, "seeds": [SEED]}
    results |= {p: found.get(p, before.get(p)) for p in PARTS if p in found | before}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    replace_between(args.page, "oracle", render(results, _causes()))


def _prm800k(folder: Path, half: int | None, workers: int) -> dict:
    name = "phase1_test" if half is None else "phase1_train_plus"
    steps = oracle_prm800k.read_rated(folder / f"{name}.jsonl.gz", half)
    measured: dict = {"workers": workers}
    disagreed = []
    bounds = PoolConfig(workers=workers or 1, deadline_s=DEADLINE)
    with EquivalencePool(bounds) as pool:
        oracle = TextOracle(pool if workers else None)
        for known in (False, True):
            pairs = list(oracle_prm800k.judged(steps, oracle, known))
            key = "with_original" if known else "without_original"
            measured[key] = oracle_prm800k.measure(pairs)
            if half is not None:
                disagreed += oracle_prm800k.disagreements(pairs, _causes(by_key=True))
    if half is not None:
        distinct = list({entry["key"]: entry for entry in disagreed}.values())
        # Those that somebody read first, then evenly from the others.
        distinct.sort(key=lambda entry: not entry["cause"])
        text = json.dumps(distinct[:DISAGREEMENTS], indent=1, ensure_ascii=False)
        READ.write_text(text + "\n")
    return measured


def _causes(by_key: bool = False) -> dict:
    """How often each cause was found, or the cause of each step that was read."""
    entries = json.loads(READ.read_text()) if READ.is_file() else []
    causes = {entry["key"]: entry["cause"] for entry in entries if entry["cause"]}
    return causes if by_key else dict(Counter(causes.values()).most_common())


def render(results: dict, causes: dict[str, int]) -> str:
    """The tables as Markdown."""
    parts = []
    if "gsm8k" in results:
        parts.append(_gsm8k_table(results["gsm8k"]))
    if "prm800k" in results:
        parts.append(_prm800k_table(results["prm800k"]))
    if causes:
        rows = [(cause, [str(count)]) for cause, count in causes.items()]
        parts.append(table(["disagreements read, by cause", "steps"], rows))
    if "speed" in results:
        parts.append(_speed_table(results["speed"]))
    parts.append("Made by `benchmarks/oracle.py`.")
    return "\n\n".join(parts)


def _gsm8k_table(measured: dict) -> str:
    titles = {
        "human": "human steps, the correct step unknown",
        **{kind: f"changed: {kind}" for kind in CHANGES},
        **{kind: f"reworded: {kind}" for kind in REWORDINGS},
    }
    rows = []
    for kind, title in titles.items():
        cells = []
        for reading in oracle_gsm8k.READINGS:
            counts = measured["verdicts"][reading].get(kind)
            if counts is None:
                cells += ["0", "–", "–", "–"]
                continue
            total = sum(counts.values())
            shares = [counts[label.name] / total for label in Label]
            cells += [f"{total:,}", *(f"{100 * share:.2f} %" for share in shares)]
        rows.append((title, cells))
    header = ["GSM8K train", "steps", "incorrect", "correct", "undecidable"]
    header += ["steps, annotations removed", *header[2:]]
    return table(header, rows)


def _prm800k_table(measured: dict) -> str:
    rows = []
    for key in ("without_original", "with_original"):
        found = measured[key]
        wrong = found["ratings"]["INCORRECT"]
        cells = [f"{found['steps']:,}", f"{found['bad']:,}", f"{sum(wrong.values()):,}"]
        cells += [
            "–" if found[name] is None else f"{100 * found[name]:.1f} %"
            for name in ("precision", "coverage")
        ]
        rows.append((f"{key.replace('_', ' the ')} step", cells))
    header = ["PRM800K phase 1 test", "rated steps", "rated −1", "judged incorrect"]
    return table([*header, "of these rated −1", "of the −1 found"], rows)


def _speed_table(measured: dict) -> str:
    titles = {
        "fast_annotated": "GSM8K steps, exact arithmetic",
        "fast_plain": "the same, annotations removed",
        "pool": "their equations through the pool",
    }
    rows = []
    for key, title in titles.items():
        rate = measured[key]
        cells = [f"{rate[x]:,}" for x in ("verdicts", "per_second", "per_cpu_second")]
        rows.append((title, cells))
    header = ["speed", "verdicts", "a second", "a processor second"]
    busy = f"{measured['cores']} cores, load average {measured['load_average']} before"
    return f"{table(header, rows)}\n\n{busy}; {oracle_speed.WORKERS} pool processes."


if __name__ == "__main__":
    main()
