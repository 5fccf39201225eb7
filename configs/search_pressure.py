"""PRMs under tree search: where does each stop telling right from wrong?

Every method searches with the PRMs of a finished configs/pressure.py run, at two
widths, with the solver's own likelihood and with the oracle as a ceiling. Best-of-N, up
to 512, is in that run's own results.

    for seed in 0 1 2; do
      python -m aprm_jax.main \\
        --config=configs/search_pressure.py:runs/pressure-$seed \\
        --config.seed=$seed --workdir=runs/search-pressure-$seed
      python benchmarks/search_pressure.py collect runs/search-pressure-$seed
    done
    python benchmarks/search_pressure.py tables

Hardware: 2 CPU cores, no GPU, 5 GB. Scores: docs/results.md, "Tree search".
Time: about 28 minutes of one core.
A cut that trains its own models, minutes: --config=configs/search_pressure.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import (
    finished_models,
    override,
    read_config_file,
    run_local,
    set_stages,
)

PRMS = ("prm_static", "prm_monte_carlo", "prm_oracle", "prm_frozen", "aprm")
METHODS = ("beam", "dvts", "rebase")
WIDTHS = (16, 64)


def get_config(arg: str = ""):
    """`arg` is the folder of a finished pressure run, or `runlocal`."""
    c = read_config_file(Path(__file__).with_name("pressure.py"))
    c.name = "search_pressure"
    widths, prms = WIDTHS, PRMS
    if arg in ("", "runlocal"):
        whole = ("solver:sft", "generator:sft", "prm_warmup:prm", "aprm:aprm")
        models, prms = {name: name for name in ("solver", "aprm")}, ("aprm",)
    else:
        whole, models = (), finished_models(arg, "solver", *prms)
    c.search.solver = models["solver"]
    verifiers = {name: models[name] for name in prms}
    verifiers |= {name: name for name in ("likelihood", "oracle")}
    if arg == "runlocal":
        widths = (4,)
        del verifiers["likelihood"]
    searches = {
        f"{name}_{method}_{width}": {
            "search.verifiers": (verifier,),
            "search.method": method,
            "search.n": width,
        }
        for name, verifier in verifiers.items()
        for method in METHODS
        for width in widths
    }
    searches |= {
        f"{name}_mcts": {"search.verifiers": (verifier,), "search.method": "mcts"}
        for name, verifier in verifiers.items()
    }
    set_stages(c, (*whole, *(f"{stage}:search" for stage in searches)))
    for stage, fields in searches.items():
        override(c, stage, fields)
    c.search.splits = ("test", "longer")
    c.search.problems = 100
    c.search.batch = 50
    c.search.trees = 1
    if arg == "runlocal":
        run_local(c)
        c.builder.max_steps = 4
        c.search.problems, c.search.iterations = 2, 3
    return c
