"""A config of two fine-tunings and a game of a few rounds, for several hosts."""

from aprm_jax.config import check_arg, default_config, override, run_local


def get_config(arg: str = ""):
    check_arg(arg)
    c = default_config()
    c.name = "hosts"
    c.stages = ("solver:sft", "generator:sft", "aprm:aprm")
    override(c, "generator", {"sft.task": "perturb", "sft.init_from": "solver"})
    c.game.prm_from = "solver"
    run_local(c)
    c.builder.buckets = c.builder.buckets[-1:]
    c.log_every = c.checkpoint.every = 1
    c.sft.updates, c.sft.batch_size = 4, 8
    c.game.updates = 4
    c.mesh.data = 2
    return c
