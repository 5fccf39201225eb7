"""ReasonEval's sets (Xia et al., arXiv 2404.05692), and MR-GSM8K, which they contain.

mr-math_invalid_errors.json (the first error counts from 1, "N/A" for none):

    {"id": 0, "question": "...", "generator": "...",
     "model_output_step_format": [["1. ..."], ["2. ..."]],
     "model_output_solution_correctness": "incorrect",
     "model_output_solution_first_error_step": 2}

mr-math_redundant_errors.json has a "rating" of each step instead, 1 or 0 (neutral:
right and of no use). MR-GSM8K (Zeng et al., arXiv 2312.17080) has "uuid" and, in place
of the step format, "model_output_steps": ["Step 1: ...", ...].

perturbation.json has errors planted in "hypothesis_steps", at the step "tags" counted
from 0; only a changed number or operation is sure to make its step wrong.
"""

from __future__ import annotations

from typing import Any

from aprm_jax.data.jsonl import RowError, require_int, require_str
from aprm_jax.data.labelled import (
    LabelledSolution,
    from_first_error,
    from_ratings,
)
from aprm_jax.data.readers.base import (
    StepSource,
    first_error,
    number_text,
    optional_text,
    spelt_list,
    step_rating,
    texts_of,
)
from aprm_jax.data.readers.numbered import without_number

_STEPS = ("model_output_step_format", "model_output_steps")
_PLANTED = ("random number", "random operation")


def parse(row: dict) -> list[LabelledSolution]:
    """One solution of any of the forms."""
    question = require_str(row, "question").strip()
    name = row.get("uuid")
    where = {
        "problem_id": "" if name is None else number_text(name, "uuid"),
        "category": optional_text(row, "error_type") or optional_text(row, "generator"),
    }
    if "hypothesis_steps" in row:
        return [_perturbed(row, question, where)]
    field = next((name for name in _STEPS if name in row), _STEPS[0])
    listed = [_joined(part) for part in spelt_list(row, field)]
    steps = [without_number(step) for step in texts_of(listed, field)]
    if "rating" in row:
        listed = enumerate(spelt_list(row, "rating"))
        ratings = [step_rating(value, f"rating {k}") for k, value in listed]
        if len(ratings) != len(steps):
            raise RowError(f"{len(steps)} steps and {len(ratings)} ratings")
        return [from_ratings(question, steps, ratings, **where)]
    error = first_error(
        row,
        "model_output_solution_first_error_step",
        "model_output_solution_correctness",
        steps,
    )
    return [from_first_error(question, steps, error, **where)]


def _perturbed(row: dict, question: str, where: dict[str, str]) -> LabelledSolution:
    steps = texts_of(spelt_list(row, "hypothesis_steps"), "hypothesis_steps")
    if row.get("error_type") not in _PLANTED:
        return from_ratings(question, steps, [None] * len(steps), **where)
    error = require_int(row, "tags")
    if not 0 <= error < len(steps):
        raise RowError(f"field 'tags' is {error} of {len(steps)} steps, counted from 0")
    return from_first_error(question, steps, error, **where)


def _joined(part: Any) -> Any:
    """A step of the step format is a list of its lines."""
    return "\n".join(texts_of(part, "steps")) if isinstance(part, list) else part


SOURCES = (
    StepSource("reasoneval", parse, evaluation=True),
    StepSource(
        "mr_gsm8k",
        parse,
        hub=("datasets:Randolphzeng/Mr-GSM8K",),
        evaluation=True,
    ),
)
