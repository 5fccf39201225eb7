"""Accuracy on dev of `configs/hard_rows.py`'s arms, a seed a run.

python benchmarks/hard_rows.py RUN...      # benchmarks/results/hard_rows.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from compare_table import ROOT, commit, one_line_each


def main() -> None:
    found = {
        "command": "python -m aprm_jax.main --config=configs/hard_rows.py "
        "--config.seed=SEED",
        "commit": commit(),
        "split": "dev",
        "seeds": [],
        "problems": 0,
        "sizes": [],
        "percent": {},
    }
    for run in map(Path, sys.argv[1:]):
        config = json.loads((run / "config.json").read_text())
        found["seeds"].append(config["seed"])
        found["problems"] = config["evaluate"]["problems"]
        sizes = found["sizes"] = config["evaluate"]["samples"]
        with np.load(run / "evaluate/per_problem/dev.npz") as arrays:
            for arm in (*config["evaluate"]["prms"], "majority"):
                name = arm if arm == "majority" else f"{arm}.min"
                means = [float(np.mean(arrays[f"{name}@{n}"])) for n in sizes]
                row = found["percent"].setdefault(arm, [])
                row.append([round(100 * mean, 1) for mean in means])
    text = one_line_each(found)
    (ROOT / "benchmarks/results/hard_rows.json").write_text(text)


if __name__ == "__main__":
    main()
