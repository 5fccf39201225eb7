"""Solver accuracy by how one of N sampled solutions is chosen, problem by problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from aprm_jax.data.domain import Domain, Problem
from aprm_jax.search.aggregate import aggregate_lists
from aprm_jax.search.select import expected_best_of_n, majority_of_n, pass_at_n
from aprm_jax.search.solve import Solution

# log-scale, one a step of a solution
StepScores = Sequence[float] | Float[np.ndarray, " _"]


def correctness(
    domain: Domain, problems: Sequence[Problem], solutions: Sequence[Sequence[Solution]]
) -> Bool[np.ndarray, "P M"]:
    """Whether each sampled solution is finished and has the right answer."""
    return np.array(
        [
            [
                s.finished and domain.same_answer(domain.answer(s.steps), p.answer)
                for s in row
            ]
            for p, row in zip(problems, solutions, strict=True)
        ]
    )


def majority(
    domain: Domain,
    problems: Sequence[Problem],
    solutions: Sequence[Sequence[Solution]],
    n: int,
) -> Float[np.ndarray, " P"]:
    """Whether the majority of the first n samples is right; unfinished ones abstain."""
    answers = [
        [domain.answer(s.steps) if s.finished else None for s in row]
        for row in solutions
    ]
    votes = majority_of_n(answers, n, domain.same_answer)
    return np.array(
        [
            float(domain.same_answer(vote, p.answer))
            for vote, p in zip(votes, problems, strict=True)
        ]
    )


def best_of_n(
    log_scores: Sequence[Sequence[StepScores]],
    solutions: Sequence[Sequence[Solution]],
    correct: Bool[np.ndarray, "P M"],
    aggregation: str,
    n: int,
) -> Float[np.ndarray, " P"]:
    """Expected accuracy of best-of-n for each problem; unfinished ones come last."""
    totals = np.array(
        [aggregate_lists(list(row), aggregation) for row in log_scores], np.float64
    )
    finished = np.array([[s.finished for s in row] for row in solutions])
    return expected_best_of_n(np.where(finished, totals, -np.inf), correct, n)


def table(
    domain: Domain,
    problems: Sequence[Problem],
    solutions: Sequence[Sequence[Solution]],
    scored: Mapping[str, Sequence[Sequence[StepScores]]],
    aggregations: Sequence[str],
    sizes: Sequence[int],
) -> dict[str, Float[np.ndarray, " P"]]:
    """Per-problem accuracy of every row: `majority@8`, `aprm.min@8`, `pass@8` …

    Args:
      domain: reads answers.
      problems: P problems.
      solutions: M samples of each.
      scored: verifier -> log-scale step scores of each sample.
      aggregations: of step scores to a solution's score.
      sizes: the n of best-of-n, each at most M.
    """
    correct = correctness(domain, problems, solutions)
    rows = {"sample": correct.mean(axis=1)}
    for n in sizes:
        rows[f"majority@{n}"] = majority(domain, problems, solutions, n)
        rows[f"pass@{n}"] = pass_at_n(correct, n)
        for name, log_scores in scored.items():
            for how in aggregations:
                rows[f"{name}.{how}@{n}"] = best_of_n(
                    log_scores, solutions, correct, how, n
                )
    return rows
