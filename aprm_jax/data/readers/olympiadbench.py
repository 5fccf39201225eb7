"""OlympiadBench (He et al., arXiv 2402.14008): open-ended olympiad problems."""

from __future__ import annotations

from aprm_jax.data.jsonl import require_str, require_strings
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    number_text,
    optional_text,
    paragraphs,
)


def parse(row: dict) -> list[MathProblem]:
    """A problem; several final answers are one text, separated by commas."""
    question = require_str(row, "question").strip()
    context = optional_text(row, "context")
    answers = [answer.strip() for answer in require_strings(row, "final_answer")]
    solutions = row.get("solution")
    solution = solutions[0] if isinstance(solutions, list) and solutions else ""
    return [
        MathProblem(
            f"{context}\n{question}" if context else question,
            ", ".join(answers),
            paragraphs(solution) if isinstance(solution, str) else (),
            problem_id=number_text(row.get("id"), "id"),
            kind=optional_text(row, "answer_type"),
            unit=optional_text(row, "unit"),
            tolerance=optional_text(row, "error"),
            category=optional_text(row, "subfield"),
        )
    ]


SOURCES = (
    ProblemSource(
        "olympiadbench",
        parse,
        hub=("datasets:Hothan/OlympiadBench?config=OE_TO_maths_en_COMP",),
        evaluation=True,
    ),
)
