"""Three sizes of R against three of G: where in the grid the game pays.

One solver writes all solutions, of the middle size (`model.d_model`). The players are
half as wide, as wide, and twice as wide: 0.13, 0.53 and 2.1 million parameters. A width
that is not the solver's begins with a model of its own, `base_*`, trained from nothing
on the solver's corpus in as many updates; each size of R has a warm-up, and each of G a
start that learned the solver's mistakes. A row of R's on static corruptions has as many
updates as a game, two thirds of those of configs/pressure.py. All else is of that
config, and nothing was tuned for a size.

    for seed in 0 1 2; do
      python -m aprm_jax.main --config=configs/sizes.py --config.seed=$seed \\
        --workdir=runs/sizes-$seed
    done
    python benchmarks/sizes.py collect runs/sizes-*
    python benchmarks/sizes.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "Sizes of the players".
Time: 82 to 84 minutes of one core a seed, 27 to 37 of them the evaluation.
A cut of every stage, minutes: --config=configs/sizes.py:runlocal
"""

import itertools
from pathlib import Path
from typing import Any

from aprm_jax.config import (
    check_arg,
    flat,
    override,
    read_config_file,
    run_local,
    set_stages,
)

WIDTHS = (64, 128, 256)  # of decoders of two layers
SOLVER = 128  # as wide as `model.d_model` is


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("pressure.py"))
    c.name = "sizes"
    c.game.generator_replay = 48
    c.game.updates = c.prm.updates = 200  # of 300, for time
    if arg == "runlocal":
        run_local(c)
        c.evaluate.samples, c.model.num_kv_heads = (2, 4, 8), 2
    else:
        c.evaluate.samples = (8, 32, 128, 512)
    widths = WIDTHS[:2] if arg == "runlocal" else WIDTHS
    generator, warmup = flat(c.overrides.generator), flat(c.overrides.prm_warmup)
    # Stage -> job, fields; first who writes the mistakes that every G begins with.
    made: dict[str, tuple[str, dict[str, Any]]] = {"solver": ("sft", {})}
    for w in widths:
        base = "solver" if w == SOLVER else f"base_{w}"
        wide = w * c.model.d_model // SOLVER  # what it is in the cut
        start = {"sft.init_from": base, "generator.d_model": wide}
        warm = {"prm.init_from": base, "prm.d_model": wide}
        made[base] = "sft", {"solver.d_model": wide}
        made[f"generator_{w}"] = "sft", generator | start
        made[f"prm_warmup_{w}"] = "prm", warmup | warm
        static = {"prm.init_from": f"prm_warmup_{w}", "prm.d_model": wide}
        made[f"prm_static_{w}"] = "prm", static
    for r, g in itertools.product(widths, widths):
        made[f"aprm_{r}_{g}"] = (
            "aprm",
            {
                "game.prm_from": f"prm_warmup_{r}",
                "game.generator_from": f"generator_{g}",
                "prm.d_model": made[f"prm_warmup_{r}"][1]["prm.d_model"],
                "generator.d_model": made[f"generator_{g}"][1]["generator.d_model"],
            },
        )
    set_stages(c, (*(f"{name}:{job}" for name, (job, _) in made.items()), "evaluate"))
    for name, (_, fields) in made.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(n for n in made if n.startswith(("prm_static", "aprm")))
    c.evaluate.attack_prms = c.evaluate.solvers = ()
    return c
