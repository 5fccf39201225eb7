"""Runs the README's first command as a new user would, and notes time and memory.

    python benchmarks/quickstart.py                    # seeds 0, 1 and 2
    python benchmarks/quickstart.py --seeds 0          # one alone
    python benchmarks/quickstart.py --runs=runs/bench  # kept; goes on where it stopped
    python benchmarks/quickstart.py --busy 1 2         # these two are not timed

The compilation cache of each seed starts empty, so that compiling is part of its time.
Writes `benchmarks/results/quickstart.json` and what stands between the `quickstart`
markers of README.md: accuracy over seeds, and where the time went. A stage's seconds
are those of whoever computed it, pieces of an evaluation added up: stages run side by
side, so they are more than the whole took. CPU seconds are those of all cores: they say
what a stage costs where the machine has other work too. Memory is that of all processes
together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import ROOT, commit, replace_between, table, write_seeds

_LOOKED_AT = 1.0  # seconds between two looks at the memory
COMMAND = "python -m aprm_jax.main --config=configs/quickstart.py"
# Column -> split and solver, "" for the run's own.
PLACES = {split: (split, "") for split in ("test", "longer", "larger", "worded")}
PLACES["test, foreign solver"] = ("test", "foreign")
# Row -> verifier and method; those with an {n} are shown at the least and most samples,
# weighted votes at the most.
ROWS = {
    "one sample": ("", "sample"),
    "greedy": ("", "greedy"),
    "majority of {n}": ("", "majority@{n}"),
    "PRM, static corruptions, best of {n}": ("prm_static", "min@{n}"),
    "APRM, best of {n}": ("aprm", "min@{n}"),
    "majority of {n}, weighted by the static PRM": ("prm_static", "vote_min@{n}"),
    "majority of {n}, weighted by APRM": ("aprm", "vote_min@{n}"),
    "any of {n} is right": ("", "pass@{n}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--busy", type=int, nargs="+", default=[], help="seeds run beside other work"
    )
    parser.add_argument("--runs", type=Path, help="kept; default: a temporary folder")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.runs or Path(scratch)
        runs = [run_once(root / f"seed_{seed}", seed) for seed in args.seeds]
    timed = [
        run for seed, run in zip(args.seeds, runs, strict=True) if seed not in args.busy
    ]
    if not timed:
        parser.error("--busy leaves no seed to time")
    results = {
        "command": COMMAND,
        "commit": ", ".join(dict.fromkeys(run["commit"] for run in runs)),
        "seeds": args.seeds,
        "cpus": os.cpu_count(),
        "timed_seeds": [seed for seed in args.seeds if seed not in args.busy],
        "wall_seconds": [run["wall_seconds"] for run in timed],
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "stage_seconds": _each(timed, "seconds"),
        "stage_cpu_seconds": _each(timed, "cpu_seconds"),
        "accuracy": accuracies([run["summary"] for run in runs]),
    }
    out = ROOT / "benchmarks/results/quickstart.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_seeds(out, results, json.dumps(results, indent=1) + "\n")
    replace_between(args.readme, "quickstart", render(results))


def run_once(folder: Path, seed: int) -> dict[str, Any]:
    """What one seed's run took and found; kept beside it, and read again."""
    kept = folder / "benchmark.json"
    if kept.exists():
        return json.loads(kept.read_text())
    workdir = folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [*COMMAND.split()[1:], f"--config.seed={seed}", f"--workdir={workdir}"]
    start, peak = time.perf_counter(), 0
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(_LOOKED_AT)
    if process.returncode:
        raise SystemExit(f"seed {seed} failed; the same command goes on")
    found = {
        "commit": commit(),
        "wall_seconds": round(time.perf_counter() - start, 1),
        "peak_bytes": peak,
        "stages": {
            path.parent.name: json.loads(path.read_text())
            for path in sorted(workdir.glob("*/done.json"), key=os.path.getmtime)
        },
        "summary": json.loads((workdir / "summary.json").read_text()),
    }
    kept.write_text(json.dumps(found))
    return found


def _resident(pid: int) -> int:
    """Bytes in memory of a process and of those that it has started."""
    parents: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            child = int(stat.parent.name)
            parents.setdefault(int(fields[1]), []).append(child)
            pages[child] = int(fields[21])  # proc_pid_stat(5): rss
    found, new = 0, [pid]
    while new:
        found += sum(pages.get(p, 0) for p in new)
        new = [child for p in new for child in parents.get(p, [])]
    return found * os.sysconf("SC_PAGE_SIZE")


def _each(runs: Sequence[dict], what: str) -> dict[str, list[float]]:
    """Stage -> its seconds in each run."""
    return {
        name: [round(run["stages"][name][what], 1) for run in runs]
        for name in runs[0]["stages"]
    }


def accuracies(summaries: Sequence[dict[str, float]]) -> dict[str, dict[str, list]]:
    """Row -> column -> share of problems solved, a number a seed."""
    prefix = "solver.test.pass@"
    found = [key.removeprefix(prefix) for key in summaries[0] if key.startswith(prefix)]
    sizes = sorted(int(size) for size in found if size.isdigit())
    out: dict[str, dict[str, list]] = {}
    for title, (verifier, method) in ROWS.items():
        for n in sizes[-1:] if method.startswith("vote") else (sizes[0], sizes[-1]):
            out[title.format(n=n)] = {
                place: [
                    s[_name(split, verifier, solver, method.format(n=n))]
                    for s in summaries
                ]
                for place, (split, solver) in PLACES.items()
            }
    return out


def _name(split: str, verifier: str, solver: str, metric: str) -> str:
    """The dotted name of an accuracy in `summary.json`."""
    fields = ("solver", split, verifier, solver, metric)
    return ".".join(field for field in fields if field)


def render(results: dict) -> str:
    """How well the rows do, how seeds differ, and where the time went."""
    seeds = ", ".join(map(str, results["seeds"]))
    minutes = [seconds / 60 for seconds in results["wall_seconds"]]
    took = f"{min(minutes):.1f} to {max(minutes):.1f} minutes"
    if len(minutes) == 1:
        took = f"{minutes[0]:.1f} minutes with seed {results['timed_seeds'][0]}"
    stages = ", ".join(
        f"{name} {np.mean(seconds):.0f}"
        for name, seconds in results["stage_seconds"].items()
    )
    spread = [
        (name, [_spread(by_place[place]) for place in PLACES])
        for name, by_place in results["accuracy"].items()
    ]
    return "\n".join(
        [
            f"% solved over seeds {seeds}, mean (least to most):"
            if len(results["seeds"]) > 1
            else f"% solved with seed {seeds} alone:",
            "",
            table(["the answer is chosen by", *PLACES], spread),
            "",
            "Problems, order and random draws depend on the seed alone. Rounding "
            "depends on the machine, and training amplifies it: expect of another "
            "machine what other seeds give.",
            "",
            f"A run took {took} on {results['cpus']} CPU cores, compilation included, "
            f"and {results['peak_bytes'] / 2**30:.1f} GiB of memory at most (seconds "
            f"of each stage, most side by side: {stages}; `benchmarks/quickstart.py`).",
        ]
    )


def _spread(shares: Sequence[float]) -> str:
    percent = 100 * np.asarray(shares)
    if len(percent) == 1:
        return f"{percent[0]:.1f}"
    return f"{percent.mean():.1f} ({percent.min():.1f}–{percent.max():.1f})"


if __name__ == "__main__":
    main()
