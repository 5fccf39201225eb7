"""What helps a naive Generator to find the solver's errors, on dev.

This file is also the config of its runs:

    for seed in 0 1; do
      python -m aprm_jax.main --config=benchmarks/exploration.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/exploration-$seed
    done
    python benchmarks/exploration.py runs/exploration-*

G starts from static corruptions alone, as in configs/naive_pressure.py, from the solver
and the warm-up of a finished configs/pressure.py run: frozen, learning, and learning
with what fooled R to imitate (`game.generator_replay`). Accuracy of best-of-N on 200
problems of `dev`, and how often G writes the solver's most frequent error at the end:
benchmarks/results/exploration.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aprm_jax.config import override, read_config_file, run_local, set_stages

ROOT = Path(__file__).resolve().parents[1]
ARMS = {
    "prm_frozen": {"game.freeze_generator": True},
    "aprm": {},
    "replay_24": {"game.generator_replay": 24},
    "replay_96": {"game.generator_replay": 96},
}


def get_config(arg: str = "") -> Any:
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(ROOT / "configs/naive_pressure.py", arg)
    c.name = "exploration"
    before = [s for s in c.stages if s.split(":")[1:] in (["sft"], ["prm"])]
    set_stages(c, (*before, *(f"{name}:aprm" for name in ARMS), "evaluate"))
    for name, fields in ARMS.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(ARMS)
    c.evaluate.splits = ("dev",)
    c.evaluate.problems = 200
    if arg == "runlocal":
        run_local(c)
    return c


def main() -> None:
    import numpy as np
    from compare_table import HARD, commit, last_rounds, one_line_each

    path = ROOT / "benchmarks/results/exploration.json"
    found: dict[str, Any] = {
        "command": "python -m aprm_jax.main --config=benchmarks/exploration.py:RUN "
        "--config.seed=SEED",
        "commit": commit(),
        "split": "dev",
        "percent": {},
        "illegal_contractions": {},
    }
    for run in map(Path, sys.argv[1:]):
        config = json.loads((run / "config.json").read_text())
        seed, found["sizes"] = str(config["seed"]), config["evaluate"]["samples"]
        with np.load(run / "evaluate/per_problem/dev.npz") as arrays:
            for arm in config["evaluate"]["prms"]:
                means = [arrays[f"{arm}.min@{n}"].mean() for n in found["sizes"]]
                row = [round(100 * float(mean), 1) for mean in means]
                found["percent"].setdefault(arm, {})[seed] = row
                share = last_rounds(run / arm, f"kind_share/{HARD}")
                found["illegal_contractions"].setdefault(arm, {})[seed] = share
    path.write_text(one_line_each(found))


if __name__ == "__main__":
    main()
