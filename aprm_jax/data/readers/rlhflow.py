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
from aprm_jax.data.labelled import LabelledSolution, from_labels
from aprm_jax.data.readers.base import StepSource, step_label
from aprm_jax.data.readers.numbered import question_and_steps

_USER = ("user", "human")


def parse(row: dict) -> list[LabelledSolution]:
    """One solution, without the "Step n:" before each step."""
    turns = row.get("conversations", row.get("messages"))
    if not isinstance(turns, list):
        raise RowError("field 'conversations' must be a list of turns")
    texts, labels = _turns(turns)
    return [from_labels(*question_and_steps(texts, labels))]


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
