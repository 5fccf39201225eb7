"""Red team a PRM: a fresh Generator learns to fool it, within a budget of oracle calls.

The quickstart's models, then an attack on the PRM of static corruptions and on APRM's.
Each attacker starts from the same Generator and meets a PRM that does not learn. The
stage writes `attack/attack.html`: fool rate against oracle calls, kinds of error,
examples, and a robustness score to quote; docs/results.md says what it is.

    python -m aprm_jax.main --config=configs/attack.py

Against any other PRM, with a run that is finished:

    python -m aprm_jax.main --workdir=runs/mine --config.job=attack \\
      --config.attack.verifiers=Qwen/Qwen2.5-Math-PRM-7B,aprm

Hardware: 2 CPU cores, no GPU. Time and scores: not measured yet.
A cut of every stage, one to a few minutes: --config=configs/attack.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, read_config_file, run_local, set_stages


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "attack"
    stages = ("solver:sft", "generator:sft", "prm_warmup:prm", "prm_static:prm")
    set_stages(c, (*stages, "aprm:aprm", "attack"))
    c.attack.verifiers = ("prm_static", "aprm")
    if arg == "runlocal":
        run_local(c)
    return c
