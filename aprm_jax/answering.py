"""`aprm_jax.search`: better answers from a solver that stays as it is.

found = aprm_jax.search("2 + 3 * 4", solver="runs/mine/solver", verifier="runs/mine")
found.answer, found.solution, found.scores  # "14", ("2 + 12", "14"), (0.99, 0.98)
"""

from __future__ import annotations

import dataclasses
import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any, overload

import jax

from aprm_jax import api
from aprm_jax.api import PRM
from aprm_jax.config import ConfigError
from aprm_jax.config.addresses import is_solver_address
from aprm_jax.config.fields import nearest
from aprm_jax.config.schema import settings as settings_of_config
from aprm_jax.data import given
from aprm_jax.hf.locate import load_any
from aprm_jax.jobs.records.search import SearchConfig, check_search
from aprm_jax.search.build import make_engine
from aprm_jax.search.outcome import Outcome, outcome
from aprm_jax.solvers.endpoint import open_endpoint
from aprm_jax.solvers.named import solver_of
from aprm_jax.solvers.protocol import Solver, StepSolver
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.tasks.protocols import Grader
from aprm_jax.verifiers.named import open_verifier
from aprm_jax.verifiers.pav import Pav
from aprm_jax.verifiers.protocol import StepVerifier, Verifier

Name = str | os.PathLike[str]

# What of the job's settings is no option here.
_OF_THE_JOB = (
    "solver",
    "verifiers",
    "combine",
    "questions",
    "splits",
    "problems",
    "output",
    "trees",
    "bootstrap",
    "prover_values",  # here a verifier may be a `verifiers.pav.Pav`
)


@overload
def search(
    question: str,
    *,
    solver: Name | Solver | StepSolver,
    verifier: Name | PRM | Verifier | StepVerifier | None = None,
    method: str = "beam",
    seed: int = 0,
    max_steps: int = 40,
    grader: Grader | None = None,
    **options: Any,
) -> Outcome: ...


@overload
def search(
    question: Iterable[str],
    *,
    solver: Name | Solver | StepSolver,
    verifier: Name | PRM | Verifier | StepVerifier | None = None,
    method: str = "beam",
    seed: int = 0,
    max_steps: int = 40,
    grader: Grader | None = None,
    **options: Any,
) -> list[Outcome]: ...


def search(
    question: Any,
    *,
    solver: Any,
    verifier: Any = None,
    method: str = "beam",
    seed: int = 0,
    max_steps: int = 40,
    grader: Any = None,
    **options: Any,
) -> Outcome | list[Outcome]:
    """Searches for the answer to a question, or to each of several.

    Args:
      question: one text, or several, which are searched side by side; what one gets
        does not depend on the others.
      solver: who writes: a folder or OWNER/NAME as of `PRM.load`, a server's
        MODEL@http://HOST:PORT/v1 (docs/endpoints.md), or a solver.
      verifier: who scores: likewise, another name of `verifiers.named`, a PRM or a
        verifier; None for `method="best_of_n", pick="majority"`.
      method: "best_of_n", "beam", "dvts", "rebase" or "mcts".
      seed: the same seed gives the same.
      max_steps: most steps of a solution.
      grader: reads and compares answers; by default as suits the solver's domain.
      **options: n, m, pick, aggregation, temperature and the other settings of
        `search` in docs/configuration.md.

    Raises:
      TypeError, ValueError: an argument is of another type, or out of range; the
        message names it and what would be right.
      ConfigError: options that do not go together, or an address that is none.
      ModelFileError: there is no such model, or it is of another kind.
    """
    one = isinstance(question, str)
    # A row of a file would be searched for by its fields' names, bytes by their codes.
    if not isinstance(question, Iterable) or isinstance(question, Mapping | bytes):
        kind = type(question).__name__
        raise TypeError(f"question must be text or a list of texts, not {kind}")
    questions = [
        given.text(q, "the question" if one else f"question {k}")
        for k, q in enumerate([question] if isinstance(question, str) else question)
    ]
    if any(not q.strip() for q in questions):
        raise ValueError("a question is empty")
    given.seed(seed)
    given.whole(max_steps, "max_steps", least=1)
    _check_kinds(solver, verifier, grader)  # what is cheap to see first
    c = _settings(method, verifier is not None, options)
    _check_pav(verifier, options)
    writer = _solver(solver)
    reads = grader or _grader(writer)
    engine = make_engine(c, writer, _verifier(verifier), max_steps)
    out: list[Outcome] = []
    for start in range(0, len(questions), c.batch):
        part = questions[start : start + c.batch]
        trees = engine.search(part, jax.random.key(seed))
        out += [outcome(tree, engine, reads, c.pick) for tree in trees]
    return out[0] if one else out


