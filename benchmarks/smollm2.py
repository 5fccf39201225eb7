"""SmolLM2-135M as R on human labels, then as G against that R: what it costs and gives.

    python benchmarks/smollm2.py --workdir=RUN [--only=prm] [--tiny] [--field=F=V ...]

Runs, one after the other, each of which goes on where it was stopped: `memory` is two
updates of R and a few rounds against an untaught G; `prm` trains
R by adapters on PRM800K's first phase and measures it on PRM800K's test and
ProcessBench; `game` teaches G, plays 40 rounds against that R on GSM8K's steps (text
oracle), logs the perturbations, and measures R before and after. Whatever is there is
written down, so a run that is cut short leaves its part: RUN/smollm2.json, and with
--publish `benchmarks/results/smollm2.json` (tables: smollm2_table.py). `--tiny` runs
all of it on random models of the family, in four minutes.

As a config: --config=benchmarks/smollm2.py:prm, :game, :prm-tiny and so on. Data as
in configs/prm800k.py and configs/gsm8k.py. Time: hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aprm_jax.config import override, read_config_file, set_stages

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("memory", "prm", "game")
_PRM = "SMOLLM2_PRM"  # environment: the folder of R's run, for the game
_PRM_MODEL = Path("prm/run/prm/model")  # in --workdir
_SPENT = ("seconds", "cpu_seconds")  # of a stage that has ended
_ROUNDS = 3  # that memory is looked at in
_KEPT = 24  # perturbations that are shown, spread over the rounds


def get_config(arg: str = "prm") -> Any:
    """The config of a part, "-tiny" for its cut."""
    makers = {"memory": _of_memory, "prm": _of_prm, "game": _of_game}
    part, _, tiny = (arg or "prm").partition("-")
    if part not in PARTS or tiny not in ("", "tiny"):
        raise ValueError(
            f"{arg!r} is none of {', '.join(PARTS)}, each with or no -tiny"
        )
    return makers[part](bool(tiny))


def _of_memory(tiny: bool) -> Any:
    c = _read("smollm2_135m", tiny)
    c.name = "smollm2_memory"
    set_stages(c, ("prm_warmup:prm", "aprm"))
    c.prm.updates, c.prm.hard_share = 2, 0.0
    c.game.updates = _ROUNDS
    c.game.generator_from = "backbone"
    c.game.sample_log = c.checkpoint.every = 1
    return c


def _of_prm(tiny: bool) -> Any:
    c = _read("prm800k", tiny)
    c.name = "smollm2_prm"
    set_stages(c, ("prm:prm", "evaluate", "report"))
    c.solver.backbone = c.prm.backbone = "smollm2"
    c.prm.init_from = "backbone"
    c.evaluate.solver = ""
    c.lora.rank = 16
    c.prm.learning_rate = 2e-4
    c.domain.label_cut = 0.5
    if tiny:
        return _cut(c)
    c.builder.max_steps = 64
    c.prm.updates = 100  # 16 % of the rows, which two cores read in 50 minutes
    c.prm.warmup = 10
    c.prm.batch_size = 4
    c.prm.microbatches = 4
    c.checkpoint.every = 10
    return c


def _of_game(tiny: bool) -> Any:
    c = _read("smollm2_135m", tiny)
    c.name = "smollm2_game"
    set_stages(c, ("evaluate", "report"))
    set_stages(c, ("generator:teach", "aprm", "evaluate", "report"))
    prm = os.environ.get(_PRM, "prm")
    c.game.prm_from = c.teach.prm_from = prm
    c.evaluate.prms = (prm, "aprm")
    c.game.sample_log = 1
    if tiny:
        return c
    c.model.remat = "names"
    c.builder.sample_rows = 32  # a step reads all weights, for 8 rows or for 32
    c.sft.batch_size, c.sft.warmup, c.sft.learning_rate = 8, 5, 5e-4
    c.sft.solver_share = 0.0  # few of its own steps are decidably wrong
    c.teach.updates, c.teach.round_updates = 30, 15
    c.teach.situations = 16
    # Rounds that two cores play in two CPU minutes, of rows enough for both players.
    c.game.groups, c.game.generator_rows, c.game.generator_replay = 4, 16, 8
    c.game.prm_clean, c.game.prm_fresh, c.game.prm_replay = 6, 5, 5
    c.game.static_probe = c.game.microbatches = 4
    c.game.prm_learning_rate, c.game.warmup = 3e-4, 5
    c.evaluate.graded = 400
    return c


def _read(name: str, tiny: bool) -> Any:
    return read_config_file(ROOT / f"configs/{name}.py", "runlocal" if tiny else "")


def _cut(c: Any) -> Any:
    """As `testing.tiny.cut`, with the very models of the game's cut."""
    game = _read("smollm2_135m", True)
    c.solver.backbone = c.prm.backbone = game.prm.backbone
    c.builder.buckets = (256,)
    c.prm.batch_size = 4
    override(c, "evaluate", {"builder.buckets": (256,)})
    return c


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE")
    args = parser.parse_args()
    for part in [args.only] if args.only else PARTS:
        failed = _run(args, part)
        results = collect(args.workdir)
        text = json.dumps(results, indent=1) + "\n"
        (args.workdir / "smollm2.json").write_text(text, encoding="utf-8")
        if args.publish:
            publish(results)
        if failed:
            raise SystemExit(f"{part} ended with {failed}; the same command goes on")


