"""A small PRM from scratch on PRM800K's human step labels.

A language model learns the steps of phase-1 train that nobody called wrong; the PRM
starts from it and learns the ratings. Measured on phase-1 test (single steps) and on
ProcessBench (first errors), beside chance, the position of a step alone and the
likelihood of the language model. Thresholds come from questions of phase-1 train.

    APRM_PRM800K_DIR=data/prm800k python -m aprm_jax.main --config=configs/prm800k.py

$APRM_PRM800K_DIR names a folder with phase1_train*.jsonl(.gz) and
phase1_test.jsonl(.gz), in the original form or the flat one (default: data/prm800k).
ProcessBench is measured where $APRM_PROCESSBENCH_DIR (default: ../processbench beside
that folder) has gsm8k.json or math.json. Sources by name work too, such as
--config.domain.train=prm800k:datasets:tasksource/PRM800K

Hardware: 2 CPU cores, no GPU.
Time: half an hour on one core that others use too; scores: see docs/results.md,
"Human step labels".
A cut of every stage on made-up solutions, one to a few minutes:
--config=configs/prm800k.py:runlocal
"""

import json
import os
import random
from pathlib import Path

from aprm_jax.config import (
    check_arg,
    default_config,
    made_up_folder,
    override,
    run_local,
)


def get_config(arg: str = ""):
    check_arg(arg)
    c = default_config()
    with c.unlocked():
        c.stages = ("lm:sft", "prm:prm", "evaluate", "report")
    c.name = "prm800k"
    c.domain.name = "labelled"
    c.domain.vocab_size = 2048
    c.domain.dev_count = 60
    c.builder.window = 0  # a step sees the question and every step before it
    c.builder.line_stride = 0
    c.builder.buckets = (1024,)  # of a packed row; steps beyond so many tokens are lost
    c.builder.max_steps = 64
    c.builder.max_new_tokens = 96  # nothing is sampled here

    c.model.d_model = 128
    c.model.num_layers = 2
    c.model.num_heads = 4
    c.model.num_kv_heads = 4
    c.model.head_dim = 32
    c.model.d_ff = 512

    c.sft.updates = 300
    c.sft.batch_size = 4  # rows that hold the steps of many solutions
    c.sft.learning_rate = 3e-3
    c.sft.warmup = 30
    c.prm.init_from = "lm"
    c.prm.head = "two_class"
    c.prm.negatives = "labels"
    c.prm.soft = False  # where two people rated one step, neither is 0.5 right
    c.prm.updates = 500
    c.prm.batch_size = 4
    c.prm.learning_rate = 1e-3
    c.prm.warmup = 50
    c.prm.b1 = 0.9  # one player alone
    c.checkpoint.every = 50
    c.evaluate.solver = "lm"
    c.evaluate.prms = ("prm",)
    c.evaluate.splits = ()
    c.evaluate.attack_prms = ()
    # Evaluation leaves nothing out that fits: few solutions are longer than this.
    override(c, "evaluate", {"builder.buckets": (256, 512, 1024, 1536)})

    folder = Path(os.environ.get("APRM_PRM800K_DIR", "data/prm800k"))
    bench = os.environ.get("APRM_PROCESSBENCH_DIR", folder.parent / "processbench")
    if arg == "runlocal":
        folder = bench = _made_up()
        run_local(c)
        c.domain.vocab_size = 320
        c.domain.dev_count = 24
        c.builder.buckets = (128,)
        c.builder.max_steps = 4
        override(c, "evaluate", {"builder.buckets": (128,)})
    c.domain.train = f"prm800k:{_found(folder, 'phase1_train')}"
    sets = [f"phase1_test=prm800k:{_found(folder, 'phase1_test')}"]
    for split in ("gsm8k", "math"):
        path = Path(bench) / f"{split}.json"
        if path.is_file():
            sets.append(f"{split}=processbench:{path}")
    c.evaluate.sets = tuple(sets)
    return c


def _found(folder: Path, stem: str) -> Path:
    """The first file of that name, gzipped or not; else what it should be called."""
    found = sorted(folder.glob(f"{stem}*.jsonl*"))
    return found[0] if found else folder / f"{stem}.jsonl"


def _made_up() -> Path:
    """A folder with ratings of PRM800K's flat form, the same ones on every call."""
    rng = random.Random(0)
    folder = made_up_folder("prm800k")
    rows = [_problem(rng) for _ in range(120)]
    _write(folder / "phase1_train.jsonl", [r for p in rows[:96] for r in _rated(*p)])
    _write(folder / "phase1_test.jsonl", [r for p in rows[96:] for r in _rated(*p)])
    _write(folder / "gsm8k.json", [_located(rng, *p) for p in rows[96:]])
    return folder


def _problem(rng: random.Random) -> tuple[str, list[str], list[str]]:
    """A question, its right steps, and a wrong one in place of each."""
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    question = f"What is {a} * {b} + {c}?"
    right = [f"{a} * {b} = {a * b}.", f"So the answer is {a * b + c}."]
    wrong = [f"{a} * {b} = {a * b + 7}.", f"So the answer is {a * b - c}."]
    return question, right, wrong


def _rated(question: str, right: list[str], wrong: list[str]) -> list[dict]:
    rows = []
    for k, pair in enumerate(zip(right, wrong, strict=True)):
        for step, rating in zip(pair, (1, -1), strict=True):
            rows.append(
                {
                    "instruction": question,
                    "responses": right[:k],
                    "next_response": step,
                    "rating": rating,
                }
            )
    return rows


def _located(
    rng: random.Random, question: str, right: list[str], wrong: list[str]
) -> dict:
    label = rng.choice((-1, 0, 1))
    steps = [wrong[k] if k == label else step for k, step in enumerate(right)]
    return {
        "problem": question,
        "steps": steps,
        "label": label,
        "final_answer_correct": label == -1,
    }


def _write(path: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
