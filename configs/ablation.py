"""What each part of the game is worth: APRM with one thing changed at a time.

Solver, Generator and the PRM's warm-up are those of a finished `configs/compare.py` run
of the same seed, so rows differ in the game alone.

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=configs/ablation.py:runs/compare-$seed \\
        --config.seed=$seed --workdir=runs/ablation-$seed
    done

Hardware: 2 CPU cores, no GPU; peak memory below 4 GiB.
Time, scores: see docs/results.md, "Ablations".
A cut that trains its own models, one to a few minutes:
--config=configs/ablation.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)

ROWS = {
    "no_regulariser": {
        "game.beta_generator": 0.0,
        "game.eta_generator": 0.0,
        "game.beta_prm": 0.0,
        "game.eta_prm": 0.0,
    },
    "no_optimism": {"game.optimistic": False},
    "no_replay": {"game.prm_replay": 0, "game.prm_fresh": 40},
    "caught_pays_0": {"game.rewards.generator_caught": 0.0},
}
# The same static negatives, read in the two ways that a PRM has.
HEADS = {"token_head": "token", "two_class_head": "two_class"}


def get_config(arg: str = ""):
    """`arg` is the folder of a finished compare run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("compare.py"))
    c.name = "ablation"
    games = tuple(f"{name}:aprm" for name in ROWS)
    stages = (*games, *(f"{name}:prm" for name in HEADS), "evaluate", "report")
    base = "aprm"
    if arg in ("", "runlocal"):
        whole = ("solver:sft", "generator:sft", "prm_warmup:prm", "aprm:aprm")
        set_stages(c, (*whole, *stages))
    else:
        models = finished_models(arg, "solver", "generator", "prm_warmup", "aprm")
        set_stages(c, stages)
        c.evaluate.solver = models["solver"]
        c.game.generator_from = models["generator"]
        c.game.prm_from = models["prm_warmup"]
        base = models["aprm"]
    for name, fields in ROWS.items():
        override(c, name, fields)
    for name, head in HEADS.items():
        start = {"prm.init_from": c.evaluate.solver, "prm.head": head}
        override(c, name, {**start, "prm.updates": 400})
    c.evaluate.prms = (base, *ROWS, *HEADS)
    c.evaluate.attack_prms = ()
    c.evaluate.samples = (8,)
    c.evaluate.problems = 200
    if arg == "runlocal":
        run_local(c)
    return c
