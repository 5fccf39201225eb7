"""The step format: any rows `{"prompt": str, "completions": [str], "labels": [...]}`.

TRL's stepwise supervision, with labels that may be soft: true, false, a number from 0
to 1, or null for a step of which nothing is known.
"""

from __future__ import annotations

import math
from typing import Any

from aprm_jax.data.jsonl import RowError, require_str, require_strings
from aprm_jax.data.labelled import LabelledSolution, from_labels, question_id
from aprm_jax.data.readers.base import StepSource, optional_text


def parse(row: dict) -> list[LabelledSolution]:
    """One solution. `problem_id`, `source` and `category` are kept where they are."""
    question = require_str(row, "prompt")
    steps = require_strings(row, "completions")
    labels = row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        many = f"{len(labels)} labels" if isinstance(labels, list) else repr(labels)
        raise RowError(f"field 'labels' must be a list of {len(steps)}, not {many}")
    return [
        from_labels(
            question,
            steps,
            [_label(k, label) for k, label in enumerate(labels)],
            source=optional_text(row, "source") or "step_format",
            problem_id=optional_text(row, "problem_id") or question_id(question),
            category=optional_text(row, "category"),
        )
    ]


def _label(k: int, label: Any) -> float:
    if label is None:
        return math.nan
    if not isinstance(label, bool | int | float) or not 0 <= label <= 1:
        raise RowError(
            f"label {k} must be true, false, null or a number from 0 to 1, "
            f"not {label!r}"
        )
    return float(label)


SOURCES = (
    StepSource(
        "step_format",
        parse,
        hub=("datasets:trl-lib/prm800k", "datasets:trl-lib/math_shepherd"),
    ),
)
