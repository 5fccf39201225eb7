"""Ways for a Generator that starts naive to find what the solver gets wrong.

The question of configs/naive_pressure.py, with `game.explore`: see docs/method.md. Each
way stands beside the frozen Generator that explores alike.

    python -m aprm_jax.main --config=configs/explore.py:runs/pressure-0 \\
      --config.seed=0 --workdir=runs/explore-0

Hardware: 2 CPU cores, no GPU.
Time and scores: docs/results.md, "Exploration".
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
    "plausible": PLAUSIBLE,
    "both": FORCED | PLAUSIBLE,
}


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("naive_pressure.py"), arg)
    c.name = "explore"
    before = [s for s in c.stages if s.split(":")[0] in ("solver", "prm_warmup")]
    games = (f"{name}:aprm" for name in GAMES)
    c.overrides = {"generator": c.overrides["generator"]}
    set_stages(c, (*before, "generator:sft", *games, "evaluate"))
    c.game.generator_replay = 48
    c.game.explore.solver = c.evaluate.solver
    for name, fields in GAMES.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(GAMES)
    if arg == "runlocal":
        run_local(c)
    return c
