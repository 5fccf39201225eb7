"""A Generator and a PRM play their game on embedded arithmetic; the README's first run.

The problems are ordinary arithmetic, `2 + 3 * 4`: each step writes the line again with
one operation carried out, `2 + 12`, then `14`. A solver is trained on a corpus of
careful and careless authors, a Generator on wrong steps, a PRM on static corruptions;
then PRM and Generator train against each other. Both PRMs learn from the hardest of
their wrong steps. A foreign solver, taught by authors with other mistakes, shows what
they are worth to somebody whose solver they have never met.
Rows of the final table that cost no training of their own: a single sample, greedy,
majority vote, best-of-n by the solver's own likelihood.

    python -m aprm_jax.main --config=configs/quickstart.py

Hardware: 2 CPU cores, no GPU; below 5 GiB of memory, a half with --config.processes=1.
Time: 9 minutes, compilation included; scores: README.md.
A cut of every stage, one to a few minutes: --config=configs/quickstart.py:runlocal
"""

from aprm_jax.config import check_arg, default_config, override, run_local

STAGES = (
    "solver:sft",
    "foreign:sft",
    "generator:sft",
    "prm_warmup:prm",
    "prm_static:prm",
    "aprm:aprm",
    "evaluate",
    "report",
)


def get_config(arg: str = ""):
    check_arg(arg)
    c = default_config()
    c.name = "quickstart"
    c.stages = STAGES
    c.sft.updates = 1500
    c.sft.batch_size = 32
    c.sft.learning_rate = 2e-3

    override(
        c,
        "foreign",
        {
            "domain.authors": "second",
            "sft.init_from": "solver",
            "sft.updates": 300,
        },
    )
    # G: the solver's backbone, taught to answer a correct step with a wrong one.
    override(
        c,
        "generator",
        {
            "sft.task": "perturb",
            "sft.init_from": "solver",
            "sft.updates": 200,
            "sft.batch_size": 48,
            "sft.learning_rate": 1e-3,
            "sft.warmup": 10,
        },
    )
    # R's start, common to every PRM of the table: what the game starts from, and what
    # the baselines go on from for as many updates as the game has.
    override(
        c,
        "prm_warmup",
        {"prm.init_from": "solver", "prm.updates": 100, "prm.hard_share": 0.0},
    )
    c.prm.init_from = "prm_warmup"
    c.prm.updates = c.game.updates
    c.prm.hard_share = c.game.hard_share

    c.evaluate.prms = ("prm_static", "aprm")
    c.evaluate.attack_prms = ("prm_static", "aprm")
    c.evaluate.solvers = ("foreign",)
    c.evaluate.samples = (8, 16, 32, 64)
    # Fewer than the default, so that all of it takes minutes.
    c.evaluate.problems = 100
    c.evaluate.aggregations = ("min", "product", "last")
    c.evaluate.attack_updates = 20
    if arg == "runlocal":
        run_local(c)
    return c
