"""SciBench (Wang et al., arXiv 2307.10635): college science with number and unit."""

from __future__ import annotations

from aprm_jax.data.jsonl import require_str
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    number_text,
    optional_text,
    paragraphs,
)
from aprm_jax.data.readers.quantity import in_unit, with_unit


def parse(row: dict) -> list[MathProblem]:
    """A problem that says its unit; its answer is the quantity, see `quantity`."""
    unit = optional_text(row, "unit")
    number = number_text(row.get("answer_number"), "answer_number")
    book = optional_text(row, "source")
    return [
        MathProblem(
            with_unit(require_str(row, "problem_text").strip(), unit),
            in_unit(number, unit),
            paragraphs(optional_text(row, "solution")),
            problem_id=f"{book}/{optional_text(row, 'problemid')}",
            kind="Numeric",
            unit=unit,
            category=book,
        )
    ]


SOURCES = (
    ProblemSource("scibench", parse, hub=("datasets:xw27/scibench",), evaluation=True),
)
