"""Grades answers in plain text and LaTeX by what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from aprm_jax.oracle import answers
from aprm_jax.oracle.steps.calculator import is_final, stated

_BOX = "\\boxed{"


class AnswerGrader:
    """Implements `Grader` on solutions that end in `#### ANSWER` or in a box."""

    def is_final(self, step: str) -> bool:
        """Whether a step is a `#### ANSWER` line, or has a box in it."""
        return is_final(step) or _BOX in step

    def answer(self, steps: Sequence[str]) -> str | None:
        """What the first concluding step states; None without one."""
        for step in steps:
            if is_final(step):
                return stated(step) or None
            if _BOX in step:
                return answers.extract(step, "boxed")
        return None

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Whether `oracle.answers` calls them equal; what is not decided is not."""
        return given is not None and (
            given.strip() == expected.strip() or answers.grade(given, expected)
        )
