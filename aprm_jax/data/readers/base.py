"""What a reader is: the names of a data set and a parser of its rows."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from aprm_jax.data.jsonl import (
    RowError,
    check_texts,
    require_str,
    require_strings,
)
from aprm_jax.data.labelled import LabelledSolution

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class MathProblem:
    """A question with its answer.

    Attributes:
      question: the problem.
      answer: the answer as the data set writes it, without a box; "" where it has none.
      steps: the lines of its worked solution, () where it has none.
      source: name of the data set.
      split: its split or file.
      problem_id: the data set's id, else `question_id(question)`.
      kind: kind of answer where the data set tells kinds apart, such as "MCQ" or
        "Numeric".
      unit: unit of the answer, "" where it has none.
      tolerance: absolute error that the data set allows, as it writes it; "" for none.
      category: subject or book.
    """

    question: str
    answer: str
    steps: tuple[str, ...] = ()
    source: str = ""
    split: str = ""
    problem_id: str = ""
    kind: str = ""
    unit: str = ""
    tolerance: str = ""
    category: str = ""


@dataclasses.dataclass(frozen=True)
class Source(Generic[T]):
    """A data set that the readers know.

    Attributes:
      name: what configs call it.
      parse: one row to the items in it; raises `RowError` for a bad row.
      hub: `datasets:` names that hold it, () where there are none.
      tfds: its `tfds:` name, "" where TFDS has none.
      split: the split to read where none is asked for.
      evaluation: whether it is for evaluation: training on it contaminates.
      check: refuses what the rows as a whole show to be something else; raises
        `DataError`.
    """

    name: str
    parse: Callable[[dict], Sequence[T]]
    hub: tuple[str, ...] = ()
    tfds: str = ""
    split: str = "train"
    evaluation: bool = False
    check: Callable[[str, Sequence[T]], None] | None = None


class ProblemSource(Source[MathProblem]):
    """A source of problems with answers."""


class StepSource(Source[LabelledSolution]):
    """A source of solutions with labelled steps."""


def paragraphs(text: str) -> tuple[str, ...]:
    """The parts of a worked solution that blank lines set apart."""
    parts = (part.strip() for part in text.replace("\r\n", "\n").split("\n\n"))
    return tuple(part for part in parts if part)


_DIGITS = 18  # of a number that counts something; of thousands Python reads none
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f]|\r(?!\n)")  # but ends of lines
_LABELS = {
    **dict.fromkeys(("+", "true", "correct", "right", "good", "yes", "valid"), 1.0),
    **dict.fromkeys(("-", "false", "incorrect", "wrong", "bad", "no", "invalid"), 0.0),
}


def step_label(value: Any, name: str) -> float:
    """A label as people write them: a share from 0 to 1, a truth value, a sign, a word.

    Null is NaN, a step of which nothing is known.
    """
    if value is None:
        return math.nan
    if isinstance(value, str):
        value = _LABELS.get(value.strip().lower(), value)
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise RowError(
            f"{name} must be true, false, null, + or -, or a number from 0 to 1, "
            f"not {value!r}"
        )
    return float(value)


def step_rating(value: Any, name: str) -> int | None:
    """People's rating of a step, -1, 0 (neutral) or 1; None where nobody rated."""
    if value is None:
        return None
    if isinstance(value, bool) or value not in (-1, 0, 1):
        raise RowError(f"{name} must be -1, 0, 1 or null, not {value!r:.60}")
    return int(value)


def first_error(row: dict, field: str, correct_field: str, steps: Sequence[str]) -> int:
    """The 0-based first error of a row that counts from 1; -1 for a right solution.

    Args:
      row: its `correct_field` is "correct" or "incorrect", and may be missing.
      field: of the first error, a number or text, or "N/A".
      correct_field: see `row`.
      steps: of the solution.
    """
    value = row.get(field)
    stated = str("" if value is None else value).strip().lower()
    known = optional_text(row, correct_field).lower()
    if stated in ("n/a", "na", "none", "", "-1"):
        if known == "incorrect":
            raise RowError(f"the solution is incorrect, but {field!r} is {value!r}")
        if not known and value is None:
            raise RowError(f"neither a field {field!r} nor a field {correct_field!r}")
        return -1
    number = stated.removeprefix("step").strip()
    known_number = number.isdecimal() and len(number) <= _DIGITS
    if not known_number or not 1 <= int(number) <= len(steps):
        raise RowError(
            f"{field!r} is {value!r:.60} of {len(steps)} steps, counted from 1"
        )
    return int(number) - 1


def chat_question(row: dict, field: str) -> str:
    """A field that is a question, or a chat that ends with one: a list of turns."""
    value = row.get(field)
    if isinstance(value, list):
        asked = [t for t in value if isinstance(t, dict) and t.get("role") == "user"]
        if len(asked) != 1:
            raise RowError(f"field {field!r} must be a chat with one turn of the user")
        return require_str(asked[0], "content").strip()
    return require_str(row, field)


def spelt_list(row: dict, field: str) -> list[Any]:
    """A field that is a list, or a text that spells one as JSON or Python does."""
    text = value = row.get(field)
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if not isinstance(value, list):
        raise RowError(f"field {field!r} must be a list, not {value!r:.60}")
    if isinstance(text, str):
        check_texts({field: value})  # as it was spelt it was not looked at yet
        _check_escapes(value, text, field)
    return value


def _check_escapes(items: list[Any], text: str, field: str) -> None:
    r"""No command of LaTeX was taken for an escape: `\frac` begins with a form feed.

    Raises:
      RowError: names the field and the item.
    """
    for k, item in enumerate(items):
        found = _CONTROL.search(item) if isinstance(item, str) else None
        if found and found[0] not in text:
            raise RowError(
                f"field {field!r}: item {k} has a control character, {item!r:.60}: "
                "in a list that is spelt in a text, a backslash is written twice"
            )


def texts_of(values: Sequence[Any], field: str) -> list[str]:
    """A list of texts, none of them blank."""
    for k, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise RowError(f"field {field!r}: item {k} is no text: {value!r:.60}")
    return require_strings({field: list(values)}, field)


def optional_text(row: dict, field: str) -> str:
    """A text field, "" where it is missing, null or blank."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"field {field!r} must be text, not {type(value).__name__}")
    return require_str(row, field, allow_empty=True).strip()


def number_text(value: Any, field: str) -> str:
    """A number or text as text: 145.0 is "145"; a truth value is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kind = type(value).__name__
        raise RowError(f"field {field!r} must be a number or text, not {kind}")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise RowError(f"field {field!r} is {value}, not a number")
        return str(int(value)) if value.is_integer() else repr(value)
    text = str(value).strip()
    if not text:
        raise RowError(f"field {field!r} is empty")
    check_texts({field: text})  # an item of a list that was spelt in a text
    return text
