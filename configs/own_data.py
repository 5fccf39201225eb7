"""A PRM on your own data: questions with answers, or solutions with labelled steps.

Questions, JSONL or CSV; a solution is optional, its lines are the steps:

    {"question": "What is 3 + 4?", "solution": "3 + 4 = 7", "answer": 7}

    python -m aprm_jax.main --config=configs/own_data.py \\
      --config.domain.train=questions.jsonl

A solver learns the solutions, and a Generator and a PRM play their game on them, as in
the quickstart. Where no question has a solution, its answer is the only step.

Labelled steps, labels from 0 to 1, true and false, or + and -:

    {"prompt": "What is 3 + 4 * 2?", "completions": ["4 * 2 = 6", "3 + 6 = 9"],
     "labels": [0, 0]}

    python -m aprm_jax.main --config=configs/own_data.py:labels \\
      --config.domain.train=step_format:solutions.jsonl

A language model learns the right steps, and a PRM that starts from it the labels. Other
readers than `step_format`: docs/data.md. A tenth of the questions, or a quarter of
few, is held out for thresholds, and as much again for the test.

Models are small and from scratch. With a pretrained one:
--config.solver.backbone=FOLDER and docs/huggingface.md.

Hardware: 2 CPU cores, no GPU.
Time: some minutes for some hundred questions; scores depend on the data.
A cut on made-up data, one to a few minutes: --config=configs/own_data.py:runlocal
and --config=configs/own_data.py:labels-runlocal
"""

import json
import random
from pathlib import Path

from aprm_jax.config import (
    check_arg,
    default_config,
    made_up_folder,
    override,
    read_config_file,
    run_local,
)


def get_config(arg: str = ""):
    """`arg` is "labels" for labelled steps, and ends in "runlocal" for a cut."""
    check_arg(arg, ("", "labels", "runlocal", "labels-runlocal"))
    c = _labels() if arg.startswith("labels") else _questions()
    c.name = "own_data"
    c.domain.dev_count = 0  # as many as suit the data
    c.domain.max_bad_share = 0.1  # of a few rows one is soon more than 1 %
    c.builder.window = 0  # a step sees the question and every step before it
    c.builder.line_stride = 0
    c.checkpoint.every = 50
    if arg.endswith("runlocal"):
        run_local(c)
        c.domain.vocab_size = 320
        c.builder.buckets = (128,)
        c.builder.max_steps = 4
        c.builder.max_new_tokens = 32
        override(c, "evaluate", {"builder.buckets": (128,)})
        c.domain.train = _made_up(labels=arg.startswith("labels"))
    return c


def _questions():
    c = read_config_file(Path(__file__).with_name("gsm8k.py"))
    c.domain.name = "questions"
    c.domain.train = c.domain.test = ""
    c.domain.model_solutions = c.domain.processbench = ""
    c.domain.oracle = "text"  # formulas and LaTeX as well as sums
    c.domain.oracle_workers = 0
    c.builder.buckets = (128, 256, 512)
    c.builder.max_steps = 16
    c.evaluate.splits = ("test",)
    override(c, "evaluate", {"builder.buckets": (128, 256, 512, 1024)})
    return c


def _labels():
    c = default_config()
    prm800k = read_config_file(Path(__file__).with_name("prm800k.py"))
    with c.unlocked():
        c.update(prm800k)
    c.prm.soft = True
    c.domain.train = ""
    c.evaluate.sets = ()
    return c


def _made_up(labels: bool) -> str:
    """A source of made-up rows, the same ones on every call."""
    rng = random.Random(0)
    kind = "solutions" if labels else "questions"
    path = made_up_folder("own-data") / f"{kind}.jsonl"
    rows = [(_labelled if labels else _worked)(rng) for _ in range(96)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return f"step_format:{path}" if labels else str(path)


def _worked(rng: random.Random) -> dict:
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    return {
        "question": f"What is {a} * {b} + {c}?",
        "solution": f"{a} * {b} = {a * b}\n{a * b} + {c} = {a * b + c}",
        "answer": a * b + c,
    }


def _labelled(rng: random.Random) -> dict:
    row = _worked(rng)
    steps = row["solution"].split("\n")
    wrong = rng.choice((0, 1, 2))  # 2: none
    if wrong < 2:
        left, _, right = steps[wrong].rpartition(" ")
        steps[wrong] = f"{left} {int(right) + 1}"
    labels = [k < wrong for k in range(2)]
    return {"prompt": row["question"], "completions": steps, "labels": labels}
