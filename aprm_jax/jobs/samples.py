"""What a solver samples, as an evaluation needs it: scores, judged steps, examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from aprm_jax.data.problem import Problem
from aprm_jax.evals import pressure, selection
from aprm_jax.evals.step_sets import StepSet
from aprm_jax.files import atomic_write
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.solvers import open_solver
from aprm_jax.jobs.verifiers import Scores, model_scores
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.monte_carlo import LabelledStep, oracle_labels
from aprm_jax.verifiers.protocol import Scored, StepScores

# Of each verifier, by its name: the scores of each sample of each problem.
SampleScores = dict[str, Scored[list[StepScores]]]

_EXAMPLES = 4  # solutions a set that the report shows
_WINNERS = 3  # wrong winners of a verifier, likewise


def sample(
    context: Context,
    draw: int,
    problems: Sequence[Problem],
    count: int,
    temperature: float | None = None,
    solver: str = "",
) -> list[list[Solution]]:
    """`count` solutions of each problem, from a solver that is evaluated.

    Args:
      context: of the stage.
      draw: number of the draw; the same gives the same samples.
      problems: what to solve.
      count: samples of each.
      temperature: None for the config's.
      solver: "" for `evaluate.solver`.
    """
    c = context.config
    solver = solver or c.evaluate.solver
    return open_solver(context, solver, "evaluate.solver").solve(
        [(p.question, ()) for p in problems],
        count,
        context.key(20, draw),
        max_steps=c.builder.max_steps,
        temperature=c.evaluate.temperature if temperature is None else temperature,
    )


def to_json(solutions: Sequence[Sequence[Solution]]) -> dict[str, Any]:
    """Texts of samples, each distinct one once: what an evaluation keeps of them."""
    places: dict[tuple[tuple[str, ...], bool], int] = {}
    rows = [
        [places.setdefault((s.steps, s.finished), len(places)) for s in row]
        for row in solutions
    ]
    return {"distinct": [[list(s), done] for s, done in places], "rows": rows}


def from_json(
    found: dict[str, Any], problems: Sequence[Problem]
) -> list[list[Solution]]:
    """What `to_json` kept, without the solver's tokens."""
    texts = [(tuple(steps), finished) for steps, finished in found["distinct"]]
    return [
        [Solution(problem.question, *texts[k]) for k in row]
        for problem, row in zip(problems, found["rows"], strict=True)
    ]


def sample_scores(
    context: Context, solutions: list[list[Solution]], solver: str = ""
) -> SampleScores:
    """Scores of each sample of each problem, that `solver` wrote."""
    flat_ = [(s.question, tuple(s.steps)) for row in solutions for s in row]
    out: SampleScores = {}
    for name, scored in model_scores(context, flat_, solver).items():
        scores = iter(scored.rows)
        rows = [[next(scores) for _ in row] for row in solutions]
        out[name] = Scored(scored.scale, rows, scored.aggregation)
    return out


def judged_steps(
    context: Context,
    solutions: list[list[Solution]],
    scores: list[list[np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores, labels and kinds of the distinct judged steps of all samples."""
    values: dict[tuple, tuple[float, LabelledStep]] = {}
    for row, row_scores in zip(solutions, scores, strict=True):
        for solution, step_scores in zip(row, row_scores, strict=True):
            judged = oracle_labels([solution], context.domain.oracle)
            for step, score in zip(judged, step_scores, strict=False):
                key = (step.question, step.prefix, step.step)
                values[key] = (float(score), step)
    raw = np.array([score for score, _ in values.values()], np.float64)
    labels = np.array([int(step.label) for _, step in values.values()], np.int64)
    return raw, labels, [step.kind for _, step in values.values()]


def sample_examples(context: Context, problems, solutions, scored, count: int = 6):
    """A few solutions with the verdicts and scores of their steps, for the report."""
    return [
        _example(context, problem, solutions[p][0], _of_sample(scored, p, 0))
        for p, problem in enumerate(problems[:count])
    ]


def _example(
    context: Context,
    problem: Problem,
    solution: Solution,
    probabilities: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    judged = oracle_labels([solution], context.domain.oracle)
    given = context.domain.answer(solution.steps) if solution.finished else None
    return {
        "question": problem.question,
        "answer": problem.answer,
        "given": given,
        "correct": context.domain.same_answer(given, problem.answer),
        "steps": list(solution.steps),
        "labels": [float(step.label) for step in judged],
        "kinds": [step.kind for step in judged],
        "scores": {name: _listed(row) for name, row in probabilities.items()},
    }


def _of_sample(scored: SampleScores, p: int, m: int) -> dict[str, np.ndarray]:
    """What each verifier states of one sample."""
    return {n: s.scale.probability(s.rows[p][m]) for n, s in scored.items()}


def wrong_winners(
    context: Context,
    problems: Sequence[Problem],
    solutions: list[list[Solution]],
    right: Bool[np.ndarray, "P M"],
    scored: SampleScores,
    aggregation: str,
) -> tuple[list[str], list[dict[str, Any]]]:
    """What a verifier, the only one in `scored`, chooses wrongly among all samples.

    `right` says of each sample whether its answer is.

    Returns:
      The kind of the first wrong step of each wrong winner, and a few of them, as
      `sample_examples` has them.
    """
    [said] = scored.values()
    totals = selection.solution_scores(log_scores(said), solutions, aggregation)
    winners = pressure.wrong_winners(totals, right)
    kinds = []
    for p, m in winners:
        judged = oracle_labels([solutions[p][m]], context.domain.oracle)
        wrong = [step.kind for step in judged if not step.label]
        kinds.append(wrong[0] if wrong else pressure.UNEXPLAINED)
    shown = [
        _example(context, problems[p], solutions[p][m], _of_sample(scored, p, m))
        for p, m in winners[:_WINNERS]
    ]
    return kinds, shown


def log_scores(scored: Scored[list[StepScores]]) -> list[list[StepScores]]:
    """A verifier's scores of samples as log p, which aggregation takes."""
    return [[scored.scale.log_probability(s) for s in row] for row in scored.rows]


def set_examples(data: StepSet, scores: Scores) -> list[dict[str, Any]]:
    """A few solutions with labels and scores, for the report: some with an error."""
    errors, half = data.first_errors, _EXAMPLES // 2
    chosen = [k for k, e in enumerate(errors) if e >= 0][:half]
    chosen += [k for k, e in enumerate(errors) if e < 0][:half]
    return [
        {
            "question": data.rows[k].question,
            "answer": None,
            "given": None,
            "steps": list(data.rows[k].steps),
            "labels": [None if v != v else v for v in data.rows[k].labels],
            "kinds": [],
            "correct": errors[k] < 0,
            "scores": {
                name: _listed(scored.scale.probability(scored.rows[k]))
                for name, scored in scores.items()
            },
        }
        for k in chosen
    ]


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def write_set(path: Path, data: StepSet) -> None:
    """What another PRM needs to score the set: id, question, steps."""
    path.parent.mkdir(exist_ok=True)
    lines = [
        json.dumps({"id": name, "question": row.question, "steps": list(row.steps)})
        for name, row in zip(data.ids, data.rows, strict=True)
    ]
    atomic_write(path, "\n".join(lines) + "\n")
