"""A config of two fine-tunings and a game of a few rounds, for several hosts."""

from aprm_jax.config import check_arg, default_config, override, run_local


def get_config(arg: str = ""):
    check_arg(arg)
    c = default_config()
    c.name = "hosts"
    c.stages = ("solver:sft", "generator:sft", "aprm:aprm")
    c.game.prm_from = "solver"
    run_local(c)
    c.builder.buckets = c.builder.buckets[-1:]
    c.log_every = 1
    # The solver's steps are quick: a signal must find it at work.
    c.sft.updates, c.sft.batch_size, c.sft.warmup = 40, 8, 2
    taught = {"sft.task": "perturb", "sft.init_from": "solver", "sft.updates": 4}
    override(c, "generator", taught)
    c.game.updates = 6
    override(c, "aprm", {"checkpoint.every": 1})
    c.mesh.data = 2
    # A test adds an evaluation to the stages.
    c.evaluate.prms = c.evaluate.attack_prms = ("aprm",)
    c.evaluate.splits = ("test", "longer")
    return c
