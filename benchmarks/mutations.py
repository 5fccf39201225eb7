"""What becomes of a finished workdir in which a file is damaged.

    python benchmarks/mutations.py RUN --config=configs/quickstart.py:runlocal \
        --count=108 --seed=0 --out=benchmarks/results/mutations.json

Damages one file of a copy of RUN at a time and runs the command on it: again, for its
report, for its evaluation, for an export. Each run is one of

    detected   exit code 1, one message that names the file, no traceback
    repaired   exit code 0, the file is as it was
    harmless   exit code 0, and all results are those of the undamaged run
    SILENT     exit code 0, but other results
    TRACEBACK  anything else

With --all every file gets every damage; else --count are drawn by the seed.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from aprm_jax.files import atomic_write, fingerprint

ACTIONS = {
    "start": (),
    "report": ("--config.job=report",),
    "evaluate": ("--config.job=evaluate",),
    "export": ("--config.job=export", "--config.export.model=aprm"),
}
_REPLACEMENTS = (b'{"summary": {}}', b"[1, 2]", b"0", b'{"step": "x"}')


def truncate(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(max(1, len(data)))])


def flip(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def empty(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    path.write_bytes(b"")


def swap(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    alike = [o for o in others if o.suffix == path.suffix and o != path] or others
    shutil.copyfile(draw.choice(list(alike)), path)


def delete(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    path.unlink()


def folder(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    path.unlink()
    path.mkdir()


def junk(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    """JSON of the right type with another number in it, where there is a number."""
    text = path.read_bytes()
    digits = [k for k, byte in enumerate(text) if byte in b"123456789"]
    if path.suffix not in (".json", ".jsonl") or not digits:
        path.write_bytes(draw.choice(_REPLACEMENTS))
        return
    place = draw.choice(digits)
    wrong = draw.choice([d for d in b"123456789" if d != text[place]])
    path.write_bytes(text[:place] + bytes([wrong]) + text[place + 1 :])


def deep(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    path.write_bytes(b"[" * 100_000)


DAMAGES: dict[str, Callable[[Path, random.Random, Sequence[Path]], None]] = {
    f.__name__: f for f in (truncate, flip, empty, swap, delete, folder, junk, deep)
}

# (folder of the run, arguments) -> exit code, what was printed
Call = Callable[[Path, Sequence[str]], tuple[int, str]]


def files(run: Path) -> list[Path]:
    """Relative paths of what a run wrote, checkpoints and hidden files included."""
    found = (path for path in run.rglob("*") if path.is_file())
    return sorted(path.relative_to(run) for path in found if path.name != ".lock")


def results(run: Path) -> dict[str, object]:
    """What a run says: its numbers but times, and the weights of its exports."""
    out: dict[str, object] = {}
    for path in (run / "summary.json", run / "evaluate" / "summary.json"):
        numbers = json.loads(path.read_text())
        out |= {
            f"{path.parent.name}/{k}": v
            for k, v in numbers.items()
            if not k.startswith("time.")
        }
    for path in sorted((run / "export").rglob("*.safetensors")):
        out[path.relative_to(run).as_posix()] = fingerprint(path)["sha256"]
    return {k: repr(v) for k, v in out.items()}


def act(run: Path, action: str, call: Call) -> tuple[int, str]:
    """Runs the command on a run; an evaluation is begun again from its parts."""
    if action == "evaluate":
        (run / "evaluate" / "done.json").unlink(missing_ok=True)
    return call(run, ACTIONS[action])


def classify(
    run: Path, name: Path, before: bytes, code: int, output: str, expected: dict
) -> str:
    """The class of what came of a damaged file, see the module."""
    if "Traceback" in output or code not in (0, 1):
        return "TRACEBACK"
    if code == 1:
        return "detected" if output.count("aprm_jax: error: ") == 1 else "TRACEBACK"
    path = run / name
    try:
        found = results(run)
    except (OSError, ValueError):
        return "SILENT"
    if found != expected:
        return "SILENT"
    same = path.is_file() and path.read_bytes() == before
    return "repaired" if same else "harmless"


def one(
    run: Path,
    name: Path,
    damage: str,
    action: str,
    seed: int,
    call: Call,
    scratch: Path,
) -> dict[str, str]:
    """Damages `name` in a copy of `run`, and says what came of it."""
    copies = {}
    for kind in ("intact", "damaged"):
        copies[kind] = scratch / kind / "run"
        shutil.rmtree(copies[kind].parent, ignore_errors=True)
        shutil.copytree(run, copies[kind])
    known = scratch / f"expected-{action}.json"
    if not known.exists():  # what the action gives where nothing is damaged
        code, output = act(copies["intact"], action, call)
        if code:
            raise RuntimeError(f"{action} on the intact run: {output}")
        known.write_text(json.dumps(results(copies["intact"])))
    broken = copies["damaged"]
    before = (broken / name).read_bytes()
    others = [broken / other for other in files(broken)]
    draw = random.Random(f"{seed}/{name}/{damage}")
    DAMAGES[damage](broken / name, draw, others)
    code, output = act(broken, action, call)
    expected = json.loads(known.read_text())
    kind = classify(broken, name, before, code, output, expected)
    row = {"file": name.as_posix(), "damage": damage, "action": action, "class": kind}
    if kind in ("SILENT", "TRACEBACK"):
        row["output"] = output[-2000:]
    elif kind == "detected":
        row["message"] = output[output.index("aprm_jax: error: ") :][:300]
    return row


def command(config: str) -> Call:
    """The real command, in a process of its own."""

    def call(run: Path, arguments: Sequence[str]) -> tuple[int, str]:
        line = [sys.executable, "-m", "aprm_jax.main", f"--config={config}"]
        done = subprocess.run(
            [*line, f"--workdir={run}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", required=True)
    parser.add_argument("--count", type=int, default=108)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    every = [
        (name, damage, action)
        for name in files(args.run)
        for damage in DAMAGES
        for action in ACTIONS
    ]
    random.Random(args.seed).shuffle(every)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in every if args.all else every[: args.count]:
            row = one(args.run, *case, args.seed, command(args.config), Path(scratch))
            print(row, flush=True)
            rows.append(row)
            counts = dict(collections.Counter(row["class"] for row in rows))
            report = {"config": args.config, "seed": args.seed, "classes": counts}
            atomic_write(args.out, json.dumps(report | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
