"""VersaPRM's data (Zeng et al., arXiv 2502.06737): labelled steps of fourteen subjects.

MMLU-Pro-CoT-Train-Labeled; both lists are texts that spell Python lists:

    {"id": "...", "cot_id": 0, "question": "... A. ... B. ...", "answer": "C",
     "category": "law", "src": "...", "chain_of_thoughts": "['Step 1: ...', ...]",
     "labels": "[1, 1, -1]", "parsed_answer_correctness": false}

A label is 1 for a good step and -1 for a bad one; 0 would be neither.
"""

from __future__ import annotations

from typing import Any

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.labelled import LabelledSolution, from_ratings
from aprm_jax.data.readers.base import (
    StepSource,
    optional_text,
    spelt_list,
    step_rating,
    texts_of,
)
from aprm_jax.data.readers.numbered import without_number

_STEPS = ("chain_of_thoughts", "steps")
_RATINGS = {"good": 1, "ok": 0, "bad": -1}


def parse(row: dict) -> list[LabelledSolution]:
    """One solution, without the "Step n:" before each step."""
    question = require_str(row, "question").strip()
    field = next((name for name in _STEPS if name in row), _STEPS[0])
    steps = texts_of(spelt_list(row, field), field)
    ratings = [_rating(k, value) for k, value in enumerate(spelt_list(row, "labels"))]
    if len(ratings) != len(steps):
        raise RowError(f"{len(steps)} steps and {len(ratings)} labels")
    return [
        from_ratings(
            question,
            [without_number(step) for step in steps],
            ratings,
            category=optional_text(row, "category"),
        )
    ]


def _rating(k: int, value: Any) -> int | None:
    if isinstance(value, str):
        value = _RATINGS.get(value.strip().lower(), value)
    return step_rating(value, f"label {k}")


SOURCES = (
    StepSource(
        "versaprm",
        parse,
        hub=("datasets:UW-Madison-Lee-Lab/MMLU-Pro-CoT-Train-Labeled",),
    ),
)
