"""RL against every verifier: which of them does a policy learn to deceive, and when?

The solver of a finished configs/pressure.py run learns from each of that run's PRMs
alone and from an ORM, by the credit that suits it, from the same problems and draws,
with no alarm: the curves of the oracle's and the verifier's reward against KL are the
result. The oracle as a verifier is a ceiling; the guarded PRM plays its game on during
RL; known answers pay alone, and with an implicit PRM that learns them beside. The
learning rate was chosen on `dev`, for known answers and APRM, with seed 0.

    for seed in 0 1 2 3 4; do
      python -m aprm_jax.main --config=configs/rl_verifiers.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/rl-$seed
      python benchmarks/rl.py collect runs/rl-$seed
    done
    python benchmarks/rl.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "RL by verifier".
Time: one and a half to three minutes an arm on one core.
A cut that trains its own models, minutes: --config=configs/rl_verifiers.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)

PRMS = (
    "prm_static",
    "prm_monte_carlo",
    "prm_oracle",
    "prm_frozen",
    "aprm",
    "aprm_plain",
)


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("pressure.py"))
    c.name = "rl_verifiers"
    whole, prms = (), PRMS
    if arg in ("", "runlocal"):
        whole = ("solver:sft", "generator:sft", "prm_warmup:prm", "aprm:aprm")
        prms = ("aprm",)
        models = {name: name for name in ("solver", "generator", "aprm")}
    else:
        models = finished_models(arg, "solver", "generator", *prms)
    # It reads whole solutions, as no other PRM here does: it starts from the solver.
    orm = {"prm.negatives": "outcome", "prm.init_from": models["solver"]}
    orm |= {"prm.solver": models["solver"], "prm.hard_share": 0.0, "builder.window": 0}
    arms: dict[str, dict] = {
        name: {"rl.verifiers": (models[name],), "rl.rewards": ("min_form",)}
        for name in prms
    }
    arms["orm"] = {"rl.verifiers": ("orm",), "rl.rewards": ("solution",)}
    arms["oracle"] = {"rl.verifiers": ("oracle",), "rl.rewards": ("min_form",)}
    arms["outcome"] = {"rl.verifiers": (models["aprm"],), "rl.rewards": ("outcome",)}
    arms["implicit"] = {
        "rl.verifiers": (),
        "rl.rewards": ("outcome", "implicit"),
        "rl.implicit_from": models["solver"],
        "rl.implicit_learning_rate": 5e-4,
        "rl.estimator": "rloo",  # unscaled, or it pays noise while it knows nothing
    }
    arms["guarded"] = {
        "rl.verifiers": (),
        "rl.guard.prm": models["aprm"],
        "rl.guard.own_steps": True,
        "rl.rewards": ("min_form",),
    }
    set_stages(c, (*whole, "orm:prm", *(f"rl_{name}:rl" for name in arms)))
    override(c, "orm", orm)
    for name, fields in arms.items():
        override(c, f"rl_{name}", fields)
    c.rl.solver_from = models["solver"]
    c.game.generator_from = models["generator"]
    c.rl.updates, c.rl.learning_rate = 100, 5e-4
    c.rl.dev_every = 10
    c.rl.dev_problems, c.rl.dev_samples = 150, 2
    c.rl.pass_splits = ("test", "longer")
    c.rl.pass_problems, c.rl.pass_samples = 100, 16
    # A frozen verifier is to be exploited as far as it goes: to where nothing that the
    # policy writes is paid, too.
    c.rl.kl_weight, c.rl.max_idle = 0.0, 0
    if arg == "runlocal":
        run_local(c)
        c.sft.updates = 150  # so that some samples are right: an ORM needs both kinds
        override(c, "orm", {"prm.pool_problems": 128, "prm.pool_samples": 8})
        c.rl.updates, c.rl.dev_every = 2, 1
    return c
