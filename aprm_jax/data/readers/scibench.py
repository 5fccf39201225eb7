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


def parse(row: dict) -> list[MathProblem]:
    """A problem; its answer is `answer_number`, without the unit."""
    book = optional_text(row, "source")
    return [
        MathProblem(
            require_str(row, "problem_text").strip(),
            number_text(row.get("answer_number"), "answer_number"),
            paragraphs(optional_text(row, "solution")),
            problem_id=f"{book}/{optional_text(row, 'problemid')}",
            kind="Numeric",
            unit=optional_text(row, "unit"),
            category=book,
        )
    ]


SOURCES = (
    ProblemSource("scibench", parse, hub=("datasets:xw27/scibench",), evaluation=True),
)
