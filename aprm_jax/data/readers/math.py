"""MATH (Hendrycks et al., arXiv 2103.03874) and its 500 held-out problems."""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    optional_text,
    paragraphs,
)


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


def last_box(text: str) -> str:
    """What the last `\\boxed{...}` or `\\fbox{...}` holds; "" without a closed one."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    opened = text.find("{", start) if start >= 0 else -1
    if opened < 0:
        return ""
    depth = 0
    for i in range(opened, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return text[opened + 1 : i].strip()
    return ""


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
