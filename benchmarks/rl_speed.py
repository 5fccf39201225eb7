"""One iteration of RL, ours beside TRL's GRPOTrainer: sample, reward, update.

    python -m venv /tmp/trl && /tmp/trl/bin/pip install trl torch
    python benchmarks/rl_speed.py --trl=/tmp/trl/bin/python

Both train the same Llama (`--model`, a folder of Hugging Face; by default a tiny
random one), all parameters in float32, by GRPO with a KL penalty, on the same prompts,
as our solver renders them, of as many completions of exactly as many tokens; the reward
is a function of the text. TRL lives in an environment of its own; its side is this file
run by that Python. Each side
warms up first; the seconds are medians over iterations, ours also by phase. Where the
machine has something else to do, `--cores=0` and the seconds of that core that a side
had compare better than those that passed.

Prints a table and writes benchmarks/results/rl_speed.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import sides
from sides import ROOT

QUESTION = "Ann has {a} boxes of {b} pens and buys {c} more. How many pens has she?"
BETA, RATE = 0.04, 1e-5
DIFFERENT = 64  # prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl", default="", help="the Python that has TRL")
    parser.add_argument("--model", default="", help="a folder; empty = a tiny one")
    parser.add_argument("--groups", type=int, default=4, help="prompts an iteration")
    parser.add_argument("--group-size", type=int, default=8, help="completions of each")
    parser.add_argument("--tokens", type=int, default=64, help="of a completion")
    parser.add_argument("--iterations", type=int, default=8, help="that are timed")
    parser.add_argument("--warm-up", type=int, default=2, help="and not timed")
    parser.add_argument("--cores", default="", help="0,1: those alone; empty = all")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--side", choices=("ours", "trl", ""), default="")
    parser.add_argument("--prompts", default="", help="a file, for the side of TRL")
    args = parser.parse_args()
    if args.side:
        return sides.answer({"ours": ours, "trl": trl}[args.side], args)
    scratch = Path(tempfile.mkdtemp())
    if not args.model:
        args.model = str(_tiny(scratch))
    args.prompts = str(_rendered(args.model, scratch / "prompts.json"))
    from compare_table import commit  # which a peer's Python cannot import

    found: dict[str, Any] = {
        "command": " ".join(["python benchmarks/rl_speed.py", *_shown(sys.argv[1:])]),
        "commit": commit(),
        "settings": {k: v for k, v in vars(args).items() if k not in _ASIDE},
    }
    found["ours"] = _run(args, sys.executable, "ours")
    if args.trl:
        found["trl"] = _run(args, args.trl, "trl")
        if found["trl"]["prompt_tokens"] != found["ours"]["prompt_tokens"]:
            raise SystemExit(f"the sides read different prompts: {found}")
        for times, of in (("times", "seconds"), ("cpu_times", "cpu_seconds")):
            found[times] = found["trl"][of] / found["ours"][of]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "rl_speed.json").write_text(json.dumps(found, indent=1) + "\n")
    _print(found)


def _shown(options: list[str]) -> list[str]:
    """Options as others would give them: who has TRL differs."""
    return [
        "--trl=PYTHON" if option.startswith("--trl") else option for option in options
    ]


_ASIDE = ("side", "out", "trl", "model", "prompts")


def _run(args: Any, python: str, side: str) -> dict[str, Any]:
    shared = ("groups", "group_size", "tokens", "iterations", "warm_up")
    shared += ("model", "prompts")
    options = [f"--{n.replace('_', '-')}={getattr(args, n)}" for n in shared]
    cores = [int(core) for core in args.cores.split(",") if core]
    return sides.run(python, __file__, side, options, cores or None)


def _print(found: dict[str, Any]) -> None:
    for side in ("ours", "trl"):
        if side in found:
            row = found[side]
            print(
                f"{side:5} {row['seconds']:8.3f} s an iteration, "
                f"{row['cpu_seconds']:8.3f} s of the cores, "
                f"{row['tokens_a_second']:10,.0f} tokens/s, "
                f"{row['tokens']:.0f} tokens an iteration"
            )
    for phase, seconds in found["ours"]["phases"].items():
        print(f"      {seconds:8.3f} s {phase}")
    if "times" in found:
        print(
            f"ours is {found['times']:.2f} times as fast, {found['cpu_times']:.2f} "
            "times by seconds of the cores"
        )


def _tiny(folder: Path) -> Path:
    from aprm_jax.testing.tiny import write_tiny

    return write_tiny(
        folder / "llama", "llama", [question(i) for i in range(DIFFERENT)]
    )


def _rendered(model: str, path: Path) -> Path:
    """Writes the prompts as text, for who reads text."""
    writer = _writer(model)[-1]
    texts = [writer.context_text(question(i), ()) for i in range(DIFFERENT)]
    path.write_text(json.dumps(texts))
    return path


def _writer(model: str) -> Any:
    """A model's parameters, its spec, and what writes prompts to it."""
    import dataclasses

    from aprm_jax.hf.builders import open_writer
    from aprm_jax.hf.locate import load_any

    params, spec, tokenizer = load_any(model, "solver")
    return params, spec, open_writer(dataclasses.replace(spec, prompt=""), tokenizer)


def question(index: int) -> str:
    a, b, c = 2 + index % 7, 2 + index % 5, 2 + index % 3
    return QUESTION.format(a=a, b=b, c=c)


def reward(text: str) -> float:
    """Of a completion: the share of its characters that are digits."""
    return sum(c.isdigit() for c in text) / max(len(text), 1)


def _now() -> tuple[float, float]:
    """Seconds that have passed, and those of the cores that this process had."""
    return time.perf_counter(), time.process_time()


