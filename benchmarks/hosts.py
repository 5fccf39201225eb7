"""Processes as hosts: equal to one with as many devices, and SIGKILL at random moments.

    python benchmarks/hosts.py [--seconds=400] [--runs=FOLDER] [--until=60]

`quickstart:runlocal` on one process and on 2 and 4 over gloo, with as many devices:
which models have the same bits, and by how much the others differ. Then on two, one of
which is killed at a random moment, ten times: how the other ends, and whether the same
command on one process goes on to the models of a run that nothing interrupted. With
JAX_DISABLE_MOST_OPTIMIZATIONS=true, as tests compile, these are to have the same bits.
Each piece is written to `benchmarks/results/hosts.json` as soon as it is done; none
begins past `--seconds`, and the same command goes on with the next. When all are done,
the table of docs/scaling.md is made of them.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import numpy as np
import safetensors.numpy
from compare_table import ROOT, commit, replace_between, table

RESULTS = ROOT / "benchmarks" / "results" / "hosts.json"
PAGE = ROOT / "docs" / "scaling.md"
MODELS = ("solver", "foreign", "generator", "prm_warmup", "prm_static", "aprm")
# The evaluation is the leader's alone, on whatever devices it has.
STAGES = "solver:sft,foreign:sft,generator:sft,prm_warmup:prm,prm_static:prm,aprm:aprm"
KILLS = 10


def command(workdir: pathlib.Path, devices: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "aprm_jax.main",
        f"--config={ROOT}/configs/quickstart.py:runlocal",
        f"--config.stages={STAGES}",
        f"--config.mesh.data={devices}",
        "--config.checkpoint.every=2",
        f"--workdir={workdir}",
    ]


def start(workdir: pathlib.Path, devices: int, hosts: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = []
    for index in range(hosts):
        several = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(hosts),
            "JAX_PROCESS_ID": str(index),
        }
        with open(f"{workdir}.log{index}", "a") as log:
            running.append(
                subprocess.Popen(
                    command(workdir, devices),
                    env=os.environ
                    | {
                        "PYTHONPATH": str(ROOT),
                        "JAX_NUM_CPU_DEVICES": str(devices // hosts),
                    }
                    | (several if hosts > 1 else {}),
                    stdout=log,
                    stderr=log,
                )
            )
    return running


def finish(workdir: pathlib.Path, devices: int, hosts: int) -> None:
    codes = [process.wait() for process in start(workdir, devices, hosts)]
    if any(codes):
        raise SystemExit(f"{workdir}: exit codes {codes}; see {workdir}.log*")


def reference(runs: pathlib.Path, devices: int) -> pathlib.Path:
    """A run on one process; goes on where a time limit stopped it."""
    workdir = runs / f"one-{devices}"
    finish(workdir, devices, 1)
    return workdir


def difference(left: pathlib.Path, right: pathlib.Path) -> dict[str, float]:
    """The greatest difference of any parameter, by model."""
    found = {}
    for name in (*MODELS, "aprm/generator"):
        one, other = (
            safetensors.numpy.load_file(root / name / "model" / "params.safetensors")
            for root in (left, right)
        )
        found[name] = max(float(np.abs(one[k] - other[k]).max()) for k in one)
    return found


def equal(runs: pathlib.Path, hosts: int) -> dict[str, Any]:
    workdir = runs / f"hosts-{hosts}"
    finish(workdir, hosts, hosts)
    return {"largest_difference": difference(workdir, reference(runs, hosts))}


def killed(runs: pathlib.Path, number: int, until: float) -> dict[str, Any]:
    whole, workdir = reference(runs, 2), runs / f"killed-{number}"
    shutil.rmtree(workdir, ignore_errors=True)
    rng = random.Random(number)
    victim, after = rng.randrange(2), rng.uniform(0, until)
    processes = start(workdir, 2, 2)
    # Until both have met there is nothing to lose, and JAX waits for five minutes.
    while not (workdir / MODELS[0]).is_dir():
        time.sleep(0.1)
    time.sleep(after)
    processes[victim].send_signal(signal.SIGKILL)
    since = time.monotonic()
    code = processes[1 - victim].wait(timeout=120)
    took = time.monotonic() - since
    said = pathlib.Path(f"{workdir}.log{1 - victim}").read_text().splitlines()[-1:]
    stages = [name for name in MODELS if (workdir / name).is_dir()]
    finish(workdir, 2, 1)
    differs = difference(workdir, whole)
    shutil.rmtree(workdir)
    return {
        "victim": victim,
        "after_seconds": round(after, 1),
        "exit_code": code,
        "ended_in_seconds": round(took, 1),
        "said": said,
        "in_stage": stages[-1] if stages else "",
        "unoptimised": os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "true",
        "largest_difference": max(differs.values()),
    }


def render(known: dict[str, Any]) -> str:
    """The kills, as Markdown."""
    killed = {k: piece for k, piece in known.items() if k.startswith("killed-")}
    rows = [
        (
            f"host {piece['victim']}",
            [
                f"{piece['after_seconds']:.0f} s",
                piece["in_stage"],
                f"{piece['ended_in_seconds']:.1f} s",
                f"{piece['largest_difference']:g}",
            ],
        )
        for piece in sorted(killed.values(), key=lambda piece: piece["after_seconds"])
    ]
    header = ("killed", "after", "in", "the other ended within", "largest difference")
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "hosts")
    parser.add_argument("--until", type=float, default=60, help="of kills, seconds")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    pieces: dict[str, Any] = {
        f"equal-{n}": (lambda n=n: equal(args.runs, n)) for n in (2, 4)
    }
    pieces |= {
        f"killed-{n}": (lambda n=n: killed(args.runs, n, args.until))
        for n in range(KILLS)
    }
    for name, compute in pieces.items():
        if name in known:
            continue
        if time.monotonic() - begun > args.seconds / 2:
            print(f"{name} is next; run this again")
            return
        known[name] = {"commit": commit()} | compute()
        print(name, json.dumps(known[name]))
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    replace_between(PAGE, "hosts", render(known))


if __name__ == "__main__":
    main()
