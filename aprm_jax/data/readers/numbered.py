"""Solutions whose steps are numbered in their text: "How many? Step 1: ..."."""

from __future__ import annotations

import re
from collections.abc import Sequence

from aprm_jax.data.jsonl import RowError
from aprm_jax.data.readers.base import uncut

# "Step 1:", bare or bold, the colon inside or outside; bold that goes on is kept.
_STEP = (
    r"(?:#+\s*)?(?:(\*+|_+)Step\s+{n}(?:\s*:\s*\1|\s*\1\s*:)"
    r"|(\*+|_+)?Step\s+{n}\s*:)\s*"
)
_FIRST = re.compile(_STEP.format(n=1))
_SECOND = re.compile(_STEP.format(n=2))
_NUMBER = re.compile(_STEP.format(n=r"\d+"), re.IGNORECASE)
_LINE = re.compile(r"^[ \t]*" + _STEP.format(n=r"\d+"), re.IGNORECASE | re.MULTILINE)
# What stands before the opening of a solution, and before a mere mention of a step.
_SENTENCE_ENDS = tuple('.?!:;"”)]}$')
_MENTIONS = re.compile(
    r"\b(?:in|of|is|from|see|to|by|as|the|at|with|using|and|or|than|after|before)\s*$",
    re.IGNORECASE,
)

# A paragraph of a question: it ends in a question mark, or is one sentence that asks.
_ASKS = re.compile(
    r".*\?[\s$)\]\"”]*"
    r"|(?:Find|Compute|Determine|Evaluate|Calculate|Express|Give|Prove|Show|Solve|State)"
    r"\b(?:(?!\.\s|[:\n]).)*",
    re.DOTALL,
)


def opening(text: str) -> int | None:
    """Where the "Step 1:" stands that opens a solution behind its question, or None.

    The question may speak of a step 1, or list steps of its own, and so may the
    solution's first step. A sentence begins with the opening; a question's own list has
    a step 2 before it.
    """
    marks = [mark.start() for mark in _FIRST.finditer(text)]
    if not marks:
        return None
    found = [at for at in marks if _begins_sentence(text[:at])]
    found = found or [at for at in marks if not _MENTIONS.search(text[:at])]
    start, *later = found or marks
    for at in later:
        if _SECOND.search(text, start, at):
            start = at
    return start


def without_number(step: str) -> str:
    """A step without the "Step n:" before it and the space around it."""
    step = step.strip()
    mark = _NUMBER.match(step)
    return step if mark is None else (mark[2] or "") + step[mark.end() :]


def split_steps(text: str, whole: bool = False) -> list[str]:
    """The steps of a text, each of which begins a line with "Step n:".

    A text without such lines is its lines.

    Args:
      text: a solution.
      whole: lines of one drawing, environment or displayed formula stay together.
    """
    starts = [mark.start() for mark in _LINE.finditer(text)]
    if not starts:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return uncut(lines, "\n") if whole else lines
    ends = [*starts[1:], len(text)]
    steps = [text[: starts[0]].strip()] if text[: starts[0]].strip() else []
    parts = zip(starts, ends, strict=True)
    return [*steps, *(without_number(text[a:b]) for a, b in parts)]


def _begins_sentence(before: str) -> bool:
    text = before.rstrip()
    return "\n" in before[len(text) :] or text.endswith(_SENTENCE_ENDS)


def question_and_steps(
    texts: Sequence[str], labels: Sequence[float]
) -> tuple[str, list[str], list[float]]:
    """A question, the steps behind it and their labels.

    Args:
      texts: the question and the first step, as `question_and_step` tells them apart,
        then the other steps, "Step n:" before each. Where these have numbers and the
        first has none, or its last paragraph asks for something, it holds no step.
      labels: of the texts. Where the first holds no step that can be told from the
        question, its label is no step's either.

    Raises:
      RowError: there is no step, or one is empty.
    """
    question, first = question_and_step(texts[0])
    if opening(texts[0]) is None and (_ASKS.fullmatch(first) or _numbered(texts[1:])):
        question, first = texts[0].replace("\r\n", "\n").strip(), ""
    steps = [first, *map(without_number, texts[1:])][0 if first else 1 :]
    if not steps:
        raise RowError("the question has no 'Step 1:', and there is no other step")
    if not all(steps):
        raise RowError(f"step {steps.index('') + 1} is empty")
    return question, steps, list(labels)[-len(steps) :]


def _numbered(steps: Sequence[str]) -> bool:
    return any(_NUMBER.match(step.strip()) for step in steps)


def question_and_step(text: str) -> tuple[str, str]:
    """A question and the first step behind it, in one text.

    "Step 1:" opens the step, or failing that the last blank line stands before it.
    Where neither is there the whole text is the question, and the step is "".
    """
    text = text.replace("\r\n", "\n").strip()
    start = opening(text)
    if start is None:
        question, _, step = text.rpartition("\n\n")
        return (question.strip(), step.strip()) if question.strip() else (text, "")
    question = text[:start].strip()
    if not question:
        raise RowError("no question before 'Step 1:'")
    return question, without_number(text[start:])
