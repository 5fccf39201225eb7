"""A config of two fine-tunings and a game of a few rounds, for several hosts.

With `:solver` of a solver whose values are learned, that is searched with and trained
by them.
"""

from aprm_jax.config import check_arg, default_config, override, run_local


def get_config(arg: str = ""):
    check_arg(arg, ("", "solver"))
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
    if arg == "solver":
        _learn_values(c)
    return c


def _learn_values(c):
    c.overrides = {}
    c.stages = ("solver:sft", "pav:pav", "search", "rl")
    c.sft.updates, c.sft.batch_size = 150, 16  # so that it finishes some solutions
    c.prm.init_from, c.builder.window = "solver", 0
    c.pav.solver = c.rl.solver_from = c.search.solver = "solver"
    c.pav.problems, c.pav.batch = 16, 8
    c.search.verifiers, c.search.aggregation = ("pav",), "effective"
    c.search.problems, c.search.batch = 8, 4
    c.rl.verifiers, c.rl.rewards, c.rl.updates = ("pav",), ("progress", "outcome"), 3
    c.rl.dev_every, c.rl.keep = 1, "best"
    c.rl.epochs, c.rl.minibatches = 2, 2
