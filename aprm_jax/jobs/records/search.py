"""`search`: better answers from a solver that stays as it is, with a verifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from aprm_jax.config.fields import ConfigError
from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config
from aprm_jax.jobs.records.score import stage_sources

METHODS = ("best_of_n", "beam", "dvts", "rebase", "mcts")
AGGREGATIONS = ("", "min", "product", "mean", "last", "effective")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """What is searched, by whom, and how; docs/search.md has the sources."""

    solver: str = setting("solver", "who writes: stage or directory")
    verifiers: tuple[str, ...] = setting(
        ("aprm",),
        'who scores, as score.verifiers; "likelihood" is that of the solver, "oracle" '
        'an upper bound that is told the answers; () = nobody, for pick="majority"',
    )
    combine: str = setting(
        "mean",
        "of several verifiers' probabilities",
        choices=("mean", "min", "product"),
    )
    questions: str = setting(
        "",
        'JSONL of questions, with answers or without, or "READER:SOURCE"; "" = the '
        "domain's own splits",
    )
    splits: tuple[str, ...] = setting(
        ("test",),
        'of the domain\'s problems; "train" are those that are trained on',
        distinct=True,
    )
    problems: int = setting(200, "questions, of each split; 0 = all of a file", least=0)
    output: str = setting("", 'file of rows; "" = solutions.jsonl in the stage')
    method: str = setting("beam", "which steps go on", choices=METHODS)
    n: int = setting(
        16, "hypotheses: N of best-of-N, beam, DVTS; REBASE's width", least=1
    )
    m: int = setting(4, "beam, DVTS: children of a step that is kept", least=1)
    pick: str = setting(
        "best",
        "the answer: of the best solution, with the largest sum of scores, or the "
        "most frequent",
        choices=("best", "vote", "majority"),
    )
    aggregation: str = setting(
        "",
        'a solution\'s score from its steps\'; "effective" is PAV\'s reward; "" = as '
        "suits the verifiers: min for correctness, last for values",
        choices=AGGREGATIONS,
    )
    alpha: float = setting(0.5, "effective: weight of the progress", least=0)
    prover: int = setting(4, "effective: K of the prover, best of K", least=1)
    prover_values: str = setting(
        "",
        "effective: another prover, by a verifier of its values (job=pav), in place of "
        'the best of K; "" = none',
    )
    temperature: float = setting(0.8, "of the solver's samples", least=0)
    rebase_temperature: float = setting(0.2, "rebase: of its softmax", above=0)
    iterations: int = setting(50, "mcts: at most", least=1)
    branch: int = setting(3, "mcts: children of a leaf", least=1)
    roll_steps: int = setting(2, "mcts: steps rolled on from the best child", least=0)
    roll_branch: int = setting(1, "mcts: samples of such a step", least=1)
    exploration: float = setting(0.4, "mcts: c of its bonus", least=0)
    unvisited: float = setting(1.0, "mcts: bonus of a child without a visit", least=0)
    roll_weight: float = setting(0.5, "mcts: of a roll's best value", least=0, most=1)
    end: float = setting(0.9, "mcts: value of a solution that is good enough", least=0)
    batch: int = setting(16, "questions side by side; what a kill loses", least=1)
    trees: int = setting(4, "questions whose whole trees are kept", least=0)
    bootstrap: int = setting(2000, "resamples of an interval", least=1)


def check_search(c: Any, prefix: str = "search.") -> None:
    """What goes together.

    Raises:
      ConfigError: names the fields.
    """
    if c.method in ("beam", "dvts") and c.n % c.m:
        raise ConfigError(f"{prefix}n ({c.n}) must be a multiple of {prefix}m ({c.m})")
    if not c.verifiers and (c.method != "best_of_n" or c.pick != "majority"):
        missing = f"{prefix}verifiers is empty" if prefix else "verifier is None"
        raise ConfigError(
            f"{missing}: without scores there is "
            f'{prefix}method="best_of_n" with {prefix}pick="majority" alone'
        )
    if c.method == "mcts" and c.aggregation == "effective":
        raise ConfigError(
            f'{prefix}method="mcts" needs a value: {prefix}aggregation="effective" is '
            "a reward of single steps"
        )


def _validate(config: Config) -> None:
    check_search(config.search)
    if config.search.prover_values and config.search.aggregation != "effective":
        raise ConfigError(
            f"search.prover_values={config.search.prover_values!r} is of effective "
            'rewards alone: set search.aggregation="effective"'
        )
    if config.search.solver == "endpoint" and "likelihood" in config.search.verifiers:
        raise ConfigError(
            "search.verifiers: 'likelihood' is read from the parameters of "
            "search.solver, and an endpoint has none"
        )
    if given := [x for x in config.search.verifiers if x.startswith("scores:")]:
        raise ConfigError(
            f"search.verifiers: {given[0]!r}: a file has scores of whole solutions, "
            "and a search writes others: choose among the file's own with job=select"
        )
    if not config.search.questions and not config.search.splits:
        raise ConfigError("search.questions and search.splits are both empty")
    if not config.search.questions and not config.search.problems:
        raise ConfigError("search.problems=0 is for a file: a split has no end")


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    yield "search.solver", config.search.solver
    yield from stage_sources(config, "search")
    yield from stage_sources(config, "search", "prover_values")


JOB = Job(
    name="search",
    place=42,
    purpose="search for better answers with a verifier",
    group="search",
    settings=SearchConfig,
    run=Lazy("search:run"),
    beside=True,
    together=True,
    check=Lazy("search:check"),
    needs=(),
    validate=_validate,
    sources=_sources,
    given=("search.questions",),
    uses_problems=lambda config: not config.search.questions,
    once=("solver.endpoint", "endpoint", "prompt.solver"),
    writes=Lazy("search:writes"),
    outputs=("solutions.jsonl", "made_by.json", "results.json", "summary.json"),
    effort=3.0,
    redone="asked",
    less_memory="a smaller search.batch or search.n",
)
