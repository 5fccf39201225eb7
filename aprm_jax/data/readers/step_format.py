"""The step format: any rows `{"prompt": str, "completions": [str], "labels": [...]}`.

TRL's stepwise supervision, with labels that may be soft: true, false, a number from 0
to 1, a sign or a word such as "correct", or null for a step of which nothing is known.
`prompt` may be a chat of one turn. In a table (CSV) the lists are texts that spell
them, `["3+4 = 7", "#### 7"]` and `[1, 0]`.

Sets of that form whose rows hold whole *solutions* with a label each, such as
gsm8k-gen-stepwise, are refused: what is right about a solution is not known of its
steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aprm_jax.data.jsonl import (
    DataError,
    FileKindError,
    RowError,
    require_strings,
)
from aprm_jax.data.labelled import LabelledSolution, from_labels
from aprm_jax.data.readers.base import (
    StepSource,
    chat_question,
    optional_text,
    spelt_list,
    step_label,
)

_OF_SOLUTIONS = re.compile(r"gsm8k[-_]gen[-_]stepwise", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"####|\\boxed\b|\banswer\b[^.\n]{0,40}?(?:\bis\b|[:=])", re.IGNORECASE
)


def parse(row: dict) -> list[LabelledSolution]:
    """One solution. `problem_id`, `source` and `category` are kept where they are."""
    question = chat_question(row, "prompt")
    listed = {"completions": spelt_list(row, "completions")}
    steps = require_strings(listed, "completions")
    labels = row.get("labels")
    if isinstance(labels, str):
        labels = spelt_list(row, "labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        many = f"{len(labels)} labels" if isinstance(labels, list) else repr(labels)
        raise RowError(f"field 'labels' must be a list of {len(steps)}, not {many}")
    return [
        from_labels(
            question,
            steps,
            [_label(label, f"label {k}") for k, label in enumerate(labels)],
            source=optional_text(row, "source"),
            problem_id=optional_text(row, "problem_id"),
            category=optional_text(row, "category"),
        )
    ]


def _label(value: Any, name: str) -> float:
    """As `step_label`; one rating says that all of the file has them.

    Where wrong steps are rare the rows with -1 would be put aside as bad, and 0, which
    is neutral there, be learned as wrong.
    """
    if value in (-1, "-1"):
        raise FileKindError(
            f"{name} is -1, a rating of -1 (wrong), 0 (neutral) or 1, and the labels "
            "of this form go from 0 (wrong) to 1 (right): write 0 for each -1, and "
            "null for each 0"
        )
    return step_label(value, name)


def refuse_solutions(source: str, found: Sequence[LabelledSolution]) -> None:
    """Refuses rows that hold a question's solutions in place of a solution's steps.

    By name, or because most rows of several completions conclude in each of them.

    Raises:
      DataError: says what the labels are of.
    """
    several = [s for s in found if len(s.steps) > 1]
    whole = sum(all(map(_CONCLUDES.search, s.steps)) for s in several)
    if _OF_SOLUTIONS.search(source) or 2 * whole > len(several) > 0:
        raise DataError(
            f"{source}: the completions of a row are solutions of one question, each "
            "with its own answer and one label, not the steps of a solution: they say "
            "nothing of single steps"
        )


SOURCES = (
    StepSource(
        "step_format",
        parse,
        hub=("datasets:trl-lib/prm800k", "datasets:trl-lib/math_shepherd"),
        check=refuse_solutions,
    ),
)
