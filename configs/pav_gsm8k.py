"""Values of a Hugging Face solver on GSM8K, and search by its progress (PAV).

The solver is Qwen2.5-0.5B-Instruct as it is, told in words to write one step; four
rollouts a question and sixteen completions from the prefixes of wrong ones, up to their
first pit, estimate its values; a PRM that starts from the same model learns them. A
beam by the effective reward is compared with one by the value alone.

    python -m aprm_jax.main --config=configs/pav_gsm8k.py

Other solvers: --config.solver.backbone=OWNER/NAME or a local folder, likewise
--config.prm.backbone. Rollouts and completions may come from a server:
--config.solver.endpoint=http://… --config.pav.solver=endpoint (docs/endpoints.md).
Local data as in configs/gsm8k.py: --config.domain.train=… --config.domain.test=…

Hardware: one accelerator with 80 GB; not run on one yet.
Time, scores: none yet.
A cut on a random model of the same family, one to a few minutes:
--config=configs/pav_gsm8k.py:runlocal
"""

import json
from pathlib import Path

from aprm_jax.config import (
    check_arg,
    made_up_folder,
    override,
    read_config_file,
    set_stages,
)

SOLVER = "Qwen/Qwen2.5-0.5B-Instruct"
SEARCHES = {
    "search_pav": {"search.aggregation": "effective"},
    "search_value": {"search.aggregation": "last"},
}


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("gsm8k.py"), arg)
    c.name = "pav_gsm8k"
    searches = tuple(f"{stage}:search" for stage in SEARCHES)
    set_stages(c, ("pav:pav", *searches))
    c.solver.backbone = c.prm.backbone = SOLVER
    c.pav.solver = c.search.solver = c.prm.init_from = "backbone"
    c.prm.head = "two_class"
    c.prm.learning_rate = 5e-6
    c.pav.sampling = "first_pit"
    c.search.verifiers = ("pav",)
    for stage, fields in SEARCHES.items():
        override(c, stage, fields)
    if arg == "runlocal":
        from aprm_jax.testing.tiny import cut  # imports JAX

        c.domain.train, c.domain.test = _made_up()
        c.domain.model_solutions = c.domain.processbench = ""
        cut(c, "qwen2")
        c.pav.sampling = "all"  # it has few right completions, and fewer high values
        c.pav.problems = 12
        c.search.problems, c.search.n, c.search.m = 2, 4, 2
        c.search.bootstrap = 100
        return c
    c.domain.train = c.domain.test = "datasets:openai/gsm8k"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    c.builder.buckets = (256, 384, 512, 768)
    c.builder.max_new_tokens = 128
    c.pav.problems, c.pav.n_cov, c.pav.n_mc = 4000, 4, 16
    c.pav.batch = 64
    c.prm.updates = 2000
    c.prm.batch_size = 32
    c.prm.warmup = 200
    c.search.problems = 500
    return c


def _made_up() -> tuple[str, str]:
    """Questions whose answers a babbling model hits now and then: 7, 8 and 9."""
    rows = [
        {
            "question": f"{who} has {a} {what} and buys {n - a} more. How many?",
            "answer": f"In all {a}+{n - a}=<<{a}+{n - a}={n}>>{n} {what}.\n#### {n}",
        }
        for who in ("Ann", "Bo", "Cy")
        for what in ("pens", "figs")
        for n in (7, 8, 9)
        for a in (2, 3, 4, 5)
    ]
    folder = made_up_folder("pav")
    paths = folder / "train.jsonl", folder / "test.jsonl"
    for path, part in zip(paths, (rows[:60], rows[60:]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    return str(paths[0]), str(paths[1])
