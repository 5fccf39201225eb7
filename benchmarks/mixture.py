"""A learning Generator beside its reference: which mixture R learns most from, on dev.

This file is also the config of its runs:

    for seed in 0 1; do
      python -m aprm_jax.main --config=benchmarks/mixture.py --config.seed=$seed \\
        --workdir=runs/mixture-$seed
    done
    for seed in 2 3 4; do  # those that two seeds left
      python -m aprm_jax.main \\
        --config=benchmarks/mixture.py:prm_frozen,aprm,aprm_mixed \\
        --config.seed=$seed --workdir=runs/mixture-$seed
    done
    python benchmarks/mixture.py runs/mixture-*

The game of configs/pressure.py from one start: G frozen, half of the situations
answered by the reference (`game.reference_share`), G alone, a tether four times as
strong, a third of its learning rate, reference and tether, what fooled R to imitate
(`game.generator_replay`), and reference and imitation. Accuracy of best-of-N on 200
problems of `dev`: benchmarks/results/mixture.json.
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
    "aprm_mixed": {"game.reference_share": 0.5},
    "tether": {"game.beta_generator": 0.2},
    "slow": {"game.generator_learning_rate": 3e-4},
    "mixed_tether": {"game.reference_share": 0.5, "game.beta_generator": 0.2},
    "replay": {"game.generator_replay": 48},
    "mixed_replay": {"game.reference_share": 0.5, "game.generator_replay": 48},
}


def get_config(arg: str = "") -> Any:
    """Of a run: `arg` names its arms by commas; `runlocal` is a cut of all."""
    wanted = tuple(ARMS) if arg in ("", "runlocal") else tuple(arg.split(","))
    for name in wanted:
        check_arg(name, ("runlocal", *ARMS))
    arms = {name: ARMS[name] for name in wanted}
    c = read_config_file(ROOT / "configs/pressure.py")
    c.name = "mixture"
    before = ("solver:sft", "generator:sft", "prm_warmup:prm")
    set_stages(c, (*before, "evaluate"))
    set_stages(c, (*before, *(f"{name}:aprm" for name in arms), "evaluate"))
    for name, fields in arms.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(arms)
    c.evaluate.attack_prms = c.evaluate.solvers = ()
    c.evaluate.splits = ("dev",)
    c.evaluate.samples = (8, 32, 128, 512)
    c.evaluate.problems = 200
    if arg == "runlocal":
        run_local(c)
        c.evaluate.samples = (2, 4, 8)
    return c


def main() -> None:
    import numpy as np
    from compare_table import commit, one_line_each

    path = ROOT / "benchmarks/results/mixture.json"
    # Seeds that are there already stay: a run may be on another machine.
    found: dict[str, Any] = json.loads(path.read_text())
    for run in map(Path, sys.argv[1:]):
        config = json.loads((run / "config.json").read_text())
        seed = str(config["seed"])
        found["commits"][seed] = commit()
        if found["sizes"] != config["evaluate"]["samples"]:
            raise SystemExit(f"{run}: the seeds were not measured alike")
        with np.load(run / "evaluate/per_problem/dev.npz") as arrays:
            for arm in config["evaluate"]["prms"]:
                means = [arrays[f"{arm}.min@{n}"].mean() for n in found["sizes"]]
                row = [round(100 * float(mean), 1) for mean in means]
                found["percent"].setdefault(arm, {})[seed] = row
    path.write_text(one_line_each(found))


if __name__ == "__main__":
    main()
