"""Runs the README's first command as a new user would, and notes time and memory.

    python benchmarks/quickstart.py

The compilation cache starts empty, so that compiling is part of the time. Writes
`benchmarks/results/quickstart.json` and what stands between the `quickstart` markers of
README.md: the end of the run's own output.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_table import ROOT, commit, replace_between, table

COMMAND = "python -m aprm_jax.main --config=configs/quickstart.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, help="kept; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workdir = args.workdir or Path(scratch) / "quickstart"
        environment = os.environ | {"XDG_CACHE_HOME": str(Path(scratch) / "cache")}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *COMMAND.split()[1:], f"--workdir={workdir}"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        stages = {
            path.parent.name: json.loads(path.read_text())["seconds"]
            for path in sorted(workdir.glob("*/done.json"), key=os.path.getmtime)
        }
    results = {
        "command": COMMAND,
        "commit": commit(),
        "seeds": [0],
        "cpus": os.cpu_count(),
        "wall_seconds": round(seconds, 1),
        "peak_bytes": peak,
        "stage_seconds": {name: round(s, 1) for name, s in stages.items()},
    }
    out = ROOT / "benchmarks/results/quickstart.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    replace_between(ROOT / "README.md", "quickstart", render(results, done.stdout))


def render(results: dict, output: str) -> str:
    """What a run printed last, and where its time went."""
    lines = output.rstrip().splitlines()
    last = max(i for i, line in enumerate(lines) if "report (report)" in line)
    paths = ("summary:", "report:")  # where the files are is said elsewhere
    shown = [line.rstrip() for line in lines[last + 1 :] if not line.startswith(paths)]
    rows = [(name, [f"{s:.0f} s"]) for name, s in results["stage_seconds"].items()]
    return "\n".join(
        [
            "The end of its output:",
            "",
            "```text",
            *(line for line in shown if line),
            "```",
            "",
            f"It took {results['wall_seconds'] / 60:.1f} minutes on "
            f"{results['cpus']} CPU cores, compilation included, and "
            f"{results['peak_bytes'] / 2**30:.1f} GiB of memory at most "
            "(`benchmarks/quickstart.py`, seed 0):",
            "",
            table(["stage", "time"], rows),
            "",
            "![The report's first screen](docs/report.png)",
        ]
    )


if __name__ == "__main__":
    main()
