"""OlympiadBench (He et al., arXiv 2402.14008): open-ended olympiad problems."""

from __future__ import annotations

import re

from aprm_jax.data.jsonl import require_str, require_strings
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    number_text,
    optional_text,
    paragraphs,
    tolerance_text,
)
from aprm_jax.data.readers.quantity import in_unit, with_unit

_SINGLE = re.compile(r"\$?[^$,=]+\$?")  # one value, and not that of a name


def parse(row: dict) -> list[MathProblem]:
    """A problem; several final answers are one text, separated by commas."""
    question = require_str(row, "question").strip()
    context = optional_text(row, "context")
    answers = [answer.strip() for answer in require_strings(row, "final_answer")]
    unit = optional_text(row, "unit")
    answer = ", ".join(answers)
    if unit and _SINGLE.fullmatch(answer):
        answer = in_unit(answer.strip("$ "), unit)
    solutions = row.get("solution")
    solution = solutions[0] if isinstance(solutions, list) and solutions else ""
    return [
        MathProblem(
            with_unit(f"{context}\n{question}" if context else question, unit),
            answer,
            paragraphs(solution) if isinstance(solution, str) else (),
            problem_id=number_text(row.get("id"), "id"),
            kind=optional_text(row, "answer_type"),
            unit=unit,
            tolerance=tolerance_text(row.get("error") or None, "error"),
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
