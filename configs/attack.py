"""Red team a PRM: a fresh Generator learns to fool it, within a budget of oracle calls.

The quickstart's models, then an attack on the PRM of static corruptions and on APRM's.
Each attacker starts from the same Generator and meets a PRM that does not learn. The
stage writes `attack/attack.html`: fool rate against oracle calls, kinds of error,
examples, and a robustness score to quote; docs/results.md says what it is.

    python -m aprm_jax.main --config=configs/attack.py

Against any other PRM, with a run that is finished:

    python -m aprm_jax.main --workdir=runs/mine --config.job=attack \\
      --config.attack.verifiers=Qwen/Qwen2.5-Math-PRM-7B,aprm

Against every PRM of a finished configs/pressure.py run of the same seed:

    for seed in 0 1 2 3 4; do
      python -m aprm_jax.main --config=configs/attack.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/attack-$seed
      python benchmarks/attack.py collect runs/attack-$seed
    done
    python benchmarks/attack.py tables

Hardware: 2 CPU cores, no GPU. Scores: docs/results.md, "Under attack".
Time: six to twelve minutes of one core for the six PRMs of a pressure run.
A cut of every stage, one to a few minutes: --config=configs/attack.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import finished_models, read_config_file, run_local, set_stages

PRMS = (
    "prm_static",
    "prm_monte_carlo",
    "prm_oracle",
    "prm_frozen",
    "aprm",
    "aprm_plain",
)


def get_config(arg: str = ""):
    """`arg` is empty, the folder of a finished pressure run, or `runlocal`."""
    whole = arg in ("", "runlocal")
    base = "quickstart.py" if whole else "pressure.py"
    c = read_config_file(Path(__file__).with_name(base))
    c.name = "attack"
    if whole:
        stages = ("solver:sft", "generator:sft", "prm_warmup:prm", "prm_static:prm")
        set_stages(c, (*stages, "aprm:aprm", "attack"))
        c.attack.verifiers = ("prm_static", "aprm")
    else:
        models = finished_models(arg, "generator", *PRMS)
        set_stages(c, ("attack",))
        c.attack.verifiers = tuple(models[name] for name in PRMS)
        c.attack.generator = models["generator"]
        c.game.generator_replay = 48  # the stronger attacker
    if arg == "runlocal":
        run_local(c)
    return c
