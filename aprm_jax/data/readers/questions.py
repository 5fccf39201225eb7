"""Anybody's own questions: `{"question": str, "answer": ..., "solution": ...}`.

    {"question": "What is 3 + 4?", "answer": 7}
    {"question": "...", "solution": "3 + 4 = 7\\nSo it is 7.", "answer": "7"}
    {"question": "...", "solution": ["3 + 4 = 7", "So it is 7."], "answer": 7}
    {"question": "...", "answer": "3 + 4 = 7\\n#### 7"}

JSONL, JSON, Parquet or CSV. A number is an answer as well as a text; the steps of a
solution are its lines or list items, and a last line `#### 7` is the answer; a drawing
or an environment of several lines is one step. `problem`
and `prompt` are read as `question`, `final_answer` and `expected_answer` as `answer`,
and `steps` as `solution`.
"""

from __future__ import annotations

from typing import Any

from aprm_jax.data.jsonl import MissingFieldError, RowError
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    chat_question,
    number_text,
    optional_text,
    spells_list,
    spelt_list,
    texts_of,
)
from aprm_jax.data.readers.boxes import last_box
from aprm_jax.data.readers.numbered import split_steps
from aprm_jax.oracle.answers import Outcome, same_answer

_QUESTION = ("question", "problem", "prompt", "Question", "Problem")
_ANSWER = ("answer", "final_answer", "expected_answer", "Answer")
_SOLUTION = ("solution", "steps", "Solution")
_FINAL = "####"


def parse_asked(row: dict) -> MathProblem:
    """A question, whose answer may be missing and is "" then."""
    if any(row.get(field) not in (None, "", []) for field in (*_ANSWER, *_SOLUTION)):
        return parse(row)[0]
    question = chat_question(row, _field(row, _QUESTION) or _QUESTION[0]).strip()
    return MathProblem(question, "")


def parse(row: dict) -> list[MathProblem]:
    """A problem; its steps are those of its solution, () where it has none."""
    if "labels" in row and "completions" in row:
        raise RowError(
            "'completions' and 'labels' are a solution with labelled steps, not a "
            "question with an answer: the reader is step_format, the config file's "
            "argument labels (own_data.py:labels)"
        )
    question = chat_question(row, _field(row, _QUESTION) or _QUESTION[0]).strip()
    steps = _steps(row, _field(row, _SOLUTION))
    field = _field(row, _ANSWER)
    answer = number_text(row[field], field) if field else ""
    if _FINAL in answer:  # of GSM8K's form: the solution stands in the answer
        lines, answer = _without_final(split_steps(answer))
        steps = steps or lines
    steps, final = _without_final(steps)
    if final and answer and _differ(final, answer):
        raise RowError(
            f"the solution ends in '{_FINAL} {final:.60}', but the answer is "
            f"{answer!r:.60}"
        )
    answer = answer or final or last_box("\n".join(steps))
    if not answer:
        said = f"no field {' or '.join(_ANSWER[:3])}"
        raise MissingFieldError(said, _ANSWER[0], row)
    return [
        MathProblem(
            question,
            answer,
            tuple(steps),
            category=optional_text(row, "category"),
        )
    ]


def _field(row: dict, names: tuple[str, ...]) -> str | None:
    """The first of some fields that is there and not null."""
    return next((name for name in names if row.get(name) is not None), None)


def _steps(row: dict, field: str | None) -> list[str]:
    if field is None:
        return []
    value: Any = row[field]
    if isinstance(value, str) and not spells_list(value):
        return split_steps(value, whole=True)
    return [step.strip() for step in texts_of(spelt_list(row, field), field)]


def _without_final(steps: list[str]) -> tuple[list[str], str]:
    """The steps without the line `#### ANSWER` that the last one ends in, and ANSWER.

    "" where it ends in none.
    """
    if not steps:
        return [], ""
    *before, last = steps
    text, _, final = last.rpartition("\n")
    if not final.strip().startswith(_FINAL):
        return steps, ""
    kept = [*before, text.strip()] if text.strip() else before
    return kept, final.strip().removeprefix(_FINAL).strip()


def _differ(final: str, answer: str) -> bool:
    """Whether two answers are surely not one; what cannot be read may be."""
    return same_answer(final, answer).outcome is Outcome.DIFFERENT


SOURCES = (ProblemSource("questions", parse),)
