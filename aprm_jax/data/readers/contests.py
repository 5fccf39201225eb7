"""AIME and AMC: contest problems with a number as their answer."""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    number_text,
    optional_text,
    paragraphs,
)

_QUESTION = ("problem", "Problem", "question", "Question")
_ANSWER = ("answer", "Answer", "expected_answer")


def parse_aime(row: dict) -> list[MathProblem]:
    """A problem whose answer is an integer from 0 to 999."""
    problem = _parse(row)
    answer = problem.answer.lstrip("0") or problem.answer
    if not answer.isdecimal() or len(answer) > 3:
        raise RowError(f"an AIME answer is 0 to 999, not {problem.answer[:40]!r}")
    return [problem]


def parse_amc(row: dict) -> list[MathProblem]:
    """A problem whose answer is a number: the choices are left out of its text."""
    return [_parse(row)]


def _parse(row: dict) -> MathProblem:
    question = require_str(row, _field(row, _QUESTION))
    field = _field(row, _ANSWER)
    name = row.get("id", row.get("ID"))
    return MathProblem(
        question.strip(),
        number_text(row[field], field),
        paragraphs(optional_text(row, "solution")),
        problem_id="" if name is None else number_text(name, "id"),
        kind="Numeric",
    )


def _field(row: dict, names: tuple[str, ...]) -> str:
    """The publishers of these sets agree on no name."""
    found = next((name for name in names if name in row), None)
    if found is None:
        raise RowError(f"none of the fields {', '.join(names)} is there")
    return found


SOURCES = (
    ProblemSource(
        "aime",
        parse_aime,
        hub=(
            "datasets:HuggingFaceH4/aime_2024",
            "datasets:AI-MO/aimo-validation-aime",
        ),
        evaluation=True,
    ),
    ProblemSource(
        "amc", parse_amc, hub=("datasets:AI-MO/aimo-validation-amc",), evaluation=True
    ),
)
