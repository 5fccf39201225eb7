"""What keeps a learning Generator from leaving the solver's errors behind, on dev.

This file is also the config of its runs:

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=benchmarks/drift.py --config.seed=$seed \\
        --workdir=runs/drift-$seed
    done
    python benchmarks/drift.py runs/drift-*

The game of configs/pressure.py from one start: G frozen, G learning plainly, with what
fooled R to imitate (`game.generator_replay`), with a tether four times as strong, and
at a third of its learning rate; `FILE:NAME,NAME` has some of them. Accuracy of
best-of-N on 200 problems of `dev`: benchmarks/results/drift.json, where arms that did
not help stand with the commit that has their code.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from aprm_jax.config import check_arg, override, read_config_file, run_local, set_stages

ROOT = Path(__file__).resolve().parents[1]
ARMS = {
    "prm_frozen": {"game.freeze_generator": True},
    "aprm_plain": {},
    "aprm": {"game.generator_replay": 48},
    "tether": {"game.beta_generator": 0.2},
    "slow": {"game.generator_learning_rate": 3e-4},
}


def get_config(arg: str = "") -> Any:
    """Of a run: `arg` names its arms by commas; `runlocal` is a cut of all."""
    wanted = tuple(ARMS) if arg in ("", "runlocal") else tuple(arg.split(","))
    for name in wanted:
        check_arg(name, ("runlocal", *ARMS))
    arms = {name: ARMS[name] for name in wanted}
    c = read_config_file(ROOT / "configs/pressure.py")
    c.name = "drift"
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

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="finished runs of this file")
    path = ROOT / "benchmarks/results/drift.json"
    # Seeds that are there already stay: a run may be on another machine.
    found: dict[str, Any] = json.loads(path.read_text())
    for run in parser.parse_args().runs:
        config = json.loads((run / "config.json").read_text())
        seed = str(config["seed"])
        if found["sizes"] != config["evaluate"]["samples"]:
            raise SystemExit(f"{run}: the seeds were not measured alike")
        with np.load(run / "evaluate/per_problem/dev.npz") as arrays:
            for arm in config["evaluate"]["prms"]:
                means = [arrays[f"{arm}.min@{n}"].mean() for n in found["sizes"]]
                row = [round(100 * float(mean), 1) for mean in means]
                found["percent"].setdefault(arm, {})[seed] = row
                found["commits"].setdefault(arm, {})[seed] = commit()
    path.write_text(one_line_each(found))


if __name__ == "__main__":
    main()
