"""ReST-MCTS* alone, two rounds: trees, a value model of them, a policy, and again.

Each round searches training problems by MCTS* with the policy and the verifier that it
has, labels every step of the trees by its distance to a right answer, trains a value
model on these, and fine-tunes the policy on the solutions that are right. Nothing here
asks the oracle about a step. Settings are those of `compare.py`; the last value model
scores the samples of the solver, and of the last policy.

    python -m aprm_jax.main --config=configs/rest_mcts.py

Hardware: 2 CPU cores, no GPU. Time and scores: not measured yet.
A cut of every stage, about a minute: --config=configs/rest_mcts.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, set_stages

ROUND = ("rest_trees_{k}:search", "rest_value_{k}:prm", "rest_policy_{k}:sft")


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("compare.py"), arg)
    c.name = "rest_mcts"
    rounds = [stage.format(k=k) for k in (1, 2) for stage in ROUND]
    stages = ("solver:sft", "prm_warmup:prm", *rounds, "evaluate", "report")
    set_stages(c, stages)
    again = c.overrides.rest_policy_1.sft.to_dict()
    again |= {"init_from": "rest_policy_1", "data": "rest_trees_2"}
    override(c, "rest_policy_2", {f"sft.{k}": v for k, v in again.items()})
    c.evaluate.prms = ("rest_value_1", "rest_value_2")
    c.evaluate.attack_prms = ()
    c.evaluate.solvers = ("rest_policy_2",)
    return c