def _result(
    marks: list[tuple[float, float]], tokens: list[float], **more: Any
) -> dict[str, Any]:
    """Of iterations from one mark to the next."""
    spent = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(marks)]
    mid, cpu = (median(of) for of in zip(*spent, strict=True))
    drawn = sum(tokens) / len(tokens)
    return {
        "seconds": mid,
        "cpu_seconds": cpu,
        "tokens": drawn,
        "tokens_a_second": drawn / mid,
        **more,
    }


def _rounds(args: argparse.Namespace, steps: int) -> Any:
    """RL as TRL's trainer does it: `steps` rounds of one completion a row."""
    import dataclasses

    import jax
    import numpy as np

    from aprm_jax.data.problem import Problem
    from aprm_jax.models.decoder import Decoder
    from aprm_jax.rl.config import RLConfig
    from aprm_jax.rl.rounds import Rounds
    from aprm_jax.rl.task import Task
    from aprm_jax.sampling.sampler import Sampler
    from aprm_jax.solvers.local import LocalSolver
    from aprm_jax.tasks.graders import AnswerGrader
    from aprm_jax.training.mesh import MeshConfig, make_mesh
    from aprm_jax.verifiers.protocol import Scale, logit

    class Whole(LocalSolver):
        """To whom a completion that is as long as it may be is a solution."""

        def solve(self, *positional: Any, **named: Any) -> Any:
            rows = super().solve(*positional, **named)
            done = dataclasses.replace
            return [[done(solution, finished=True) for solution in r] for r in rows]

    class Questions:
        splits = ()

        def corpus(self, index: int) -> Problem:
            return self.train(index)

        def train(self, index: int) -> Problem:
            return Problem(question(index), ("1",), "1")

        def problems(self, split: str, count: int) -> list[Problem]:
            return [self.train(index) for index in range(count)]

    class Reward:
        scale = Scale.LOG_ODDS

        def score(self, solutions: Any) -> list[np.ndarray]:
            return [logit([reward(s) for s in steps]) for _, steps in solutions]

    params, spec, writer = _writer(args.model)
    lengths = [len(writer.context(question(i), ())) for i in range(DIFFERENT)]
    args.prompt_tokens = sum(lengths) / len(lengths)
    sampler = Sampler(
        spec.decoder,
        stop_ids=(),
        pad_id=writer.pad_id,
        prompt_buckets=(max(lengths),),
        max_new_tokens=args.tokens,
        batch_buckets=(args.groups * args.group_size,),
        positions=writer.positions,
    )
    config = RLConfig(
        updates=steps,
        groups=args.groups,
        group_size=args.group_size,
        rewards=("solution",),
        weights=(),
        uniform="keep",
        kl_weight=BETA,
        learning_rate=RATE,
        dev_every=0,
        max_idle=0,
    )
    solver = Whole(sampler, params["backbone"], AnswerGrader(), writer)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    task = Task(Questions(), AnswerGrader(), solver, Decoder(spec.decoder), mesh, 1)
    return Rounds(task, config, policy=params, seed=0, verifier=Reward())


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of our iterations."""
    import jax

    from aprm_jax.training.timing import PhaseTimer

    steps = args.warm_up + args.iterations
    rounds = _rounds(args, steps)
    state, timer = rounds.state, PhaseTimer()
    marks: list[tuple[float, float]] = []
    tokens: list[float] = []
    phases: dict[str, list[float]] = defaultdict(list)
    for step in range(steps):
        if step >= args.warm_up:
            marks.append(_now())
        output = rounds.step_fn(state, step, timer)
        state = jax.block_until_ready(output.state)
        spent = timer.pop()
        if output.metrics["rl/idle"]:
            raise SystemExit("an iteration had nothing to learn from")
        if step >= args.warm_up:
            tokens.append(output.metrics["rl/sampled_tokens"])
            for name, value in spent.items():
                phases[name.removeprefix("time/")].append(value)
    marks.append(_now())
    return _result(
        marks,
        tokens,
        prompt_tokens=args.prompt_tokens,
        versions=sides.versions("jax", "jaxlib"),
        phases={name: median(v) for name, v in phases.items()},
    )


def trl(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of TRL's iterations; run by the Python that has it."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    steps = args.warm_up + args.iterations
    prompts = json.loads(Path(args.prompts).read_text())
    rows = [{"prompt": prompts[i % DIFFERENT]} for i in range(steps * args.groups)]
    read = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    lengths: list[int] = []

    def reward_of(completions: Any, completion_ids: Any = None, **rest: Any):
        if completion_ids is not None:
            lengths.append(sum(map(len, completion_ids)))
        return [reward(text) for text in completions]

    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *rest: Any, **named: Any) -> None:
            if not marks:
                marks.append(_now())

        def on_step_end(self, *rest: Any, **named: Any) -> None:
            marks.append(_now())

    rows_a_step = args.groups * args.group_size
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=rows_a_step,
        gradient_accumulation_steps=1,
        num_generations=args.group_size,
        max_completion_length=args.tokens,
        generation_kwargs={"min_new_tokens": args.tokens},
        temperature=1.0,
        beta=BETA,
        learning_rate=RATE,
        max_steps=steps,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        logging_steps=steps + 1,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward_of,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    tokens = [float(n) for n in lengths[args.warm_up :]] or [rows_a_step * args.tokens]
    return _result(
        marks[args.warm_up :],
        tokens,
        prompt_tokens=sum(read) / len(read),
        versions=sides.versions("torch", "transformers", "trl"),
    )


if __name__ == "__main__":
    main()
