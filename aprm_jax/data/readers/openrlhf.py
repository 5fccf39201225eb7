"""OpenRLHF's PRM data (Hu et al., arXiv 2405.11143): a text with tags, a label each.

    {"input": "How many? Step 1: 3+4 = 7. ки\\nStep 2: ... ки", "value": ["+", "-"]}

`--input_key` names the text, whose every step a placeholder token closes, and
`--label_key` the labels (`label` or `value`): signs, or shares from 0 to 1. Labels
that are a text are Math-Shepherd's own form.
"""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.labelled import LabelledSolution, from_labels
from aprm_jax.data.readers import math_shepherd
from aprm_jax.data.readers.base import StepSource, optional_text, step_label
from aprm_jax.data.readers.numbered import question_and_steps

_LABELS = ("value", "label", "labels", "values")


def parse(row: dict) -> list[LabelledSolution]:
    """One solution, without the tags and the "Step n:" before each step."""
    field = next((name for name in _LABELS if row.get(name) is not None), None)
    if field is None:
        raise RowError(f"none of the fields {', '.join(_LABELS)} is there")
    values = row[field]
    if isinstance(values, str):
        return math_shepherd.parse({**row, "label": values})
    text = require_str(row, "input")
    *parts, rest = text.split(math_shepherd.TAG)
    if not parts:
        raise RowError(f"field 'input' has no tag {math_shepherd.TAG!r}")
    if rest.strip():
        raise RowError(f"text behind the last tag: {rest.strip()[:40]!r}")
    if not isinstance(values, list) or len(values) != len(parts):
        many = len(values) if isinstance(values, list) else repr(values)[:40]
        raise RowError(f"field {field!r}: {many} labels for {len(parts)} tags")
    labels = [step_label(value, f"label {k}") for k, value in enumerate(values)]
    solution = question_and_steps(parts, labels)
    return [from_labels(*solution, category=optional_text(row, "task"))]


SOURCES = (StepSource("openrlhf", parse, hub=("datasets:zhuzilin/Math-Shepherd",)),)
