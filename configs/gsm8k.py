"""The quickstart's game on GSM8K: a small decoder from scratch, human solutions.

Steps are the lines of the human solutions, the oracle reads their calculator
annotations `<<a*b=c>>`. Evaluated on the test split's problems and, where the files
are there, on graded solutions of other models and on ProcessBench. With `:drawn` every
PRM is there once more, learning from steps as they were drawn.

    python -m aprm_jax.main --config=configs/gsm8k.py \\
      --config.domain.train=data/gsm8k/train.jsonl \\
      --config.domain.test=data/gsm8k/test.jsonl

`datasets:openai/gsm8k` and `tfds:gsm8k` are sources as well. $APRM_GSM8K_DIR names a
folder with train.jsonl and test.jsonl (default: data/gsm8k), and what else is found:
example_model_solutions.jsonl, and processbench.json or ../processbench/gsm8k.json.

Hardware: 2 CPU cores, no GPU.
Time, scores: see docs/results.md, "GSM8K".
A cut of every stage on made-up problems, one to a few minutes:
--config=configs/gsm8k.py:runlocal
"""

import json
import os
import random
from pathlib import Path

from aprm_jax.config import (
    check_arg,
    made_up_folder,
    override,
    read_config_file,
    run_local,
    set_stages,
)

JOBS = {"prm_static": "prm", "aprm": "aprm"}


def get_config(arg: str = ""):
    check_arg(arg, ("", "runlocal", "drawn"))
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "gsm8k"
    set_stages(c, tuple(s for s in c.stages if s != "foreign:sft"))
    if arg == "drawn":
        _add_drawn(c)
    c.evaluate.solvers = ()
    c.evaluate.aggregations = ("min", "product", "mean", "last")
    c.domain.name = "gsm8k"
    c.builder.window = 0  # a step may see all lines: solutions are one sequence
    c.builder.line_stride = 0
    c.builder.buckets = (192, 288, 384)  # 3 % of the training solutions are longer
    c.builder.max_steps = 12  # the longest human solution has 10 lines
    c.builder.max_new_tokens = 96  # 99.9 % of the lines have at most 85

    c.model.d_model = 192
    c.model.num_layers = 3
    c.model.num_heads = 6
    c.model.num_kv_heads = 6
    c.model.head_dim = 32
    c.model.d_ff = 512

    c.sft.updates = 320  # two thirds of an epoch
    c.sft.batch_size = 16
    c.sft.learning_rate = 2e-3
    c.sft.warmup = 50
    override(
        c,
        "generator",
        {"sft.updates": 80, "sft.solver_share": 0.5, "sft.batch_size": 16},
    )
    c.sft.pool = 256
    override(c, "prm_warmup", {"prm.updates": 30})
    c.prm.batch_size = 16
    c.prm.updates = 60
    c.game.updates = 60
    c.game.groups = 8
    c.game.group_size = 4
    c.game.generator_rows = 24
    c.game.generator_replay = 12
    # At the embedded problems' rate so small a batch drives G into empty replies.
    c.game.generator_learning_rate = 1e-4
    c.game.prm_learning_rate = 5e-4
    c.game.prm_clean = 6
    c.game.prm_fresh = 6
    c.game.prm_replay = 4
    c.game.static_probe = 4
    c.game.replay_capacity = 1024
    c.game.sample_log = 10
    c.checkpoint.every = 20
    c.evaluate.splits = ("test",)
    c.evaluate.problems = 100
    c.evaluate.samples = (4,)
    c.evaluate.attack_prms = ()
    # Other models' solutions, and ProcessBench's above all, are longer than training's.
    override(c, "evaluate", {"builder.buckets": (192, 288, 384, 768, 1536)})

    folder = Path(os.environ.get("APRM_GSM8K_DIR", "data/gsm8k"))
    if arg == "runlocal":
        folder = _made_up()
        run_local(c)
        c.domain.vocab_size = 320
        c.domain.dev_count = 8
        c.builder.buckets = (192,)
        c.builder.max_steps = 4
        c.builder.max_new_tokens = 48
    c.domain.train = str(folder / "train.jsonl")
    c.domain.test = str(folder / "test.jsonl")
    c.domain.model_solutions = _found(folder / "example_model_solutions.jsonl")
    c.domain.processbench = _found(
        folder / "processbench.json", folder.parent / "processbench" / "gsm8k.json"
    )
    return c


def _add_drawn(c) -> None:
    """The PRMs once more, without hard rows."""
    twins = {f"{name}_drawn": name for name in c.evaluate.prms}
    stages = list(c.stages)
    for twin, name in twins.items():
        stages.insert(stages.index("evaluate"), f"{twin}:{JOBS[name]}")
        override(c, twin, {"game.hard_share": 0.0, "prm.hard_share": 0.0})
    set_stages(c, tuple(stages))
    c.evaluate.prms = (*c.evaluate.prms, *twins)


def _found(*paths: Path) -> str:
    return next((str(path) for path in paths if path.is_file()), "")


def _made_up() -> Path:
    """A folder with problems of GSM8K's form, the same ones on every call."""
    rng = random.Random(0)
    folder = made_up_folder("gsm8k")
    rows = [_problem(rng) for _ in range(96)]
    _write(folder / "train.jsonl", rows[:72])
    _write(folder / "test.jsonl", rows[72:])
    _write(folder / "example_model_solutions.jsonl", [_graded(rng, r) for r in rows])
    _write(folder / "processbench.json", [_located(rng, r) for r in rows[:24]])
    return folder


def _problem(rng: random.Random) -> dict:
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    who, what = rng.choice(("Ann", "Bo", "Cy")), rng.choice(("pens", "figs", "cups"))
    return {
        "question": f"{who} has {a} boxes of {b} {what} and buys {c} more. How many?",
        "answer": f"{a} boxes hold {a}*{b}=<<{a}*{b}={a * b}>>{a * b} {what}.\n"
        f"In all {a * b}+{c}=<<{a * b}+{c}={a * b + c}>>{a * b + c} {what}.\n"
        f"#### {a * b + c}",
    }


def _lines(rng: random.Random, row: dict) -> tuple[list[str], bool]:
    """The lines of a solution, half of the time with a wrong first one."""
    lines, right = row["answer"].split("\n"), rng.random() < 0.5
    if not right:
        lines[0] = lines[0].replace("*", "+", 1)
    return lines, right


def _graded(rng: random.Random, row: dict) -> dict:
    graded: dict = {"question": row["question"]}
    for size in ("6b", "175b"):
        for kind in ("finetuning", "verification"):
            lines, right = _lines(rng, row)
            text = "\n".join([*lines[:-1], lines[-1].replace("####", "A:")])
            graded[f"{size}_{kind}"] = {"is_correct": right, "solution": text}
    return graded


def _located(rng: random.Random, row: dict) -> dict:
    lines, right = _lines(rng, row)
    return {
        "problem": row["question"],
        "steps": lines[:-1],
        "label": -1 if right else 0,
        "final_answer_correct": right,
    }


def _write(path: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
