"""Mr-Ben (Zeng et al., arXiv 2406.13975): the first error of solutions, seven subjects.

    {"Question_UUID": "...", "Subject": "math", "Question": "...", "Options": "A: ...",
     "Sampled_Model": "...", "Model_Solution_Steps": ["Step 1: ...", ...],
     "Model_Solution_Correctness": "incorrect",
     "Model_Solution_First_Error_Step": "2"}

Steps are counted from 1; the first error of a right solution is "N/A". Questions about
code have no options.
"""

from __future__ import annotations

from aprm_jax.data.jsonl import require_str
from aprm_jax.data.labelled import LabelledSolution, from_first_error, question_id
from aprm_jax.data.readers.base import (
    StepSource,
    first_error,
    optional_text,
    spells_list,
    spelt_list,
    texts_of,
)
from aprm_jax.data.readers.numbered import split_steps, without_number

_STEPS = "Model_Solution_Steps"


def parse(row: dict) -> list[LabelledSolution]:
    """One solution; the steps behind its first error are unlabelled."""
    question = require_str(row, "Question").strip()
    options = row.get("Options")
    if isinstance(options, list):
        options = "\n".join(texts_of(options, "Options"))
    if isinstance(options, str) and options.strip() not in ("", "N/A"):
        question = f"{question}\n{options.strip()}"
    value = row.get(_STEPS)
    if isinstance(value, str) and not spells_list(value):
        steps = split_steps(value)
    else:
        steps = spelt_list(row, _STEPS)
    steps = [without_number(step) for step in texts_of(steps, _STEPS)]
    error = first_error(
        row, "Model_Solution_First_Error_Step", "Model_Solution_Correctness", steps
    )
    return [
        from_first_error(
            question,
            steps,
            error,
            problem_id=optional_text(row, "Question_UUID") or question_id(question),
            category=optional_text(row, "Subject"),
        )
    ]


SOURCES = (
    StepSource("mr_ben", parse, hub=("datasets:Randolphzeng/Mr-Ben",), evaluation=True),
)
