"""PRMs where they are searched: accuracy of best-of-N for N = 8 to 512.

Every PRM learns from as many steps, three quarters of its wrong ones those that it
believes most among its candidates (`hard_share`). The Generator of `aprm` imitates what
fooled R before, that of `aprm_plain` does not, and `aprm_drawn` learns from steps as
they were drawn besides. A second solver, whose authors no PRM has seen the errors of,
is searched too, and a fresh attacker, who does not imitate, takes the best of 64
replies. The problems count modulo 10, as in the other published tables: no PRM lacks a
fact, so what is searched for is how well it knows a step.

    for seed in 0 1 2 3 4; do
      python -m aprm_jax.main --config=configs/pressure.py --config.seed=$seed \\
        --workdir=runs/pressure-$seed
      python benchmarks/pressure.py collect runs/pressure-$seed
    done
    python benchmarks/pressure.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "Under pressure".
Time: 27 to 33 minutes of one core, of which the evaluation is a half.
A cut of every stage, minutes: --config=configs/pressure.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, run_local

HARD = 0.75
GAMES = {
    "prm_frozen": {"game.freeze_generator": True},
    "aprm": {"game.generator_replay": 48},
    "aprm_plain": {},
    "aprm_drawn": {"game.hard_share": 0.0},
}
PRMS = {
    "prm_static": {},
    "prm_monte_carlo": {"prm.negatives": "monte_carlo"},
    # Two thirds of the verdicts of the oracle that a game asks for.
    "prm_oracle": {"prm.negatives": "oracle", "prm.pool_problems": 1600},
}


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "pressure"
    c.domain.modulus = 10
    c.game.hard_share = c.prm.hard_share = HARD
    c.game.generator_replay = 0
    for name, fields in (PRMS | GAMES).items():
        override(c, name, fields)
    stages = {name: "prm" for name in PRMS} | {name: "aprm" for name in GAMES}
    c.stages = (
        "solver:sft",
        "foreign:sft",
        "generator:sft",
        "prm_warmup:prm",
        *(f"{name}:{job}" for name, job in stages.items()),
        "evaluate",
        "report",
    )
    # From scratch: what it has of the first authors' habits would not be foreign.
    override(c, "foreign", {"sft.init_from": "", "sft.updates": c.sft.updates})
    c.evaluate.prms = tuple(stages)
    c.evaluate.attack_prms = tuple(stages)
    c.evaluate.solvers = ("foreign",)
    c.evaluate.solver_splits = ("test",)
    c.evaluate.splits = ("test", "longer")
    c.evaluate.samples = (8, 16, 32, 64, 128, 256, 512)
    c.evaluate.aggregations = ("min",)
    c.evaluate.problems = 150
    c.evaluate.attack_updates = 40
    if arg == "runlocal":
        run_local(c)
        c.evaluate.samples = (2, 4, 8)
        c.evaluate.attack_prms = ("aprm",)
    return c
