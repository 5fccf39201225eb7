"""RL of the quickstart's solver against a PRM, with the hack monitor watching.

The quickstart's solver, Generator and PRM, then RL: in each round the solver writes
eight solutions to each of sixteen problems, the PRM scores their steps, the worst step
has the credit (min-form), and on a tenth of the problems the answer is known and paid
as well. The solver that comes of it is evaluated beside the one that it started from.

    python -m aprm_jax.main --config=configs/rl.py

Another reward, estimator or verifier: --config.rl.rewards=outcome,step
--config.rl.estimator=rloo --config.rl.verifiers=oracle; docs/rl.md has all of them. The
game as a guard, where the PRM goes on learning during RL:
--config.rl.verifiers= --config.rl.guard.prm=aprm

Hardware: 2 CPU cores, no GPU.
Time, scores: not measured yet.
A cut of every stage, one to a few minutes: --config=configs/rl.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, read_config_file, run_local, set_stages


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "rl"
    set_stages(
        c,
        (
            "solver:sft",
            "generator:sft",
            "prm_warmup:prm",
            "aprm:aprm",
            "rl",
            "evaluate",
            "report",
        ),
    )
    c.rl.rewards = ("outcome", "min_form")
    c.rl.weights = (1.0, 1.0)
    c.rl.verifiable_share = 0.1
    c.rl.alarm.gap = 0.5
    c.rl.alarm.drop = 0.1
    c.evaluate.prms = ("aprm",)
    c.evaluate.attack_prms = ()
    c.evaluate.samples = (8,)
    c.evaluate.solvers = ("rl",)
    if arg == "runlocal":
        run_local(c)
        c.rl.alarm.gap = c.rl.alarm.drop = 0.0  # what comes out means nothing
    return c
