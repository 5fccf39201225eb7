"""What there is to solve: four small protocols, and the domain that offers them all.

Whoever samples solutions needs a `Grader` alone, whoever attacks a PRM `Problems` and a
`StepOracle`, whoever makes static negatives a `Corruptor` too. Every method is a pure
function of its arguments and of the seed that the object was built with, so a run
resumes bitwise from a step number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.problem import Problem
from aprm_jax.oracle.verdict import Oracle as StepOracle

__all__ = ["Corruptor", "Domain", "Grader", "Problems", "StepOracle"]


@runtime_checkable
class Problems(Protocol):
    """Problems that can be drawn by index: position in the data is one integer.

    A problem without a solution has one step, which states its answer.
    """

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


@runtime_checkable
class Grader(Protocol):
    """Tells where a solution ends, what it answers, and whether answers agree."""

    def is_final(self, step: str) -> bool:
        """Whether a step concludes a solution."""
        ...

    def answer(self, steps: Sequence[str]) -> str | None:
        """The answer that a solution arrives at; None where there is none."""
        ...

    def same_answer(self, given: str | None, expected: str) -> bool:
        """Whether an extracted answer equals the expected one."""
        ...


@runtime_checkable
class Corruptor(Protocol):
    """Makes wrong steps out of right ones, at random."""

    def corrupt(
        self, rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
    ) -> str | None:
        """A static random corruption of a correct step; None where none applies.

        Purely mechanical: knows nothing of the solver and of the rules. The caller
        asks the oracle for the label.
        """
        ...


@runtime_checkable
class Domain(Problems, Grader, Corruptor, Protocol):
    """Everything that a run needs to know of its problems."""

    @property
    def name(self) -> str:
        """The domain's name in configs."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Knows the step builder's special tokens."""
        ...

    @property
    def oracle(self) -> StepOracle:
        """Judges steps of these problems."""
        ...

    @property
    def held_out(self) -> frozenset[str]:
        """`question_id` of all that `is_held_out`; empty where these have no end."""
        ...

    def is_held_out(self, question: str) -> bool:
        """Whether a question is one of an evaluation split: nothing may learn it."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of wrong step that the oracle tells apart."""
        ...
