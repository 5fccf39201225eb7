"""A learning Generator beside its reference: which mixture R learns most from, on dev.

This file is also the config of its runs:

    for seed in 0 1; do
      python -m aprm_jax.main --config=benchmarks/mixture.py --config.seed=$seed \\
        --workdir=runs/mixture-$seed
    done
    python benchmarks/mixture.py runs/mixture-0 runs/mixture-1

The game of configs/pressure.py from one start: G frozen, G alone, a tether four times
as strong, a third of its learning rate, half of the situations answered by the
reference (`game.reference_share`), and that with the strong tether. Accuracy of
best-of-N on 200 problems of `dev`: benchmarks/results/mixture.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aprm_jax.config import check_arg, override, read_config_file, run_local, set_stages

ROOT = Path(__file__).resolve().parents[1]
ARMS = {
    "prm_frozen": {"game.freeze_generator": True},
    "aprm": {},
    "tether": {"game.beta_generator": 0.2},
    "slow": {"game.generator_learning_rate": 3e-4},
    "mixed": {"game.reference_share": 0.5},
    "mixed_tether": {"game.reference_share": 0.5, "game.beta_generator": 0.2},
}


def get_config(arg: str = "") -> Any:
    """Of a run; `runlocal` is a cut of it."""
    check_arg(arg)
    c = read_config_file(ROOT / "configs/pressure.py")
    c.name = "mixture"
    before = ("solver:sft", "generator:sft", "prm_warmup:prm")
    set_stages(c, (*before, "evaluate"))
    set_stages(c, (*before, *(f"{name}:aprm" for name in ARMS), "evaluate"))
    for name, fields in ARMS.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(ARMS)
    c.evaluate.attack_prms = c.evaluate.solvers = ()
    c.evaluate.splits = ("dev",)
    c.evaluate.samples = (8, 32, 128, 512)
    c.evaluate.problems = 200
    if arg:
        run_local(c)
        c.evaluate.samples = (2, 4, 8)
    return c


def main() -> None:
    import numpy as np
    from compare_table import commit, one_line_each

    found: dict[str, Any] = {
        "command": "python -m aprm_jax.main --config=benchmarks/mixture.py "
        "--config.seed=SEED",
        "commit": commit(),
        "split": "dev",
        "seeds": [],
        "percent": {},
    }
    for run in map(Path, sys.argv[1:]):
        config = json.loads((run / "config.json").read_text())
        found["seeds"].append(config["seed"])
        found["sizes"] = config["evaluate"]["samples"]
        with np.load(run / "evaluate/per_problem/dev.npz") as arrays:
            for arm in ARMS:
                means = [arrays[f"{arm}.min@{n}"].mean() for n in found["sizes"]]
                row = [round(100 * float(mean), 1) for mean in means]
                found["percent"].setdefault(arm, []).append(row)
    path = ROOT / "benchmarks/results/mixture.json"
    path.write_text(one_line_each(found))


if __name__ == "__main__":
    main()
