"""What a reader is: the names of a data set and a parser of its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from aprm_jax.data.jsonl import RowError, require_str
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
    """

    name: str
    parse: Callable[[dict], Sequence[T]]
    hub: tuple[str, ...] = ()
    tfds: str = ""
    split: str = "train"
    evaluation: bool = False


class ProblemSource(Source[MathProblem]):
    """A source of problems with answers."""


class StepSource(Source[LabelledSolution]):
    """A source of solutions with labelled steps."""


def paragraphs(text: str) -> tuple[str, ...]:
    """The parts of a worked solution that blank lines set apart."""
    parts = (part.strip() for part in text.replace("\r\n", "\n").split("\n\n"))
    return tuple(part for part in parts if part)


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
    return text
