"""What hard replies and imitation add where the Generator starts out naive.

configs/naive_generator.py asks whether learning pays for a Generator that has seen
static corruptions alone; this is the same question under pressure: with R's rows as
they were drawn beside the hardest of them, and with what fooled R for G to imitate
(`aprm_replay`). Solver and the PRM's warm-up are those of a finished
configs/pressure.py run of the same seed.

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=configs/naive_pressure.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/naive-pressure-$seed
    done
    python benchmarks/naive_pressure.py collect runs/naive-pressure-*
    python benchmarks/naive_pressure.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "A naive Generator".
Time: about 20 minutes of one core.
A cut that trains its own models, minutes: --config=configs/naive_pressure.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)

FROZEN, DRAWN = {"game.freeze_generator": True}, {"game.hard_share": 0.0}
GAMES = {
    "prm_frozen": FROZEN,
    "aprm": {"game.generator_replay": 0},  # that of the pressure run imitates
    "aprm_replay": {"game.generator_replay": 48},
    "prm_frozen_drawn": FROZEN | DRAWN,
    "aprm_drawn": DRAWN,
}


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("pressure.py"))
    c.name = "naive_pressure"
    stages = ("generator:sft", *(f"{name}:aprm" for name in GAMES), "evaluate")
    if arg in ("", "runlocal"):
        set_stages(c, ("solver:sft", "prm_warmup:prm", *stages))
    else:
        models = finished_models(arg, "solver", "prm_warmup")
        set_stages(c, stages)
        c.evaluate.solver = models["solver"]
        c.game.prm_from = models["prm_warmup"]
    naive = {"sft.init_from": c.evaluate.solver, "sft.solver_share": 0.0}
    override(c, "generator", naive)
    for name, fields in GAMES.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(GAMES)
    c.evaluate.attack_prms = c.evaluate.solvers = ()
    c.evaluate.splits = ("dev", "test")
    c.evaluate.samples = (8, 32, 128, 512)
    if arg == "runlocal":
        run_local(c)
        c.evaluate.samples = (2, 4, 8)
    return c
