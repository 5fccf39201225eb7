"""A solver that helps a Generator with a naive start to what the solver gets wrong.

The question of configs/naive_pressure.py with `game.explore`: the solver begins half of
the replies, and a wrong step is paid for being plausible to it. A frozen Generator
whose replies the solver begins alike stands beside it, at as many replies and updates;
the oracle is asked about distinct ones, of which it has more. `frozen` and `alone` are
games of that config, without help, bit for bit.

    for seed in 0 1 2 3 4; do
      python -m aprm_jax.main --config=configs/explore.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/explore-$seed
    done
    python benchmarks/explore.py collect runs/explore-*
    python benchmarks/explore.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "Exploration".
Time: about 20 minutes of one core.
A cut that trains its own models, minutes: --config=configs/explore.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import override, read_config_file, run_local, set_stages

FROZEN = {"game.freeze_generator": True}
FORCED, PLAUSIBLE = {"game.explore.forced": 0.5}, {"game.explore.plausible": 1.0}
GAMES = {
    "frozen": FROZEN,
    "frozen_forced": FROZEN | FORCED,
    "alone": {},
    "forced": FORCED,
    "both": FORCED | PLAUSIBLE,
}


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("naive_pressure.py"), arg)
    c.name = "explore"
    before = [s for s in c.stages if s.split(":")[0] in ("solver", "prm_warmup")]
    games = (f"{name}:aprm" for name in GAMES)
    set_stages(c, (*before, "generator:sft", *games, "evaluate"))
    c.game.explore.solver = c.evaluate.solver
    for name, fields in GAMES.items():
        override(c, name, {"game.generator_replay": 48} | fields)
    c.evaluate.prms = tuple(GAMES)
    if arg == "runlocal":
        run_local(c)
    return c
