"""Evaluator of solver accuracy, by how one of N samples is chosen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from aprm_jax.data.problem import Problem
from aprm_jax.evals import intervals
from aprm_jax.evals.records import Record, metric_records
from aprm_jax.search.aggregate import aggregate_lists
from aprm_jax.search.select import (
    expected_best_of_n,
    groups,
    heaviest,
    majority_of_n,
    pass_at_n,
)
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.protocols import Grader

SET, DIFFERENCE = "solver", "difference"
VOTE = "vote_"  # before the aggregation, in the name of a weighted majority
Method = tuple[str, str]  # verifier, "" for none; metric, such as "min@8"
# log-scale, one a step of a solution
StepScores = Sequence[float] | Float[np.ndarray, " _"]


def correctness(
    grader: Grader, problems: Sequence[Problem], solutions: Sequence[Sequence[Solution]]
) -> Bool[np.ndarray, "P M"]:
    """Whether each sampled solution is finished and has the right answer."""
    return np.array(
        [
            [
                s.finished and grader.same_answer(grader.answer(s.steps), p.answer)
                for s in row
            ]
            for p, row in zip(problems, solutions, strict=True)
        ]
    )


def majority(
    grader: Grader,
    problems: Sequence[Problem],
    solutions: Sequence[Sequence[Solution]],
    n: int,
) -> Float[np.ndarray, " P"]:
    """Whether the majority of the first n samples is right; unfinished ones abstain."""
    votes = majority_of_n(_answers(grader, solutions), n, grader.same_answer)
    return np.array(
        [
            float(grader.same_answer(vote, p.answer))
            for vote, p in zip(votes, problems, strict=True)
        ]
    )


def _answers(
    grader: Grader, solutions: Sequence[Sequence[Solution]]
) -> list[list[str | None]]:
    """What finished solutions arrive at; None for the others."""
    return [
        [grader.answer(s.steps) if s.finished else None for s in row]
        for row in solutions
    ]


def weighted_majority(
    answers: Sequence[Sequence[str | None]],
    totals: Float[np.ndarray, "P M"],
    correct: Bool[np.ndarray, "P M"],
    n: int,
    alike: Callable[[tuple[str | None, ...]], Sequence[int | None]],
) -> Float[np.ndarray, " P"]:
    """Whether the answer with the largest sum of P(correct) among n samples is right.

    It is where the sample is that speaks for the answer, see `select.groups`.

    Args:
      answers: of each sample; None for none.
      totals: of `solution_scores`; what may never win has no vote.
      correct: whether each sample is right.
      n: the first so many samples vote.
      alike: the groups of some answers.
    """
    out = []
    for row, scores, right in zip(answers, totals[:, :n], correct, strict=True):
        votes = tuple(
            answer if score > -np.inf else None
            for answer, score in zip(row[:n], scores, strict=True)
        )
        winner = heaviest(alike(votes), np.exp(scores))
        out.append(float(winner is not None and right[winner]))
    return np.array(out)


def solution_scores(
    log_scores: Sequence[Sequence[StepScores]],
    solutions: Sequence[Sequence[Solution]],
    aggregation: str,
) -> Float[np.ndarray, "P M"]:
    """Each sample's score, finite, and -inf for what may never win.

    That is an unfinished solution, and one that the verifier did not read to its end
    (NaN): the least of fewer scores would only be higher. A probability of 0 was read.
    """
    totals = np.array(
        [
            aggregate_lists([np.nan_to_num(x, nan=0.0) for x in row], aggregation)
            for row in log_scores
        ],
        np.float64,
    )
    usable = np.array(
        [
            [
                s.finished and len(x) > 0 and not np.isnan(x).any()
                for s, x in zip(*pair, strict=True)
            ]
            for pair in zip(solutions, log_scores, strict=True)
        ]
    )
    return np.where(usable, np.nan_to_num(totals), -np.inf)


def table(
    grader: Grader,
    problems: Sequence[Problem],
    solutions: Sequence[Sequence[Solution]],
    scored: Mapping[str, Sequence[Sequence[StepScores]]],
    aggregations: Sequence[str],
    sizes: Sequence[int],
) -> dict[Method, Float[np.ndarray, " P"]]:
    """Per-problem accuracy of every method: `majority@8`, `min@8` of a PRM, `pass@8` …

    `vote_min@8` is the majority of 8 weighted by a PRM's least step scores.

    Args:
      grader: reads answers.
      problems: P problems.
      solutions: M samples of each.
      scored: verifier -> log-scale step scores of each sample.
      aggregations: of step scores to a solution's score.
      sizes: the n of best-of-n, each at most M.
    """
    correct = correctness(grader, problems, solutions)
    rows: dict[Method, np.ndarray] = {("", "sample"): correct.mean(axis=1)}
    for n in sizes:
        rows["", f"majority@{n}"] = majority(grader, problems, solutions, n)
        rows["", f"pass@{n}"] = pass_at_n(correct, n)
    answers, same = _answers(grader, solutions), functools.cache(grader.same_answer)
    # Most verifiers read all, and then the same samples vote.
    alike = functools.cache(lambda votes: groups(votes, same))
    for name, log_scores in scored.items():
        for how in aggregations:
            totals = solution_scores(log_scores, solutions, how)
            for n in sizes:
                rows[name, f"{how}@{n}"] = expected_best_of_n(totals, correct, n)
                vote = weighted_majority(answers, totals, correct, n, alike)
                rows[name, f"{VOTE}{how}@{n}"] = vote
    return rows


def label(method: Method) -> str:
    """A method as one text, "aprm.min@8": a name in files, not to be taken apart."""
    return ".".join(part for part in method if part)


def solver_records(
    split: str,
    rows: Mapping[Method, Float[np.ndarray, " P"]],
    resamples: int,
    part: str = "",
) -> list[Record]:
    """The mean of every method over the problems, with its interval.

    `part` names the solver, where it is another than the run's own.
    """
    out: list[Record] = []
    for (verifier, metric), values in rows.items():
        values = np.asarray(values, np.float64)
        interval = intervals.bootstrap(values, resamples=resamples)
        out += metric_records(SET, split, verifier, {metric: interval}, part)
    return out


def difference_records(
    split: str,
    mine: Float[np.ndarray, " P"],
    others: Mapping[Method, Float[np.ndarray, " P"]],
    resamples: int,
    part: str = "",
) -> list[Record]:
    """One method minus every other, problem by problem, named after the other.

    `part` says whose lead it is, where there are several.
    """
    out: list[Record] = []
    for (verifier, metric), values in others.items():
        interval = intervals.paired_difference(mine, values, resamples=resamples)
        out += metric_records(DIFFERENCE, split, verifier, {metric: interval}, part)
    return out
