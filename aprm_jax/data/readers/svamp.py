"""SVAMP (Patel et al., arXiv 2103.07191): one-step word problems, reworded."""

from __future__ import annotations

from aprm_jax.data.jsonl import require_str
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    number_text,
    optional_text,
)


def parse(row: dict) -> list[MathProblem]:
    """A problem: body and question in one text."""
    body = _one_line(require_str(row, "Body"))
    if body[-1] not in ".?!":
        body += "."  # some bodies lack it
    question = f"{body} {_one_line(require_str(row, 'Question'))}"
    return [
        MathProblem(
            question,
            number_text(row.get("Answer"), "Answer"),
            problem_id=optional_text(row, "ID"),
            kind="Numeric",
            category=optional_text(row, "Type"),
        )
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())


SOURCES = (
    ProblemSource(
        "svamp", parse, hub=("datasets:ChilleD/SVAMP",), split="test", evaluation=True
    ),
)
