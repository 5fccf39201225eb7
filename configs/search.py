"""Every search method with one PRM: the quickstart's models, then a stage a method.

    python -m aprm_jax.main --config=configs/search.py

The PRM is APRM's, the problems are longer than those that the solver was trained on,
and every method has the same 16 hypotheses, but for MCTS*, whose budget is iterations.
Each stage writes a line a problem, `search_beam/solutions.jsonl`, and its accuracy. To
search with a run that is finished, no config file is needed: docs/search.md.

Hardware: 2 CPU cores, no GPU. Time and scores: not measured yet.
A cut of every stage, about a minute: --config=configs/search.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, run_local, set_stages

METHODS = ("best_of_n", "beam", "dvts", "rebase", "mcts")


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "search"
    searches = {f"search_{method}": method for method in METHODS}
    set_stages(
        c,
        (
            "solver:sft",
            "generator:sft",
            "prm_warmup:prm",
            "aprm:aprm",
            *(f"{stage}:search" for stage in searches),
        ),
    )
    c.search.splits = ("longer",)
    for stage, method in searches.items():
        override(c, stage, {"search.method": method})
    if arg == "runlocal":
        run_local(c)
        c.builder.max_steps = 4
        c.search.problems = 3
    return c
