"""What a domain of problems offers to every job: text, splits, oracle, corruptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.oracle.verdict import Oracle


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its answer and one solution, step by step.

    Attributes:
      question: the text of the problem.
      steps: one solution. Correct, except in a corpus of noisy authors.
      answer: the final answer in canonical text.
    """

    question: str
    steps: tuple[str, ...]
    answer: str


@runtime_checkable
class Domain(Protocol):
    """Problems that can be drawn by index: position in the data is one integer.

    Every method is a pure function of its arguments and of the seed that the domain
    was built with, so a run resumes bitwise from a step number alone.
    """

    @property
    def name(self) -> str:
        """The domain's name in configs."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Knows the step builder's special tokens."""
        ...

    @property
    def oracle(self) -> Oracle:
        """Judges steps of these problems."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of wrong step that the oracle tells apart."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Evaluation splits: "dev", "test", then the out-of-distribution ones."""
        ...

    def corpus(self, index: int) -> Problem:
        """A text that the solver learns from; its authors may be wrong."""
        ...

    def train(self, index: int) -> Problem:
        """A training problem with a correct solution (clean steps for R and G)."""
        ...

    def problems(self, split: str, count: int) -> Sequence[Problem]:
        """The first `count` problems of an evaluation split, correct solutions."""
        ...

    def corrupt(
        self, rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
    ) -> str | None:
        """A static random corruption of a correct step; None where none applies.

        Purely mechanical: knows nothing of the solver and of the rules. The caller
        asks the oracle for the label.
        """
        ...

    def is_final(self, step: str) -> bool:
        """Whether a step concludes a solution."""
        ...

    def answer(self, steps: Sequence[str]) -> str | None:
        """The answer that a solution arrives at; None where there is none."""
        ...

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Whether an extracted answer equals the expected one."""
        ...
