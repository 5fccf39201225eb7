"""ProcessBench (Zheng et al., arXiv 2412.06559): the first error of each solution."""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_int, require_str, require_strings
from aprm_jax.data.labelled import LabelledSolution, from_first_error, question_id
from aprm_jax.data.readers.base import StepSource, optional_text

SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")


def parse(row: dict) -> list[LabelledSolution]:
    """One solution; `label` is 0-based, -1 for none, and steps behind it unlabelled.

    The split is what the row's id starts with; the category is the model that wrote
    the solution.
    """
    question = require_str(row, "problem")
    steps = require_strings(row, "steps")
    label = require_int(row, "label")
    if not -1 <= label < len(steps):
        raise RowError(f"label {label} is no step of {len(steps)} and not -1")
    name = optional_text(row, "id")
    split = name.rpartition("-")[0]
    return [
        from_first_error(
            question,
            steps,
            label,
            split=split if split in SPLITS else "",
            problem_id=name or question_id(question),
            category=optional_text(row, "generator"),
        )
    ]


SOURCES = (
    StepSource(
        "processbench",
        parse,
        hub=("datasets:Qwen/ProcessBench",),
        split="gsm8k",
        evaluation=True,
    ),
)
