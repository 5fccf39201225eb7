"""What a solver samples, as an evaluation needs it: scores, judged steps, examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.data.problem import Problem
from aprm_jax.evals.step_sets import StepSet
from aprm_jax.files import atomic_write
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.verifiers import Scores, model_scores, probability
from aprm_jax.search.solve import Solution, sample_solutions
from aprm_jax.verifiers.monte_carlo import LabelledStep, oracle_labels

_EXAMPLES = 4  # solutions a set that the report shows


def sample(
    context: Context,
    draw: int,
    problems: Sequence[Problem],
    count: int,
    temperature: float | None = None,
) -> list[list[Solution]]:
    """`count` solutions of each problem, from the solver that is evaluated.

    Args:
      context: of the stage.
      draw: number of the draw; the same gives the same samples.
      problems: what to solve.
      count: samples of each.
      temperature: None for the config's.
    """
    c = context.config
    context = context.solver(c.evaluate.solver)
    solver, _ = context.load(c.evaluate.solver, "evaluate.solver", "solver")
    return sample_solutions(
        context.sampler,
        solver["backbone"],
        context.domain,
        context.builder,
        [(p.question, ()) for p in problems],
        count,
        context.key(20, draw),
        max_steps=c.builder.max_steps,
        temperature=c.evaluate.temperature if temperature is None else temperature,
    )


def sample_scores(
    context: Context, solutions: list[list[Solution]]
) -> dict[str, list[list[np.ndarray]]]:
    """Verifier -> scores of each sample of each problem."""
    flat_ = [(s.question, tuple(s.steps)) for row in solutions for s in row]
    out = {}
    for name, values in model_scores(context, flat_).items():
        scores = iter(values)
        out[name] = [[next(scores) for _ in row] for row in solutions]
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
    out = []
    for p, (problem, row) in enumerate(zip(problems[:count], solutions, strict=False)):
        solution = row[0]
        judged = oracle_labels([solution], context.domain.oracle)
        given = context.domain.answer(solution.steps) if solution.finished else None
        out.append(
            {
                "question": problem.question,
                "answer": problem.answer,
                "given": given,
                "correct": context.domain.same_answer(given, problem.answer),
                "steps": list(solution.steps),
                "labels": [float(step.label) for step in judged],
                "kinds": [step.kind for step in judged],
                "scores": {
                    name: _listed(probability(name, scores[p][0]))
                    for name, scores in scored.items()
                },
            }
        )
    return out


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
                name: _listed(probability(name, values[k]))
                for name, values in scores.items()
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
