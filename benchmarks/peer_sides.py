"""The two sides of benchmarks/peers.py, and the models and rows that both start from.

Each function here runs in a process of its own; that of a peer has nothing of ours but
what an export consists of, so nothing of either side is imported at the top.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sides
from sides import Turns

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


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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
    prompts = read(folder / "prompts.jsonl")
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
    params, _ = initial_prm(context, c.init_from, "prm.init_from", c.head)
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
    from aprm_jax.verifiers.models import ModelVerifier
    from aprm_jax.verifiers.stream import score_stream, scored_row

    verifier = run_verifier(_context(folder, part), [str(folder / "prm")], "mean")
    assert isinstance(verifier, ModelVerifier)
    source, held = str(folder / "rows.jsonl"), default_config().score.batch

    def turn() -> dict[str, Any]:
        start, steps, read = time.perf_counter(), 0, verifier.tokens_read
        given = Parsed(source, stream_rows(source), parse_solution)
        with (folder / "ours.jsonl").open("w") as file:
            for solution, probabilities in score_stream(given, verifier, held):
                row = scored_row(solution, probabilities)
                file.write(json.dumps(row) + "\n")
                steps += len(row["scores"])
        seconds, read = time.perf_counter() - start, verifier.tokens_read - read
        return _turn(seconds, steps_scored=steps, tokens_read=read)

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

    ignored, rows = -100, read(folder / "rows.jsonl")
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

    def scores(ids: list[list[int]]) -> Any:
        """P(correct) of each step of each row."""
        batch = tokenizer.pad(
            {"input_ids": ids}, padding_side="right", return_tensors="pt"
        )
        right = 1 - model(**batch).logits.softmax(-1)[..., 0]
        for row, probabilities in zip(ids, right, strict=True):
            reads = [i for i, token in enumerate(row) if token == ends]
            yield probabilities[reads[1:]].tolist()  # the first ends the question

    def turn() -> dict[str, Any]:
        start, steps, tokens = time.perf_counter(), 0, 0
        rows = read(folder / "rows.jsonl")
        with (folder / "peer.jsonl").open("w") as file, torch.inference_mode():
            for first in range(0, len(rows), part.batch):
                some = rows[first : first + part.batch]
                ids = [export.context(r["prompt"], r["completions"]) for r in some]
                tokens += sum(map(len, ids))
                for found in scores(ids):
                    file.write(json.dumps({"scores": found}) + "\n")
                    steps += len(found)
        seconds = time.perf_counter() - start
        return _turn(seconds, steps_scored=steps, tokens_read=tokens)

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
