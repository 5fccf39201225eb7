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
WAYS = {
    "forced": {"game.explore.forced": 0.5},
    "kinds": {"game.explore.kinds": 0.5},
    "plausible": {"game.explore.plausible": 1.0},
    "plausible_2": {"game.explore.plausible": 2.0},
    "forced_plausible": {"game.explore.forced": 0.5, "game.explore.plausible": 1.0},
    "tempered": {"game.explore.tempered": 0.5},
    "population": {"game.explore.population": 3},
    "frozen_forced": {"game.explore.forced": 0.5} | FROZEN,
    "frozen_tempered": {"game.explore.tempered": 0.5} | FROZEN,
}


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("naive_pressure.py"), arg)
    c.name = "explore"
    before = [s for s in c.stages if s.split(":")[0] in ("solver", "prm_warmup")]
    games = (f"{name}:aprm" for name in WAYS)
    c.overrides = {"generator": c.overrides["generator"]}
    set_stages(c, (*before, "generator:sft", *games, "evaluate"))
    c.game.generator_replay = 48
    c.game.explore.solver = c.evaluate.solver
    for name, fields in WAYS.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(WAYS)
    c.evaluate.splits = ("dev",)
    if arg == "runlocal":
        run_local(c)
    return c
