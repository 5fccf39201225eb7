"""The game on PRM800K's steps: a PRM of human labels meets a Generator.

Language model and PRM are those of configs/prm800k.py. The Generator starts from what
people called wrong, each beside a step that they called right, and from changed
numbers. In the game people's labels come first, and a text oracle judges what nobody
labelled: numbers that were changed, results that are wrong; most other prose it cannot
decide, and no player learns from that. Beside APRM stand the same Generator frozen and
a PRM that goes on with human labels instead, for as many updates.

    APRM_PRM800K_DIR=data/prm800k \\
      python -m aprm_jax.main --config=configs/prm800k_game.py

Data as in configs/prm800k.py.

Hardware: 2 CPU cores, no GPU.
Time: 55 minutes of one core; scores: docs/results.md, "The game on them".
A cut of every stage on made-up solutions, one to a few minutes:
--config=configs/prm800k_game.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, set_stages

GAMES = ("prm_frozen", "aprm")
PLAYED = {  # a step that is replaced, and every step before it
    "builder.buckets": (256, 512, 768),
    "builder.max_new_tokens": 128,
}


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("prm800k.py"), arg)
    c.name = "prm800k_game"
    set_stages(
        c,
        (
            "lm:sft",
            "prm:prm",
            "generator:sft",
            "prm_more:prm",
            *(f"{name}:aprm" for name in GAMES),
            "evaluate",
            "report",
        ),
    )
    c.domain.oracle = "text"
    c.game.updates = 100
    c.game.groups = 8
    c.game.group_size = 4
    c.game.generator_rows = 24
    c.game.generator_replay = 12
    c.game.generator_from = "generator"
    c.game.prm_from = "prm"
    c.game.generator_learning_rate = 1e-4
    c.game.prm_learning_rate = 5e-4
    c.game.prm_clean = c.game.prm_fresh = 8
    c.game.prm_replay = 8
    c.game.static_probe = 4
    c.game.replay_capacity = 1024
    c.game.sample_log = 10
    taught = {
        "sft.task": "perturb",
        "sft.init_from": "lm",
        "sft.updates": 150,
        "sft.batch_size": 16,
        "sft.learning_rate": 1e-3,
        "sft.solver_share": 0.75,
    }
    more = {"prm.init_from": "prm", "prm.updates": 100, "prm.learning_rate": 5e-4}
    if arg == "runlocal":
        taught |= {"sft.updates": 10, "sft.batch_size": 4}
        more |= {"prm.updates": 2}
        c.game.updates, c.game.groups, c.game.group_size = 2, 2, 4
    played = {} if arg == "runlocal" else PLAYED
    override(c, "generator", taught | played)
    override(c, "prm_more", more)
    for name in GAMES:
        override(c, name, {"game.freeze_generator": name == "prm_frozen"} | played)
    c.evaluate.prms = ("prm", "prm_more", *GAMES)
    return c
