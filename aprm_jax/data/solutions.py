"""Solutions as people hand them over to be scored: a question and its steps, or text.

{"prompt": "3 + 4 * 2?", "completions": ["4 * 2 = 8", "3 + 8 = 11"]}
{"question": "3 + 4 * 2?", "steps": ["4 * 2 = 8", "3 + 8 = 11"], "id": "a-1"}
{"question": "3 + 4 * 2?", "reply": "4 * 2 = 8\\n3 + 8 = 11"}     text="reply"

or several solutions of one question, to choose from, each a list, a text or an object:

    {"question": "3 + 4 * 2?", "candidates": [["4 * 2 = 8", "3 + 8 = 11"], "3 + 8"]}
    {"question": "3 + 4 * 2?", "candidates": [{"steps": ["3 + 8", "11"]}], "answer": 11}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from aprm_jax.data.jsonl import RowError, present, require_str, require_strings
from aprm_jax.data.readers.base import (
    chat_question,
    number_text,
    spelt_list,
    texts_of,
)

SPLITS = ("lines", "paragraphs")
_SEPARATORS = {"lines": re.compile("\n"), "paragraphs": re.compile(r"\n[ \t\r]*\n")}
_QUESTION = ("question", "prompt", "problem")
_STEPS = ("completions", "steps")
_TEXTS = ("text", "reply", "response", "solution")
_CANDIDATES = ("candidates", "solutions", "samples", "responses")
_REFERENCE = ("reference", "expected_answer", "answer", "final_answer")


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
    return _digest([question, *steps])


def _digest(texts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


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
        none = row[field] is None or row[field] in ("", [])
        steps = () if none else tuple(texts_of(spelt_list(row, field), field))
    return GivenSolution(line, question, steps, given_name(row))


@dataclasses.dataclass(frozen=True)
class GivenCandidates:
    """A question of somebody's file and solutions of it.

    Attributes:
      line: of the file, from 1.
      question: the problem.
      candidates: the steps of each solution, () of one without any.
      reference: the right answer; None where nobody says.
      name: the row's own `id`; None where it has none.
    """

    line: int
    question: str
    candidates: tuple[tuple[str, ...], ...]
    reference: str | None = None
    name: str | int | None = None

    @property
    def key(self) -> str:
        """What tells its texts from others."""
        return _digest([self.question, *map(list, self.candidates)])

    @property
    def num_chars(self) -> int:
        """Of its texts."""
        steps = (step for steps in self.candidates for step in steps)
        return len(self.question) + sum(map(len, steps))


def parse_candidates(
    row: Mapping[str, Any], line: int, split: str = "lines"
) -> GivenCandidates:
    """The candidates of a row; see `parse_solution`.

    Raises:
      RowError: a field is missing or of another type; names the candidate.
    """
    row = dict(row)
    field = first_of(row, _CANDIDATES)
    listed = row[field]
    if not isinstance(listed, list):
        raise RowError(f"field {field!r} must be a list, not {listed!r:.60}")
    found = []
    for k, candidate in enumerate(listed):
        try:
            found.append(_steps(candidate, split))
        except RowError as error:
            raise RowError(f"{field}[{k}]: {error}") from None
    stated = next((name for name in _REFERENCE if not _is_blank(row.get(name))), "")
    reference = number_text(row[stated], stated) if stated else None
    question = given_question(row)
    return GivenCandidates(line, question, tuple(found), reference, given_name(row))


def _steps(candidate: Any, split: str) -> tuple[str, ...]:
    """Of one candidate: a list of them, a text, an object with either.

    A blank step stays: solvers write such, and it is for a verifier to judge.
    """
    if isinstance(candidate, dict):
        candidate = candidate[first_of(candidate, (*_STEPS, *_TEXTS))]
    if isinstance(candidate, str):
        text = require_str({"text": candidate}, "text", allow_empty=True)
        return split_text(text, split)
    if not isinstance(candidate, list):
        kind = type(candidate).__name__
        raise RowError(f"must be a list of steps, a text or an object, not {kind}")
    return tuple(require_strings({"steps": candidate}, "steps", allow_empty=True))


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
    """The first of some fields that a row has, one that is null where all are.

    Tables have every column in every row.

    Raises:
      RowError: it has none of them.
    """
    found = [field for field in fields if field in row]
    if not found:
        raise RowError(f"no field {' or '.join(fields)} (present: {present(row)})")
    return next((field for field in found if row[field] is not None), found[0])


def split_text(text: str, split: str) -> tuple[str, ...]:
    """The steps of a solution in one text; blank ones are none."""
    parts = (part.strip() for part in _SEPARATORS[split].split(text))
    return tuple(part for part in parts if part)


def _is_blank(value: Any) -> bool:
    """Whether a field says nothing, as that of a table's empty cell."""
    return value is None or (isinstance(value, str) and not value.strip())
