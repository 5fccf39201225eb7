"""Rows of grade-school word problems: GSM8K, data of its form, models' solutions.

A step is a line of the human solution; the last one is `#### N`. The calculator
annotations `<<48/2=24>>` stay in the text: the solver writes them, the oracle reads
them. Data whose steps have none (ProcessBench) may be scored by a model that was
trained with `strip_annotations`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Unpack

from aprm_jax.data.jsonl import (
    Limits,
    RowError,
    Rows,
    read_rows,
    require_bool,
    require_dict,
    require_str,
)
from aprm_jax.data.problem import Problem
from aprm_jax.oracle.numerals import read_stated
from aprm_jax.oracle.steps.calculator import FINAL, final_answer, is_final, stated
from aprm_jax.oracle.steps.claims import ANNOTATION

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@dataclasses.dataclass(frozen=True)
class ModelSolution:
    """A solution that some model wrote, with its outcome.

    Attributes:
      question: the problem.
      steps: its lines; a closing `A: N` is rewritten as `#### N`.
      is_correct: whether the final answer is right.
      model: who wrote it.
    """

    question: str
    steps: tuple[str, ...]
    is_correct: bool
    model: str


def parse_row(row: dict, *, strip_annotations: bool = False) -> Problem:
    """A problem from `{"question": str, "answer": str}`.

    Raises:
      RowError: a field is missing, or the solution does not end in `#### N`.
    """
    question = require_str(row, "question")
    steps = _steps(require_str(row, "answer"), strip_annotations)
    if not steps or not is_final(steps[-1]):
        raise RowError(f"the solution does not end in {FINAL} and a number")
    answer = canonical(steps[-1])
    if final_answer(steps[-1]) is None or answer is None:
        raise RowError(f"the answer is not a number: {steps[-1][:60]!a}")
    if any(is_final(step) for step in steps[:-1]):
        raise RowError(f"more than one line starts with {FINAL}")
    if len(steps) == 1:
        raise RowError("the solution has no step before its answer")
    return Problem(question, tuple(steps), answer)


def _steps(solution: str, strip_annotations: bool) -> list[str]:
    """The lines with text; white space at their ends belongs to the breaks between."""
    lines = [line.strip() for line in solution.split("\n")]
    if strip_annotations:
        lines = [strip(line) for line in lines]
    return [line for line in lines if line]


def strip(step: str) -> str:
    """A step without its calculator annotations."""
    return ANNOTATION.sub("", step).strip()


def read_model_solutions(
    path: str | Path,
    *,
    models: Sequence[str] = MODELS,
    strip_annotations: bool = False,
    **limits: Unpack[Limits],
) -> list[ModelSolution]:
    """Reads `example_model_solutions.jsonl`: per line, solutions of several models.

    Solutions without a closing `A: N` (models that never finished) are kept as they
    are; their outcome is a fact too.
    """

    def parse(row: dict) -> list[ModelSolution]:
        question = require_str(row, "question")
        found = []
        for model in models:
            entry = require_dict(row, model)
            steps = _steps(require_str(entry, "solution"), strip_annotations)
            if steps and steps[-1].startswith("A:"):
                steps[-1] = f"{FINAL} {steps[-1].removeprefix('A:').strip()}".strip()
            outcome = require_bool(entry, "is_correct")
            found.append(ModelSolution(question, tuple(steps), outcome, model))
        return found

    rows: Rows[list[ModelSolution]] = read_rows(path, parse, **limits)
    return [solution for row in rows for solution in row]


def canonical(step: str) -> str | None:
    """`#### 1,080` as `1080`; whatever stands there if it is no number."""
    text = stated(step)
    number = read_stated(text)
    if number is None:
        return text or None
    value: Fraction = number.value
    if value.denominator == 1:
        return str(value.numerator)
    return text.replace(",", "").lstrip("$€£ ").rstrip(".")
