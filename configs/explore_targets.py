"""What a PRM is worth as a target, where its Generator had a solver's help to explore.

configs/explore.py asks how such a PRM chooses; here it is attacked, and RL learns from
it alone. The games are those of that config, from a naive start, bit for bit. An
attacker that knows the solver's mistakes has 10,000 oracle calls, as in
configs/attack.py, and a solver learns by RL as in configs/rl_verifiers.py.

    for seed in 0 1 2 3 4; do
      python -m aprm_jax.main --config=configs/explore_targets.py \\
        --config.seed=$seed --workdir=runs/explore-targets-$seed
    done
    python benchmarks/explore_targets.py collect runs/explore-targets-*
    python benchmarks/explore_targets.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "Explored PRMs as targets".
Time: six minutes of one core, and eight to twelve for each PRM.
A cut of every stage, minutes: --config=configs/explore_targets.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    check_arg,
    flat,
    override,
    read_config_file,
    run_local,
    set_stages,
)

PRMS = ("frozen_forced", "both", "forced", "alone", "frozen")


def get_config(arg: str = ""):
    check_arg(arg)
    here = Path(__file__)
    c = read_config_file(here.with_name("explore.py"))
    c.name = "explore_targets"
    rl = read_config_file(here.with_name("rl_verifiers.py")).rl
    informed = read_config_file(here.with_name("pressure.py")).overrides.generator
    prms = ("both",) if arg == "runlocal" else PRMS
    before = ("solver:sft", "prm_warmup:prm", "generator:sft", "attacker:sft")
    # A PRM's stages follow each other, so that a run that is stopped has whole ones.
    arms = [
        s
        for prm in prms
        for s in (f"{prm}:aprm", f"attack_{prm}:attack", f"rl_{prm}:rl")
    ]
    set_stages(c, (*before, *arms))
    override(c, "attacker", flat(informed))
    c.rl = rl
    c.rl.solver_from = "solver"
    c.attack.generator = "attacker"
    for prm in prms:
        attacked = {"attack.verifiers": (prm,), "game.generator_replay": 48}
        override(c, f"attack_{prm}", attacked)
        arm = {"rl.verifiers": (prm,), "rl.rewards": ("min_form",)}
        override(c, f"rl_{prm}", arm)
    if arg == "runlocal":
        run_local(c)
    return c
