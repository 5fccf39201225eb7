"""`evaluate`: PRMs on solutions that a solver writes, or on labelled ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.addresses import is_address
from aprm_jax.config.fields import ConfigError
from aprm_jax.config.job import Job, Lazy, Needs
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config
from aprm_jax.jobs.records.prm import NEUTRAL

AGGREGATIONS = ("min", "product", "mean", "last")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured."""

    solver: str = setting(
        "solver", 'stage or directory; "" = none: no splits, no row of its likelihood'
    )
    solvers: tuple[str, ...] = setting(
        (),
        "more solvers, such as no PRM of the run was trained with: stage or folder",
        distinct=True,
    )
    solver_splits: tuple[str, ...] = setting(
        ("test",), "what those solve", distinct=True
    )
    prms: tuple[str, ...] = setting(
        ("prm_static", "aprm"),
        "stages, directories, or addresses (docs/endpoints.md)",
        distinct=True,
    )
    splits: tuple[str, ...] = setting(
        ("test", "longer", "larger", "worded"),
        "of the domain's problems; of dev no step figure at a threshold: it chooses it",
        distinct=True,
    )
    problems: int = setting(200, "a split", least=1)
    samples: tuple[int, ...] = setting(
        (8,), "N of best-of-N, ascending; the largest is sampled", least=1
    )
    aggregations: tuple[str, ...] = setting(
        AGGREGATIONS,
        "a solution's score from its steps'",
        choices=AGGREGATIONS,
        distinct=True,
    )
    temperature: float = setting(1.0, "of the solver's samples", least=0)
    attack_prms: tuple[str, ...] = setting(
        ("prm_static", "aprm"), "robustness: who is attacked; () = none", distinct=True
    )
    attack_learning_rate: float = setting(2e-3, "of the fresh attacker", above=0)
    attack_updates: int = setting(40, "budget of the fresh attacker, rounds", least=1)
    graded: int = setting(
        0, "gsm8k: solutions of domain.model_solutions; 0 = all", least=0
    )
    bootstrap: int = setting(2000, "resamples of an interval", least=1)
    sets: tuple[str, ...] = setting(
        (), 'labelled: what verifiers are measured on, "NAME=READER:SOURCE" each'
    )
    neutral: str = setting(
        "correct", "labelled: what a neutral rating is", choices=NEUTRAL[:-1]
    )
    scores: tuple[str, ...] = setting(
        (),
        'labelled: scores of other PRMs, "NAME=PATH" each; see evals/scores_file.py',
    )


def _validate(config: Config) -> None:
    c, labelled = config.evaluate, config.domain.name == "labelled"
    if not c.samples or list(c.samples) != sorted(set(c.samples)):
        raise ConfigError(
            f"evaluate.samples lists the n of best-of-n, ascending, not {c.samples!r}"
        )
    if not c.aggregations:
        raise ConfigError(
            f"evaluate.aggregations is empty: name one at least of {AGGREGATIONS}"
        )
    if c.solvers and not (c.solver and c.solver_splits):
        raise ConfigError(
            "evaluate.solvers needs evaluate.solver, whose samples on dev choose the "
            "thresholds, and evaluate.solver_splits"
        )
    for field in ("sets", "scores"):
        entries = getattr(c, field)
        if entries and not labelled:
            raise ConfigError(f"evaluate.{field} needs domain.name='labelled'")
        _check_named(f"evaluate.{field}", entries)
    if c.splits and not c.solver and not labelled:
        raise ConfigError("evaluate.splits needs evaluate.solver, or set both empty")


def _check_named(field: str, entries: tuple[str, ...]) -> None:
    """Each is NAME=SOURCE, and no name stands there twice."""
    for entry in entries:
        name, _, source = entry.partition("=")
        if not name or not source or not name.replace("_", "").isalnum():
            raise ConfigError(
                f"{field}: {entry!r} must be NAME=SOURCE, the name of letters, "
                "digits and underscores"
            )
    names = [entry.partition("=")[0] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{field}: {twice[0]!r} stands there twice")


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    c = config.evaluate
    if c.attack_prms:
        yield "game.generator_from", config.game.generator_from
    if c.solver:
        yield "evaluate.solver", c.solver
    for name in c.solvers:
        yield "evaluate.solvers", name
    for name in c.prms:
        if not is_address(name):
            yield "evaluate.prms", name
    for name in c.attack_prms:
        yield "evaluate.attack_prms", name


THRESHOLDS = "thresholds"  # chosen before all else
OUTCOME = "outcome"  # of solutions that other models wrote


def measured(split: str, solver: str) -> str:
    """The name of a split, and of whoever solves it if that is not the run's own."""
    return f"{split}@{solver}" if solver else split


def sampled(name: str) -> str:
    """The name of the samples of what is `measured`."""
    return f"samples_{name}"


def attacked(prm: str) -> str:
    """The name of the fresh attack on a PRM."""
    return f"attack_{prm}"


def split_solvers(config: Config) -> dict[str, tuple[str, str]]:
    """What is measured by name: the split, and the solver if not the run's own."""
    c = config.evaluate
    own = [(split, "") for split in c.splits]
    others = [(split, who) for who in c.solvers for split in c.solver_splits]
    return {measured(split, who): (split, who) for split, who in (*own, *others)}


def pieces(config: Config) -> dict[str, Needs]:
    """All but labelled sets, of which one may tune the others."""
    c, out = config.evaluate, dict[str, Needs]()
    if config.domain.name == "labelled":
        return out
    read = (*c.prms, c.solver)
    for name, (_, who) in split_solvers(config).items():
        out[sampled(name)] = Needs(stages=(who or c.solver,))
    out[THRESHOLDS] = Needs(stages=read)
    for name, (_, who) in split_solvers(config).items():
        needed = (sampled(name), THRESHOLDS)
        out[name] = Needs(stages=(*read, who), pieces=needed)
    if config.domain.model_solutions:
        out[OUTCOME] = Needs(stages=read, pieces=(THRESHOLDS,))
    for prm in c.attack_prms:
        out[attacked(prm)] = Needs(stages=(config.game.generator_from, prm))
    return out


JOB = Job(
    name="evaluate",
    place=40,
    purpose="measure PRMs: best-of-N, steps, a fresh attacker, labelled sets",
    group="evaluate",
    settings=EvaluateConfig,
    run=Lazy("evaluate:run"),
    beside=True,
    pieces=pieces,
    piece=Lazy("evaluate:piece"),
    check_data=Lazy("step_data:check"),
    validate=_validate,
    sources=_sources,
    reads=("game", "prm"),
    given=("evaluate.sets", "evaluate.scores"),
    outputs=("parts", "per_problem", "sets", "results.json", "summary.json"),
    effort=3.0,
    redone="changed",
    less_memory="fewer evaluate.samples or evaluate.problems",
)
