"""A search from its settings."""

from __future__ import annotations

from typing import Any

from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.engine import Engine
from aprm_jax.search.mcts import MCTS
from aprm_jax.search.methods import DVTS, Beam, BestOfN, Method, Rebase
from aprm_jax.solvers.protocol import Solver, StepSolver
from aprm_jax.solvers.stepwise import UncachedSolver
from aprm_jax.verifiers.pav import Pav
from aprm_jax.verifiers.protocol import StepVerifier, Verifier
from aprm_jax.verifiers.stated import OracleVerifier
from aprm_jax.verifiers.stepwise import OracleSteps, by_steps

EFFECTIVE = "effective"  # of the settings: a PAV's rewards; whole solutions by its Q


def make_method(c: Any) -> Method:
    """The method that settings name; see `jobs.records.search.SearchConfig`."""
    match c.method:
        case "best_of_n":
            return BestOfN(c.n)
        case "beam":
            return Beam(c.n, c.m)
        case "dvts":
            return DVTS(c.n, c.m)
        case "rebase":
            return Rebase(c.n, c.rebase_temperature)
        case "mcts":
            return MCTS(
                iterations=c.iterations,
                branch=c.branch,
                roll_steps=c.roll_steps,
                roll_branch=c.roll_branch,
                exploration=c.exploration,
                unvisited=c.unvisited,
                alpha=c.roll_weight,
                end=c.end,
            )
    raise ValueError(f"method {c.method!r} is none")


def make_engine(
    c: Any,
    solver: Solver | StepSolver,
    verifier: Verifier | StepVerifier | None,
    max_steps: int,
    prover: Verifier | StepVerifier | None = None,
) -> Engine:
    """An engine; who keeps no cache reads again.

    Args:
      c: settings, as of `make_method`.
      solver: writes.
      verifier: scores. A PAV is taken as it is, with its own prover and weight.
      max_steps: most steps of a solution.
      prover: of effective rewards, the prover's values; None for the best of
        `c.prover`.

    Raises:
      NoValuesError: effective rewards of a verifier that has no values.
      ValueError: a method that needs values, and a verifier that pays rewards.
    """
    if c.aggregation == EFFECTIVE and not isinstance(verifier, Pav | None):
        verifier = Pav(verifier, c.prover if prover is None else prover, c.alpha)
    if isinstance(verifier, Pav) and c.method == "mcts":
        raise ValueError(
            'method="mcts" averages values, and a PAV pays rewards of single steps: '
            "give it the PAV's base"
        )
    return Engine(
        solver if isinstance(solver, StepSolver) else UncachedSolver.of(solver),
        None if verifier is None else by_steps(verifier),
        make_method(c),
        make_aggregation(c, verifier),
        max_steps,
        c.temperature,
    )


def make_aggregation(c: Any, verifier: Any) -> Aggregation:
    """The one that settings name, or that suits the verifier.

    The least step tells whether all are right; a value is what the last one says, and
    so is the oracle's verdict, which counts what follows an error as wrong.
    """
    own = "last" if isinstance(verifier, OracleVerifier | OracleSteps) else "min"
    given = "" if c.aggregation == EFFECTIVE else c.aggregation
    return Aggregation(given or getattr(verifier, "aggregation", own))
