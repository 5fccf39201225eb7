"""Which of a round's wrong replies R should learn from, chosen on dev.

Arms of one game from the same start: the most believed three quarters (`aprm`), as
drawn (`aprm_drawn`), drawn by belief (`tilt_half`, `tilt_one`), and replayed rows by
belief too (`replay`).

    python -m aprm_jax.main --config=configs/hard_rows.py --config.seed=0 --workdir=RUN
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, run_local, set_stages

ARMS = {
    "aprm": {},
    "aprm_drawn": {"game.hard_share": 0.0},
    "tilt_half": {"game.hard_share": 1.0, "game.hard_tilt": 0.5},
    "tilt_one": {"game.hard_share": 1.0, "game.hard_tilt": 1.0},
    "replay": {"game.replay_pool": 64},
}


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("quickstart.py"))
    c.name = "hard_rows"
    c.game.hard_share = c.prm.hard_share = 0.75
    before = ("solver:sft", "generator:sft", "prm_warmup:prm")
    set_stages(c, (*before, *(f"{name}:aprm" for name in ARMS), "evaluate"))
    for name, fields in ARMS.items():
        override(c, name, fields)
    c.evaluate.prms = tuple(ARMS)
    c.evaluate.attack_prms = ()
    c.evaluate.solvers = ()
    c.evaluate.splits = ("dev",)
    c.evaluate.samples = (8, 32, 128, 512)
    c.evaluate.aggregations = ("min",)
    c.evaluate.problems = 300
    if arg == "runlocal":
        run_local(c)
        c.evaluate.samples = (2, 4, 8)
    return c
