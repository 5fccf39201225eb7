"""The quickstart's stages with every baseline beside APRM: the tables in
docs/results.md.

All PRMs start from one warm-up and get as many updates of as many steps. They differ
in where their wrong steps come from: static corruptions, a frozen Generator, the
solver's own samples labelled by Monte-Carlo completions, the same labelled by the
exact oracle (an upper bound), and the Generator that learns. An ORM learns from whole
samples by their answers alone, in as many updates, and judges a solution at its end.
ReST-MCTS* has two rounds: trees that a verifier guides, a value model of them, and a
policy that writes the next trees; its value models have half of the updates each.
Monte-Carlo labels and the ORM are of as many sampled tokens as the game draws (0.31
million), exact labels of nearly as many verdicts, the trees of half the tokens.
The problems count modulo 10: every result is its last digit. All settings are those of
the published table, and where the quickstart has others since, they stand in
`PUBLISHED`.

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=configs/compare.py --config.seed=$seed \\
        --workdir=runs/compare-$seed
    done

Hardware: 2 CPU cores, no GPU; peak memory below 4 GiB.
Time, scores: see docs/results.md.
A cut of every stage, one to a few minutes: --config=configs/compare.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    check_arg,
    override,
    read_config_file,
    run_local,
    set_field,
    set_stages,
)

PUBLISHED = {
    "domain.modulus": 10,
    "game.hard_share": 0.0,
    "game.generator_replay": 0,
    "prm.hard_share": 0.0,
    "evaluate.solvers": (),
    "evaluate.aggregations": ("min", "product", "mean", "last"),
    "builder.line_stride": 32,
    "sft.updates": 3500,
    "sft.batch_size": 16,
    "sft.learning_rate": 1.5e-3,
}
PRMS = ("prm_static", "prm_monte_carlo", "prm_frozen", "prm_oracle", "aprm")


def set_rest_mcts(c) -> None:
    """The rounds of ReST-MCTS*: each searches with the policy and values before it."""
    policy, value, start = "solver", "prm_warmup", "solver"
    for k in (1, 2):
        trees = {
            "search.method": "mcts",
            "search.solver": policy,
            "search.verifiers": (value,),
            "search.splits": ("train",),
            "search.problems": 800,
            "search.trees": 800,
            "search.batch": 128,
            "search.exploration": 0.5,
        }
        override(c, f"rest_trees_{k}", trees)
        made = {"prm.negatives": "values", "prm.data": (f"rest_trees_{k}",)}
        # Values are of all steps up to one, and mean what they say: no balance.
        made |= {"builder.window": 0, "prm.init_from": start, "prm.balance": False}
        # Eight packed rows hold about as many steps as others have in a batch.
        made |= {"prm.updates": c.prm.updates // 2, "prm.batch_size": 8}
        override(c, f"rest_value_{k}", made)
        value = start = f"rest_value_{k}"
        policy = f"rest_policy_{k}"
    tuned = {"sft.init_from": "solver", "sft.data": "rest_trees_1"}
    tuned |= {"sft.updates": 200, "sft.learning_rate": 5e-4}
    override(c, "rest_policy_1", tuned)


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "compare"
    for name, value in PUBLISHED.items():
        set_field(c, name, value)
    stages = (
        "solver:sft",
        "generator:sft",
        "prm_warmup:prm",
        "prm_static:prm",
        "prm_monte_carlo:prm",
        "prm_oracle:prm",
        "orm:prm",
        "rest_trees_1:search",
        "rest_value_1:prm",
        "rest_policy_1:sft",
        "rest_trees_2:search",
        "rest_value_2:prm",
        "prm_frozen:aprm",
        "aprm:aprm",
        "evaluate",
        "report",
    )
    set_stages(c, stages)
    monte_carlo = {"prm.negatives": "monte_carlo", "prm.pool_problems": 800}
    override(c, "prm_monte_carlo", monte_carlo)
    override(c, "prm_oracle", {"prm.negatives": "oracle", "prm.pool_problems": 1800})
    # It reads whole solutions, as no other PRM here does: it starts from the solver.
    whole = {"builder.window": 0, "prm.init_from": "solver", "prm.hard_share": 0.0}
    many = {"prm.pool_problems": 3200, "prm.pool_samples": 6}
    override(c, "orm", {"prm.negatives": "outcome", **whole, **many})
    set_rest_mcts(c)
    override(c, "prm_frozen", {"game.freeze_generator": True})
    c.evaluate.prms = (*PRMS, "orm", "rest_value_2")
    c.evaluate.attack_prms = PRMS
    c.evaluate.samples = (8, 32)
    c.evaluate.problems = 200
    c.evaluate.attack_updates = 40
    if arg == "runlocal":
        run_local(c)
        c.sft.updates = 150  # so that some samples are right: an ORM needs both kinds
        override(c, "orm", {"prm.pool_problems": 128, "prm.pool_samples": 8})
    return c