def _settings(method: str, scored: bool, options: dict[str, Any]) -> SearchConfig:
    """The job's settings, with these options."""
    fields = vars(SearchConfig())
    known = [name for name in fields if name not in _OF_THE_JOB]
    chosen = options | {"method": method}
    for name, value in chosen.items():
        if name not in known:
            raise TypeError(
                f"search() has no option {name!r}; there are {', '.join(known)}."
                f"{nearest(name, known)}"
            )
        kind: Any = type(fields[name])
        # NumPy's numbers are of these kinds too, its truth values and ours are not.
        taken: Any = {int: numbers.Integral, float: numbers.Real}.get(kind, kind)
        if isinstance(value, bool) or not isinstance(value, taken):
            raise TypeError(f"{name} must be {kind.__name__}, not {value!r:.60}")
        chosen[name] = value = kind(value)
        if fault := settings_of_config()[f"search.{name}"].limits.fault(value):
            raise ValueError(f"{name} {fault}")
    chosen["verifiers"] = ("given",) if scored else ()
    c = dataclasses.replace(SearchConfig(), **chosen)
    check_search(c, "")
    return c


def _check_kinds(solver: Any, verifier: Any, grader: Any) -> None:
    """What is given may be a solver, a verifier, a grader; nothing is loaded yet."""
    for name, value in {"solver": solver, "verifier": verifier}.items():
        if isinstance(value, type):  # it has the methods, but no state
            raise TypeError(f"{name} is the class {value.__name__}: make one of it")
    if grader is not None and (
        isinstance(grader, type) or not isinstance(grader, Grader)
    ):
        raise TypeError(
            f"grader must have is_final, answer and same_answer, as "
            f"tasks.graders.AnswerGrader() has, not be {type(grader).__name__} "
            f"{grader!r:.60}"
        )
    if isinstance(solver, str | os.PathLike):
        given.name(solver, "solver")
    if isinstance(solver, PRM | api.Generator):
        raise TypeError(
            f"solver: this is a {solver.kind}, and a solver is wanted: "
            "aprm_jax.Solver.load(...), a folder or OWNER/NAME on the hub"
        )
    if not isinstance(solver, api.Solver | Solver | StepSolver | str | os.PathLike):
        raise TypeError(
            "solver must be a folder, OWNER/NAME on the hub or a solver, not "
            f"{type(solver).__name__}"
        )
    known = PRM | Verifier | StepVerifier | str | os.PathLike
    if verifier is not None and not isinstance(verifier, known):
        raise TypeError(
            "verifier must be a folder, OWNER/NAME on the hub, a PRM or a verifier, "
            f"not {type(verifier).__name__}"
        )


def _check_pav(verifier: Any, options: Mapping[str, Any]) -> None:
    """A PAV is searched with as it was made."""
    given = [name for name in ("prover", "alpha") if name in options]
    if given and isinstance(verifier, Pav):
        raise ConfigError(
            f"{given[0]} is the PAV's own: make it with Pav(base, prover, alpha), or "
            "give its base as the verifier"
        )


def _solver(solver: Any) -> Solver | StepSolver:
    if isinstance(solver, api.Solver):
        return solver.local
    if not isinstance(solver, str | os.PathLike):
        return solver
    if is_solver_address(os.fspath(solver)):
        return open_endpoint(os.fspath(solver))
    params, spec, tokenizer = load_any(solver, "solver")
    return solver_of(params, spec, tokenizer)


def _grader(solver: Solver | StepSolver) -> Grader:
    found = getattr(solver, "grader", None)
    return found if isinstance(found, Grader) else AnswerGrader()


def _verifier(verifier: Any) -> Verifier | StepVerifier | None:
    if isinstance(verifier, str | os.PathLike):
        return open_verifier([os.fspath(verifier)])
    return verifier.verifier if isinstance(verifier, PRM) else verifier
