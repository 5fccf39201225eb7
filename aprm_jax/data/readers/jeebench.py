"""JEEBench (Arora et al., arXiv 2305.15074): JEE Advanced, four kinds of answer."""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_int, require_str
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    number_text,
    optional_text,
)

KINDS = ("MCQ", "MCQ(multiple)", "Integer", "Numeric")


def parse(row: dict) -> list[MathProblem]:
    """A problem; options are part of its text, letters such as "BC" its answer."""
    kind = require_str(row, "type")
    if kind not in KINDS:
        raise RowError(f"field 'type' must be one of {', '.join(KINDS)}, not {kind!r}")
    answer = number_text(row.get("gold"), "gold")
    if kind.startswith("MCQ") and not set(answer) <= set("ABCD"):
        raise RowError(f"field 'gold' must be letters of ABCD, not {answer!r}")
    paper = optional_text(row, "description")
    return [
        MathProblem(
            require_str(row, "question").strip(),
            answer,
            problem_id=f"{paper}/{require_int(row, 'index')}",
            kind=kind,
            category=optional_text(row, "subject"),
        )
    ]


SOURCES = (
    ProblemSource(
        "jeebench",
        parse,
        hub=("datasets:daman1209arora/jeebench",),
        split="test",
        evaluation=True,
    ),
)