def publish(results: dict[str, Any]) -> None:
    """Writes them where tables are made of; parts that were trained for longer stay."""
    path = ROOT / "benchmarks/results/smollm2.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    for part in set(PARTS) & before.keys():
        if part not in results or _trained(results[part]) < _trained(before[part]):
            results[part] = before[part]
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _trained(part: dict[str, Any]) -> tuple[int, int]:
    """The stages that have ended, and the updates or rounds that are logged."""
    updates = part.get("training", ()) or range(part.get("rounds", 0))
    return len(part.get("stages", ())), len(updates)


def _run(args: argparse.Namespace, part: str) -> int:
    """One run in a process of its own; its time and memory are added to what was."""
    folder = args.workdir.resolve() / part
    folder.mkdir(parents=True, exist_ok=True)
    prm = args.workdir.resolve() / _PRM_MODEL
    name = f"{part}-tiny" if args.tiny else part
    command = [sys.executable, "-m", "aprm_jax.main", f"--workdir={folder / 'run'}"]
    command += [f"--config={Path(__file__).resolve()}:{name}"]
    command += [f"--config.{field}" for field in args.field]
    from compare_table import commit  # beside this file, which is a config file too

    start = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | {_PRM: str(prm)}, cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    line = {
        "commit": commit(),
        "fields": args.field,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gigabytes": round(used.ru_maxrss * 1024 / 1e9, 2),
        "code": code,
    }
    with (folder / "costs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return code


def collect(workdir: Path) -> dict[str, Any]:
    """What the runs have left so far; the commit stands beside what each cost."""
    found: dict[str, Any] = {
        "command": "python benchmarks/smollm2.py --workdir=RUN --publish",
        "seeds": [0],
        "cpus": os.cpu_count(),
    }
    for part in PARTS:
        run = workdir / part / "run"
        if not run.is_dir():
            continue
        if part == "memory":
            rounds = len(_lines(run / "aprm", "metrics"))
            costs = _lines(workdir / part / "costs.jsonl")
            found[part] = {"costs": costs, "rounds": rounds}
            continue
        found[part] = {
            "costs": _lines(workdir / part / "costs.jsonl"),
            "results": _figures(run / "evaluate", workdir),
            "training": _lines(run / ("prm" if part == "prm" else "aprm"), "metrics"),
            "stages": {
                path.parent.name: {k: round(done[k], 1) for k in _SPENT}
                for path in sorted(run.glob("*/done.json"))
                for done in [_json(path)]
            },
        }
    run = workdir / "game" / "run"
    if run.is_dir():
        shown = _lines(run / "aprm", "perturbations")
        found["game"]["taught"] = _lines(run / "generator" / "rounds", "figures")
        found["game"]["perturbations"] = shown[:: max(1, len(shown) // _KEPT)]
    return found


def _figures(evaluated: Path, workdir: Path) -> dict[str, float]:
    """Of the sets that are measured, by names that are the same wherever runs lie."""
    from aprm_jax.evals.records import Record, by_name
    from aprm_jax.jobs.parts import read_part

    parts = [read_part(path) for path in sorted(evaluated.glob("parts/*.json"))]
    rows = (Record.from_json(row) for part in parts for row in part["records"])
    prm = str(workdir.resolve() / _PRM_MODEL)
    return {k.replace(prm, "prm"): v for k, v in by_name(rows).items()}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path, stem: str = "") -> list[Any]:
    path = path / f"{stem}.jsonl" if stem else path
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    main()
