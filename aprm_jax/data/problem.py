"""A question with its answer, and with a solution where there is one."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its answer and one solution, step by step.

    Attributes:
      question: the text of the problem.
      steps: one solution. Correct, except in a corpus of noisy authors.
      answer: the final answer in canonical text, and how far off another may be where
        that is known; see `oracle.answers.within`.
    """

    question: str
    steps: tuple[str, ...]
    answer: str
