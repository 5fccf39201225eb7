"""What becomes of a finished workdir in which a file is damaged.

    python benchmarks/mutations.py RUN --config=configs/quickstart.py:runlocal \
        --count=108 --seed=0 --out=benchmarks/results/mutations.json

Damages one file of a copy of RUN at a time and runs the command on it: again, for its
report, for its evaluation, for an export. Each run is one of

    detected   exit code 1, one message that names the file, no traceback
    repaired   exit code 0, the file is as it was
    harmless   exit code 0, and all results are those of the undamaged run, but for the
               damaged file where the command has neither read nor written it
    SILENT     exit code 0, but other results
    TRACEBACK  anything else

With --all every file gets every damage; else --count are drawn by the seed. A second
start goes on from what --out holds, and does the SILENT and TRACEBACK ones again.
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


def results(run: Path, but: str = "") -> dict[str, str]:
    """What a run says, by file: its numbers but times, the weights of its exports.

    Args:
      run: its folder.
      but: a file that is left out.
    """
    out: dict[str, str] = {}
    for name in {"summary.json", "evaluate/summary.json"} - {but}:
        numbers = json.loads((run / name).read_text())
        out[name] = repr([i for i in numbers.items() if not i[0].startswith("time.")])
    for path in (run / "export").rglob("*.safetensors"):
        out[path.relative_to(run).as_posix()] = fingerprint(path)["sha256"]
    out.pop(but, None)
    return out


def content(path: Path) -> bytes | None:
    """Of a file; None of a folder and of nothing."""
    return path.read_bytes() if path.is_file() else None


def act(run: Path, action: str, call: Call) -> tuple[int, str]:
    """Runs the command on a run; an evaluation is begun again from its parts."""
    if action == "evaluate":
        (run / "evaluate" / "done.json").unlink(missing_ok=True)
    return call(run, ACTIONS[action])


def classify(
    run: Path,
    name: Path,
    before: tuple[bytes | None, bytes | None],
    code: int,
    output: str,
    expected: dict[str, str],
) -> str:
    """The class of what came of a file, whose content was `before` and was damaged."""
    if "Traceback" in output or code not in (0, 1):
        return "TRACEBACK"
    if code == 1:
        return "detected" if output.count("aprm_jax: error: ") == 1 else "TRACEBACK"
    intact, damaged = before
    now = content(run / name)
    but = name.as_posix() if now == damaged else ""
    try:
        found = results(run, but)
    except (OSError, ValueError):
        return "SILENT"
    if found != {k: v for k, v in expected.items() if k != but}:
        return "SILENT"
    return "repaired" if now == intact else "harmless"


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
    intact = content(broken / name)
    others = [broken / other for other in files(broken)]
    draw = random.Random(f"{seed}/{name}/{damage}")
    DAMAGES[damage](broken / name, draw, others)
    damaged = content(broken / name)
    code, output = act(broken, action, call)
    expected = json.loads(known.read_text())
    kind = classify(broken, name, (intact, damaged), code, output, expected)
    output = output.replace(str(broken), "RUN")
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


def kept(out: Path, config: str, seed: int) -> dict[tuple[Path, str, str], dict]:
    """The rows of an earlier start that stay, by file, damage and action."""
    if not out.is_file():
        return {}
    before = json.loads(out.read_text())
    if (before["config"], before["seed"]) != (config, seed):
        return {}
    return {
        (Path(row["file"]), row["damage"], row["action"]): row
        for row in before["rows"]
        if row["class"] not in ("SILENT", "TRACEBACK")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", required=True)
    parser.add_argument("--count", type=int, default=108)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    every: list[tuple[Path, str, str]] = [
        (name, damage, action)
        for name in files(args.run)
        for damage in DAMAGES
        for action in ACTIONS
    ]
    random.Random(args.seed).shuffle(every)
    every = every if args.all else every[: args.count]
    rows = kept(args.out, args.config, args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        for case in every:
            if case in rows:
                continue
            call = command(args.config)
            rows[case] = one(args.run, *case, args.seed, call, Path(scratch))
            print(rows[case], flush=True)
            counts = dict(collections.Counter(row["class"] for row in rows.values()))
            report = {"config": args.config, "seed": args.seed, "classes": counts}
            report["rows"] = [rows[case] for case in every if case in rows]
            atomic_write(args.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
