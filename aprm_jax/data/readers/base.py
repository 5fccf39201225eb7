"""What a reader is: the names of a data set and a parser of its rows."""

from __future__ import annotations

import ast
import dataclasses
import decimal
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
from aprm_jax.oracle.answers import within

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class MathProblem:
    """A question with its answer.

    Attributes:
      question: the problem; where its answer has a unit it says which.
      answer: the answer as the data set writes it, without a box, with its unit; ""
        where it has none.
      steps: the lines of its worked solution, () where it has none.
      source: name of the data set.
      split: its split or file.
      problem_id: the data set's id, else `question_id(question)`.
      kind: kind of answer where the data set tells kinds apart, such as "MCQ" or
        "Numeric".
      unit: unit of the answer as the data set writes it, "" where it has none.
      tolerance: absolute error that the data set allows, a number as text; "" for none.
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

    @property
    def reference(self) -> str:
        """What answers are compared with: the answer, and how far off they may be."""
        return within(self.answer, self.tolerance)


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
    """The parts of a worked solution that blank lines set apart.

    A drawing, an environment or a displayed formula is whole: none of its blank lines
    sets anything apart.
    """
    parts = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))
    whole = (part.strip() for part in uncut(parts, "\n\n"))
    return tuple(part for part in whole if part)


def uncut(parts: Sequence[str], joint: str) -> list[str]:
    """Parts of a text, those put together again that a cut inside something made.

    Args:
      parts: of the text, in order.
      joint: what stood between two of them.
    """
    opened = [_opened(part) for part in parts]
    found: list[str] = []
    at = 0
    while at < len(parts):
        end = _closing(opened, at)
        found.append(joint.join(parts[at:end]))
        at = end
    return found


def _closing(opened: Sequence[tuple[int, int]], at: int) -> int:
    """Behind the part that closes what part `at` opens; where nothing does, behind it.

    Which is so as well where more than `_MOST_PARTS` would be one.
    """
    depth = dollars = 0
    for end, (more, signs) in enumerate(opened[at : at + _MOST_PARTS], at + 1):
        depth, dollars = depth + more, dollars + signs
        if depth <= 0 and dollars % 2 == 0:
            return end
    return at + 1


def _opened(text: str) -> tuple[int, int]:
    """How much more a part of a solution opens than closes, and its `$$`."""
    marks = (1 if mark[1] else -1 for mark in _AROUND.finditer(text))
    return sum(marks), len(_DISPLAY.findall(text))


# What opens and what closes a drawing, an environment, a displayed formula.
_AROUND = re.compile(
    r"(\[asy\]|(?<!\\)\\begin\s*\{|(?<!\\)\\\[)"
    r"|\[/asy\]|(?<!\\)\\end\s*\{|(?<!\\)\\\]"
)
_MOST_PARTS = 200
_DISPLAY = re.compile(r"(?<!\\)\$\$")
_DIGITS = 18  # of a number that counts something; of thousands Python reads none
# LaTeX's commands that begin as the escape of a line end does, without their "\\n".
_NEWLINE_COMMAND = re.compile(
    r"\n(abla|atural|cong|e|earrow|eg|eq|ewcommand|ewline|exists|geq|geqslant|gtr|i|"
    r"leftarrow|leq|leqslant|less|mid|obreak|oindent|olimits|ormalsize|onumber|orm|"
    r"ot|otag|otin|parallel|prec|preceq|rightarrow|Leftarrow|Rightarrow|sim|subset|"
    r"subseteq|succ|succeq|supset|supseteq|triangleleft|triangleright|u|vdash|vDash|"
    r"warrow|icefrac)(?![a-zA-Z])"
)
_WORDS = frozenset(["i", "eg", "less", "mid", "parallel", "exists", "sim"])
_EXACT = 2**53  # below it a float holds every integer
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
    if known and known not in _LABELS:
        raise RowError(f"{correct_field!r} is {known!r:.60}, not correct or incorrect")
    wrong = known and not _LABELS[known]
    if stated in ("n/a", "na", "none", "", "-1"):
        if wrong:
            raise RowError(f"the solution is {known}, but {field!r} is {value!r}")
        if not known and value is None:
            raise RowError(f"neither a field {field!r} nor a field {correct_field!r}")
        return -1
    number = stated.removeprefix("step").strip()
    known_number = number.isdecimal() and len(number) <= _DIGITS
    if not known_number or not 1 <= int(number) <= len(steps):
        raise RowError(
            f"{field!r} is {value!r:.60} of {len(steps)} steps, counted from 1"
        )
    if known and not wrong:
        raise RowError(f"the solution is {known}, but {field!r} is {value!r:.60}")
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


def spells_list(text: str) -> bool:
    """Whether a text begins as a list of texts or lists; `[asy]`, `[2, 5]` do not."""
    return bool(re.match(r"\s*\[\s*(?:[\"'\[\]]|[rRbBuU]{1,2}[\"'])", text))


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


def _check_escapes(items: Sequence[Any], text: str, field: str) -> None:
    r"""No command of LaTeX was taken for an escape: `\frac` begins with a form feed.

    Raises:
      RowError: names the field and the item.
    """
    for k, item in enumerate(items):
        if isinstance(item, list | tuple):
            _check_escapes(item, text, f"{field}[{k}]")
        if not isinstance(item, str):
            continue
        found = _CONTROL.search(item)
        if found and found[0] not in text:
            raise RowError(
                f"field {field!r}: item {k} has a control character, {item!r:.60}: "
                "in a list that is spelt in a text, a backslash is written twice"
            )
        if command := _broken_command(item):
            raise RowError(
                f"field {field!r}: item {k} has a line end in place of {command}, "
                f"{item!r:.60}: in a list that is spelt in a text, a backslash is "
                "written twice"
            )


def _broken_command(item: str) -> str:
    r"""The command that was read as a line end and letters: `\neq`; "" for none.

    `\nu = 3` may be a line of its own, `u = 3`, and so may `\nless than`: it is where
    it stands like one.
    """
    for found in _NEWLINE_COMMAND.finditer(item):
        before = item[: found.start()]
        in_formula = before.count("$") % 2 == 1 or before[-1:] in ("", " ")
        line = found[1] in _WORDS or (
            found[1] in ("e", "u") and re.match(r"\s*[=:<>]", item[found.end() :])
        )
        if in_formula or not line:
            return f"\\n{found[1]}"
    return ""


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
    """A number or text as text: 145.0 is "145", 6.022e23 has 20 zeros at its end.

    Raises:
      RowError: it is a truth value, no number, blank, or neither number nor text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kind = type(value).__name__
        raise RowError(f"field {field!r} must be a number or text, not {kind}")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise RowError(f"field {field!r} is {value}, not a number")
        return _float_text(value)
    text = str(value).strip()
    if not text:
        raise RowError(f"field {field!r} is empty")
    check_texts({field: text})  # an item of a list that was spelt in a text
    return text


def tolerance_text(value: Any, field: str) -> str:
    """An absolute error as text; of several answers' errors the smallest, "" for none.

    Raises:
      RowError: one is no number of at least 0.
    """
    if value is None:
        return ""
    parts = [part.strip() for part in number_text(value, field).split(",")]
    try:
        errors = [float(part) for part in parts if part]
    except ValueError:
        errors = [-1.0]
    if any(not 0 <= error < math.inf for error in errors):
        raise RowError(f"field {field!r} must be numbers of at least 0, not {value!r}")
    return repr(min(errors)) if errors else ""


def _float_text(value: float) -> str:
    """A float as somebody wrote it, which is not the binary fraction that it is."""
    if abs(value) < _EXACT:
        return str(int(value)) if value.is_integer() else repr(value)
    # The shortest decimal that is this float; its int has digits that nobody wrote.
    return format(decimal.Decimal(repr(value)).to_integral_value(), "f")
