"""The learning Generator against the same one frozen, where it starts out naive.

In `configs/compare.py` the Generator starts from the solver's own mistakes, so that
even frozen it covers what the PRM will be asked about. Here it has learned static
corruptions alone: what lies beyond them it must find in the game. Solver and the PRM's
warm-up are those of a finished `configs/compare.py` run of the same seed.

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=configs/naive_generator.py:runs/compare-$seed \\
        --config.seed=$seed --workdir=runs/naive-$seed
    done

Hardware: 2 CPU cores, no GPU; peak memory below 4 GiB.
Time: ten minutes on one core; scores: see docs/results.md, "A naive Generator".
A cut that trains its own models, a minute: --config=configs/naive_generator.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)


def get_config(arg: str = ""):
    """`arg` is the folder of a finished compare run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("compare.py"))
    c.name = "naive_generator"
    stages = ("generator:sft", "prm_frozen:aprm", "aprm:aprm", "evaluate", "report")
    if arg in ("", "runlocal"):
        set_stages(c, ("solver:sft", "prm_warmup:prm", *stages))
    else:
        models = finished_models(arg, "solver", "prm_warmup")
        set_stages(c, stages)
        c.evaluate.solver = models["solver"]
        c.game.prm_from = models["prm_warmup"]
    naive = {"sft.init_from": c.evaluate.solver, "sft.solver_share": 0.0}
    override(c, "generator", naive)
    c.evaluate.prms = c.evaluate.attack_prms = ("prm_frozen", "aprm")
    if arg == "runlocal":
        run_local(c)
    return c
