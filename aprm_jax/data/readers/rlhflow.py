"""RLHFlow's PRM data: chats whose user writes steps and whose assistant says + or -.

Mistral-PRM-Data and Deepseek-PRM-Data (Xiong et al., RLHF-Reward-Modeling, "math"):

    {"conversations": [
      {"role": "user", "content": "How many? Step 1: 3+4 = 7."},
      {"role": "assistant", "content": "+"},
      {"role": "user", "content": "Step 2: ..."}, ...]}

The signs are Monte-Carlo labels as Math-Shepherd's. The first turn holds the question
and the first step.
"""

from __future__ import annotations

from typing import Any

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.labelled import LabelledSolution, from_labels, question_id
from aprm_jax.data.readers.base import StepSource, step_label
from aprm_jax.data.readers.numbered import question_and_step, without_number

_USER = ("user", "human")


def parse(row: dict) -> list[LabelledSolution]:
    """One solution, without the "Step n:" before each step."""
    turns = row.get("conversations", row.get("messages"))
    if not isinstance(turns, list):
        raise RowError("field 'conversations' must be a list of turns")
    texts, labels = _turns(turns)
    question, first = question_and_step(texts[0])
    steps = [without_number(text) for text in texts[1:]]
    if first:
        steps.insert(0, first)
    else:
        labels = labels[1:]  # of a step that cannot be told from the question
    if not steps:
        raise RowError("the first turn has no 'Step 1:', and there is no other")
    if not all(steps):
        raise RowError(f"step {steps.index('') + 1} is empty")
    return [
        from_labels(
            question, steps, labels, source="rlhflow", problem_id=question_id(question)
        )
    ]


def _turns(turns: list[Any]) -> tuple[list[str], list[float]]:
    """The user's turns and the label behind each; NaN where none follows."""
    texts: list[str] = []
    labels: list[float] = []
    for k, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise RowError(f"turn {k} must be an object")
        role = turn.get("role", turn.get("from"))
        if role == "system":
            continue
        fields = {"content": turn.get("content", turn.get("value"))}
        content = require_str(fields, "content").strip()
        if role in _USER:
            texts.append(content)
            labels.append(step_label(None, ""))
        elif not texts or labels[-1] == labels[-1]:
            raise RowError(f"turn {k} of {role!r} follows no step")
        elif content not in ("+", "-"):
            raise RowError(f"turn {k} must be + or -, not {content[:40]!r}")
        else:
            labels[-1] = step_label(content, f"turn {k}")
    if not texts:
        raise RowError("the conversation has no turn of the user")
    return texts, labels


SOURCES = (
    StepSource(
        "rlhflow",
        parse,
        hub=(
            "datasets:RLHFlow/Mistral-PRM-Data",
            "datasets:RLHFlow/Deepseek-PRM-Data",
        ),
    ),
)
