"""Step labels for a solver's own samples: Monte-Carlo completions, or the oracle.

Monte-Carlo labels need answers alone (Math-Shepherd, Wang et al. 2024, section 3.3):
a step is as good as the share of completions from it that reach the right answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from aprm_jax.data.problem import Problem
from aprm_jax.oracle.verdict import Label
from aprm_jax.solvers.protocol import Solution, Solver, Start
from aprm_jax.tasks.protocols import Grader, StepOracle


@dataclasses.dataclass(frozen=True)
class LabelledStep:
    """A step of a solver's sample. `label` is 1 correct, 0 incorrect, or between."""

    question: str
    prefix: tuple[str, ...]
    step: str
    label: float
    kind: str


def oracle_labels(
    solutions: Sequence[Solution], oracle: StepOracle
) -> list[LabelledStep]:
    """Each step up to and including the first incorrect one; undecidable ends it.

    Nothing is said of the steps after the first error: their premises are wrong.
    """
    out = []
    for solution in solutions:
        for k, step in enumerate(solution.steps):
            prefix = solution.steps[:k]
            verdict = oracle.judge(solution.question, prefix, None, step)
            if verdict.label == Label.UNDECIDABLE:
                break
            label = float(verdict.label == Label.CORRECT)
            out.append(
                LabelledStep(solution.question, prefix, step, label, verdict.kind)
            )
            if verdict.label == Label.INCORRECT:
                break
    return out


def outcome_labels(
    solutions: Sequence[Solution], problems: Sequence[Problem], grader: Grader
) -> list[LabelledStep]:
    """The last step of each solution, labelled by its answer alone: 1 right, 0 wrong.

    What an outcome reward model (ORM) learns from (Cobbe et al. 2021,
    arXiv:2110.14168): nothing is said of the steps before.

    Args:
      solutions: finished ones.
      problems: the problem of each, for its answer.
      grader: reads answers.
    """
    answers = {p.question: p.answer for p in problems}
    out = []
    for s in solutions:
        right = grader.same_answer(grader.answer(s.steps), answers[s.question])
        *prefix, last = s.steps
        label = LabelledStep(s.question, tuple(prefix), last, float(right), "outcome")
        out.append(label)
    return out


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """What became of the completions of one prefix.

    Attributes:
      right: how many arrive at the right answer.
      tried: of how many.
      answered: how many of them state an answer at all.
      tokens: that were drawn for them, where the solver tells.
    """

    right: int
    tried: int
    answered: int
    tokens: int


def completed(
    starts: Sequence[Start],
    answers: Sequence[str],
    solver: Solver,
    grader: Grader,
    key: Any,
    *,
    count: int,
    max_steps: int,
    temperature: float = 1.0,
) -> list[Arrivals]:
    """Completes each start `count` times, and counts what arrives.

    What is not finished has not arrived, nor has what nobody could decide.

    Args:
      starts: (question, steps) of each, all different.
      answers: the right answer of each.
      solver: completes.
      grader: reads answers.
      key: of the whole request.
      count: completions of each.
      max_steps: most steps of a completed solution.
      temperature: of the completions.
    """
    solutions = solver.solve(
        starts, count, key, max_steps=max_steps, temperature=temperature
    )
    out = []
    for expected, group in zip(answers, solutions, strict=True):
        given = [grader.answer(s.steps) if s.finished else None for s in group]
        out.append(
            Arrivals(
                sum(grader.same_answer(answer, expected) for answer in given),
                len(group),
                sum(answer is not None for answer in given),
                sum(len(ids) for s in group for ids in s.tokens),
            )
        )
    return out


def monte_carlo_labels(
    solutions: Sequence[Solution],
    problems: Sequence[Problem],
    solver: Solver,
    grader: Grader,
    key: Any,
    *,
    completions: int,
    soft: bool,
    max_steps: int,
    temperature: float = 1.0,
) -> list[LabelledStep]:
    """Labels each step by completing from it; equal prefixes are completed once.

    Steps after one from which no completion arrives are left out: their own
    completions say nothing that its label does not.

    Args:
      solutions: sampled solutions.
      problems: the problem of each, for its answer.
      solver: completes.
      grader: reads answers.
      key: of the whole request.
      completions: how many from each prefix.
      soft: the label is the share that arrives; else whether any does.
      max_steps: most steps of a completed solution.
      temperature: of the completions.
    """
    answers = {p.question: p.answer for p in problems}
    prefixes = sorted(
        {
            (s.question, s.steps[: k + 1])
            for s in solutions
            for k in range(len(s.steps))
            if not grader.is_final(s.steps[k])
        }
    )
    found = completed(
        prefixes,
        [answers[question] for question, _ in prefixes],
        solver,
        grader,
        jax.random.fold_in(key, 1),
        count=completions,
        max_steps=max_steps,
        temperature=temperature,
    )
    shares = (arrivals.right / arrivals.tried for arrivals in found)
    quality = dict(zip(prefixes, shares, strict=True))
    out = []
    for solution in solutions:
        question = solution.question
        for k, step in enumerate(solution.steps):
            steps = solution.steps[: k + 1]
            if grader.is_final(step):
                value = float(
                    grader.same_answer(grader.answer(steps), answers[question])
                )
            else:
                value = quality[(question, steps)]
            label = value if soft else float(value > 0)
            out.append(
                LabelledStep(question, solution.steps[:k], step, label, "monte_carlo")
            )
            if value == 0.0:
                break
    return out
