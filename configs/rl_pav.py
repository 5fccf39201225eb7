"""RL by progress: a PAV as it is, refreshed on the way, and hardened by the game.

The solver of a finished configs/pressure.py run learns from an ORM and from process
advantage verifiers (PAV) at equal problems, samples and updates: with the best of four
of the solver as the prover, with that run's foreign solver as another; refreshed,
where the values are learned anew from the policy as it has become, three times on the
way, and RL begins anew from there; restarted, where it begins anew likewise and the
values stay; and hardened, where the values went through the game first and wrong steps
that the Generator found are worth nothing. Refreshing and hardening are open questions
of the paper.

    for seed in 0 1 2 3 4; do
      python -m aprm_jax.main --config=configs/rl_pav.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/rl_pav-$seed
      python benchmarks/rl.py collect runs/rl_pav-$seed
    done
    python benchmarks/rl.py tables

Hardware: one CPU core, no GPU; below 3 GB. Time: an hour beside other work; scores:
docs/results.md, "RL by progress".
A cut that trains its own models, minutes: --config=configs/rl_pav.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)

UPDATES, SEGMENTS = 100, 4  # rounds of each arm, and stages of the refreshed one
HARDENED = {
    "game.prm_from": "pav",
    "game.right_targets": "reference",
    "game.updates": 100,
    "game.eta_prm": 0.0,  # entropy would draw values to a half
    "game.prm_clean": 64,  # as many as wrong ones at least, or all values sink
}


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("pressure.py"))
    c.name = "rl_pav"
    short = arg in ("", "runlocal")
    models = {name: name for name in ("solver", "foreign", "generator")}
    trained = ("solver:sft", "foreign:sft", "generator:sft") if short else ()
    if not short:
        models = finished_models(arg, *models)
    # All read whole solutions, as no PRM of that run does: they start from the solver.
    whole = {"prm.init_from": models["solver"], "prm.hard_share": 0.0}
    whole |= {"builder.window": 0}
    values = whole | {"pav.solver": models["solver"], "prm.updates": 200}
    values |= {"pav.problems": 800, "pav.n_mc": 4}  # small budgets: many rollouts
    outcome = {"prm.negatives": "outcome", "prm.solver": models["solver"]}
    verifiers = {
        "orm:prm": whole | outcome,
        "pav:pav": values,
        "pav_prover:pav": values | {"pav.prover": models["foreign"]},
        "pav_hardened:aprm": HARDENED | {"game.generator_from": models["generator"]},
    }
    updates, segments = (2, 2) if short else (UPDATES, SEGMENTS)
    arms = {
        "rl_orm:rl": {"rl.verifiers": ("orm",), "rl.rewards": ("solution",)},
        "rl_pav:rl": {},
        "rl_pav_prover:rl": {"rl.prover_values": "pav_prover"},
        "rl_pav_hardened:rl": {"rl.verifiers": ("pav_hardened",)},
        **_refreshed(updates, segments, values),
        **_restarted(updates, segments),
    }
    set_stages(c, (*trained, *verifiers, *arms))
    for stage, fields in (verifiers | arms).items():
        override(c, stage.partition(":")[0], fields)
    c.rl.updates, c.rl.solver_from = updates, models["solver"]
    c.rl.verifiers, c.rl.rewards = ("pav",), ("progress",)
    c.rl.dev_every = 5
    c.rl.dev_problems, c.rl.dev_samples = 150, 2
    c.rl.pass_splits = ("test", "longer")
    c.rl.pass_problems, c.rl.pass_samples = 100, 32
    if short:
        run_local(c)
        c.sft.updates = 150  # so that some samples are right: an ORM needs both kinds
        override(c, "orm", {"prm.pool_problems": 128, "prm.pool_samples": 8})
        c.rl.updates = updates
        for stage, fields in arms.items():
            if "rl.updates" in fields:  # a turn's, which the cut has overridden
                turn = {"rl.updates": fields["rl.updates"]}
                override(c, stage.partition(":")[0], turn)
        c.rl.dev_every = 1
    return c


def _refreshed(updates: int, segments: int, values: dict) -> dict[str, dict]:
    """The arm whose PAV follows the policy: RL by turns with job=pav."""
    stages, pav = {}, "pav"
    for k in range(segments):
        name, last = f"rl_pav_refreshed_{k + 1}", f"rl_pav_refreshed_{k}"
        fields = _turn(updates, segments, k) | {"rl.verifiers": (pav,)}
        stages[f"{name}:rl"] = fields | ({"rl.solver_from": last} if k else {})
        if k < segments - 1:
            again = {"prm.init_from": pav, "pav.solver": name, "pav.problems": 200}
            pav = f"pav_{k + 1}"
            stages[f"{pav}:pav"] = values | again | {"prm.updates": 50}
    return stages


def _restarted(updates: int, segments: int) -> dict[str, dict]:
    """The same turns by the PAV as it was; the first is that of the other arm."""
    stages, last = {}, "rl_pav_refreshed_1"
    for k in range(1, segments):
        name = f"rl_pav_restarted_{k + 1}"
        fields = _turn(updates, segments, k) | {"rl.solver_from": last}
        stages[f"{name}:rl"], last = fields, name
    return stages


def _turn(updates: int, segments: int, number: int) -> dict:
    """A part of an arm's rounds; Pass@N is measured behind the last."""
    rounds = updates // segments
    before, after = number * rounds, updates - (number + 1) * rounds
    fields = {"rl.updates": rounds}
    fields |= {"rl.rounds_before": before, "rl.rounds_after": after}
    return fields if number == segments - 1 else fields | {"rl.pass_samples": 0}
