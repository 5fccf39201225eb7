"""Solutions as people hand them over to be scored: a question and its steps, or text.

{"prompt": "3 + 4 * 2?", "completions": ["4 * 2 = 8", "3 + 8 = 11"]}
{"question": "3 + 4 * 2?", "steps": ["4 * 2 = 8", "3 + 8 = 11"], "id": "a-1"}
{"question": "3 + 4 * 2?", "reply": "4 * 2 = 8\\n3 + 8 = 11"}     text="reply"
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.readers.base import chat_question, spelt_list, texts_of

SPLITS = ("lines", "paragraphs")
_SEPARATORS = {"lines": re.compile("\n"), "paragraphs": re.compile(r"\n[ \t\r]*\n")}
_QUESTION = ("question", "prompt", "problem")
_STEPS = ("completions", "steps")


@dataclasses.dataclass(frozen=True)
class GivenSolution:
    """A solution of somebody's file.

    Attributes:
      line: of the file, from 1.
      question: the problem.
      steps: its steps, () where it has none.
      name: the row's own `id`; None where it has none.
    """

    line: int
    question: str
    steps: tuple[str, ...]
    name: str | int | None = None

    @property
    def key(self) -> str:
        """What tells its texts from others."""
        return solution_key(self.question, self.steps)

    @property
    def num_chars(self) -> int:
        """Of its texts."""
        return len(self.question) + sum(map(len, self.steps))


def solution_key(question: str, steps: tuple[str, ...]) -> str:
    """Half of the SHA-256 of a solution's texts, in hexadecimal digits."""
    text = json.dumps([question, *steps])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def parse_solution(
    row: Mapping[str, Any], line: int, text: str = "", split: str = "lines"
) -> GivenSolution:
    """A solution of a row.

    Args:
      row: see the module.
      line: of the file.
      text: the field that holds the solution as one text; "" where it is a list.
      split: of such a text, of `SPLITS`: its lines, or what blank lines set apart.

    Raises:
      RowError: a field is missing or of another type, or a step is blank.
    """
    row = dict(row)
    question = given_question(row)
    if text:
        steps = split_text(require_str(row, text, allow_empty=True), split)
    else:
        field = first_of(row, _STEPS)
        steps = tuple(texts_of(spelt_list(row, field), field)) if row[field] else ()
    return GivenSolution(line, question, steps, given_name(row))


def given_question(row: dict[str, Any]) -> str:
    """The question of a row, or of a chat in it.

    Raises:
      RowError: there is none.
    """
    return chat_question(row, first_of(row, _QUESTION))


def given_name(row: Mapping[str, Any]) -> str | int | None:
    """The row's own `id`, None where it has none.

    Raises:
      RowError: it is neither text nor a whole number.
    """
    name = row.get("id")
    if name is None or (isinstance(name, int) and not isinstance(name, bool)):
        return name
    return require_str(row, "id")


def first_of(row: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    """The first of some fields that a row has.

    Raises:
      RowError: it has none of them.
    """
    for field in fields:
        if field in row:
            return field
    present = ", ".join(sorted(map(str, row))[:8]) or "none"
    raise RowError(f"no field {' or '.join(fields)} (present: {present})")


def split_text(text: str, split: str) -> tuple[str, ...]:
    """The steps of a solution in one text; blank ones are none."""
    parts = (part.strip() for part in _SEPARATORS[split].split(text))
    return tuple(part for part in parts if part)
