"""PRMBench (Song et al., arXiv 2501.03124): solutions with planted errors of 9 kinds.

`error_steps` counts from 1, unlike ProcessBench's `label`. Every step of a modified
solution has a label. 100 of the 6,216 published rows name steps past the end; the
benchmark's own code never comes to those, and here they are ignored and counted. A row
of kind "redundency" (sic) also brings the original solution, which the benchmark uses
as its correct sample.
"""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_str, require_strings
from aprm_jax.data.labelled import LabelledSolution, from_labels
from aprm_jax.data.readers.base import StepSource

CORRECT = "correct"
_BRINGS_ORIGINAL = "redundency"


def parse(row: dict) -> list[LabelledSolution]:
    """The modified solution; its category is the kind of error.

    A "redundency" row gives the original solution too, with category "correct". The
    benchmark pairs the two by id, so both have the row's `idx` as problem id.
    """
    kind, name = require_str(row, "classification"), require_str(row, "idx")
    steps = require_strings(row, "modified_process")
    errors = row.get("error_steps")
    if not isinstance(errors, list) or any(type(e) is not int for e in errors):
        raise RowError(f"field 'error_steps' must list integers, not {errors!r}")
    low = [e for e in errors if e < 1]
    if low:
        raise RowError(f"error step {low[0]} of {len(steps)}, counted from 1")
    labels = [0.0 if k in errors else 1.0 for k in range(1, len(steps) + 1)]
    where = {"problem_id": name}
    question = require_str(row, "modified_question")
    past = sum(e > len(steps) for e in set(errors))
    found = [from_labels(question, steps, labels, category=kind, ignored=past, **where)]
    if kind == _BRINGS_ORIGINAL:
        original = require_strings(row, "original_process")
        question = require_str(row, "original_question")
        right = [1.0] * len(original)
        found.append(from_labels(question, original, right, category=CORRECT, **where))
    return found


SOURCES = (
    StepSource(
        "prmbench",
        parse,
        hub=("datasets:hitsmy/PRMBench_Preview",),
        evaluation=True,
    ),
)
