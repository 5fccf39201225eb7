"""MATH (Hendrycks et al., arXiv 2103.03874) and its 500 held-out problems."""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    optional_text,
    paragraphs,
)
from aprm_jax.data.readers.boxes import last_box


def parse(row: dict) -> list[MathProblem]:
    """A problem; its answer is a field of its own or the solution's last box."""
    question = require_str(row, "problem")
    solution = optional_text(row, "solution")
    answer = optional_text(row, "answer") or last_box(solution)
    if not answer:
        raise RowError("neither a field 'answer' nor a \\boxed{...} in 'solution'")
    return [
        MathProblem(
            question,
            answer,
            paragraphs(solution),
            problem_id=optional_text(row, "unique_id"),
            category=optional_text(row, "subject") or optional_text(row, "type"),
        )
    ]


SOURCES = (
    ProblemSource("math", parse, hub=("datasets:DigitalLearningGmbH/MATH-lighteval",)),
    ProblemSource(
        "math500",
        parse,
        hub=("datasets:HuggingFaceH4/MATH-500",),
        split="test",
        evaluation=True,
    ),
)
