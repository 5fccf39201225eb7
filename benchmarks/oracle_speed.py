"""How many verdicts a second the text oracle gives, with and without its pool."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from oracle_changes import stripped
from oracle_gsm8k import READINGS, Step

from aprm_jax.oracle.pool import EquivalencePool, PoolConfig
from aprm_jax.oracle.steps.comparison import read_step
from aprm_jax.oracle.steps.formula import latex_pair
from aprm_jax.oracle.steps.text import TextOracle

WORKERS = 2


def measure(steps: Sequence[Step]) -> dict:
    """Rates by the clock and by processor time; a busy machine slows the former."""
    return {
        **{f"fast_{reading}": _fast(steps, reading) for reading in READINGS},
        "pool": _through_pool(steps),
    }


def _fast(steps: Sequence[Step], reading: str) -> dict:
    """Every step beside its own correct form in other words, in this process alone."""
    if reading == "plain":
        steps = [(q, [stripped(x) for x in p], stripped(s)) for q, p, s in steps]
    oracle = TextOracle()
    wall, cpu = time.perf_counter(), time.process_time()
    for question, prefix, step in steps:
        oracle.judge(question, prefix, step, f"So {step}")
    return _rates(len(steps), time.perf_counter() - wall, time.process_time() - cpu)


def _through_pool(steps: Sequence[Step]) -> dict:
    """Both sides of each step's equations, asked of the pool's processes."""
    pairs = [
        latex_pair(relation.left.node, relation.right.node)
        for _, _, step in steps
        for relation in read_step(stripped(step)).reading.relations
    ]
    undecided = 0
    with EquivalencePool(PoolConfig(workers=WORKERS, deadline_s=10.0)) as pool:
        for future in [pool.submit("x", "x") for _ in range(4 * WORKERS)]:
            future.result()  # all processes have started
        wall, before = time.perf_counter(), _cpu(pool.pids)
        futures = [pool.submit(*pair) for pair in pairs]
        undecided = sum(future.result() is None for future in futures)
        rates = _rates(len(pairs), time.perf_counter() - wall, _cpu(pool.pids) - before)
    return {**rates, "workers": WORKERS, "undecided": undecided}


def _cpu(pids: Sequence[int]) -> float:
    """Processor seconds of some processes (Linux)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rates(count: int, wall: float, cpu: float) -> dict:
    return {
        "verdicts": count,
        "per_second": round(count / wall),
        "per_cpu_second": round(count / cpu),
    }
