"""Progress as reward on embedded arithmetic: PAV search beside Q alone and an ORM.

A solver is trained; four rollouts a question and eight completions from each of their
prefixes estimate its values Q, which a PRM learns (job=pav); the log says what the best
of four of the solver is worth as a prover. Then three searches of the same budget: a
beam by the effective reward Q + 0.5 A, a beam by Q, and best-of-N by an outcome reward
model (ORM). docs/pav.md says what each is.

    python -m aprm_jax.main --config=configs/pav.py

A prover of its own: one more stage, "prover:sft" say, then "pav_prover:pav" with
pav.prover="prover", and search.prover_values="pav_prover".

Hardware: 2 CPU cores, no GPU. Time and scores: not measured yet.
A cut of every stage, one to a few minutes: --config=configs/pav.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, run_local, set_stages

SEARCHES = {
    "search_pav": {"search.verifiers": ("pav",), "search.aggregation": "effective"},
    "search_value": {"search.verifiers": ("pav",)},
    "search_orm": {"search.verifiers": ("orm",), "search.method": "best_of_n"},
}


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "pav"
    searches = tuple(f"{stage}:search" for stage in SEARCHES)
    set_stages(c, ("solver:sft", "orm:prm", "pav:pav", *searches))
    # Both read values: nothing is learned of hard rows, and both start from the solver.
    c.prm.init_from = "solver"
    c.prm.hard_share = 0.0
    # What a beginning is worth depends on the question: both read all lines.
    override(c, "orm", {"prm.negatives": "outcome", "builder.window": 0})
    override(c, "pav", {"builder.window": 0})
    c.search.splits = ("test", "longer")
    for stage, fields in SEARCHES.items():
        override(c, stage, fields)
    if arg == "runlocal":
        run_local(c)
        c.builder.max_steps = 4
        c.sft.updates = 150  # so that some samples are right: an ORM needs both kinds
        override(c, "orm", {"prm.pool_problems": 128, "prm.pool_samples": 8})
        c.search.problems, c.search.n, c.search.m = 3, 4, 2
        c.search.bootstrap = 100
    return c
