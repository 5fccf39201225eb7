"""An oracle that knows what people said of steps, and asks another about the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Verdict, correct, incorrect

RATED_WRONG = "rated_wrong"  # a kind of wrong step: people say so


class Mistake(NamedTuple):
    """A step that people call wrong, and one at the same place that they call right."""

    question: str
    prefix: tuple[str, ...]
    right: str
    wrong: str


class RatedOracle:
    """People's word on the steps that they labelled, a text oracle's on all others.

    A step that anybody called wrong is wrong. Steps are compared word by word.

    Args:
      solutions: with their labels; a step without one is not labelled.
      text: judges the other steps.
      cut: labels below it are wrong.
    """

    def __init__(
        self, solutions: Sequence[LabelledSolution], text: TextOracle, cut: float
    ):
        self._text, self._cut = text, cut
        # Of each place, the steps there: as they were first typed, and the least label.
        self._rated: dict[
            tuple[str, tuple[str, ...]], dict[str, tuple[str, float]]
        ] = {}
        for solution in solutions:
            for k, label in enumerate(solution.labels):
                if not np.isnan(label):
                    self._add(solution.question, solution.steps[: k + 1], float(label))
                if label < cut:
                    break  # what follows an error is not asked about

    def _add(self, question: str, steps: Sequence[str], label: float) -> None:
        *prefix, step = steps
        there = self._rated.setdefault((question, tuple(prefix)), {})
        first, least = there.get(_words(step), (step, label))
        there[_words(step)] = first, min(least, label)

    def judge(
        self, question: str, prefix: Sequence[str], original: str | None, candidate: str
    ) -> Verdict:
        """See `Oracle.judge`."""
        return self.submit(question, prefix, original, candidate).result()

    def submit(
        self, question: str, prefix: Sequence[str], original: str | None, candidate: str
    ) -> Future[Verdict]:
        """As `judge`, without waiting; see `TextOracle.submit`."""
        steps = self._rated.get((question, tuple(prefix)), {})
        rated = steps.get(_words(candidate))
        if rated is None or (original and _words(original) == _words(candidate)):
            return self._text.submit(question, prefix, original, candidate)
        future: Future[Verdict] = Future()
        if rated[1] < self._cut:
            future.set_result(incorrect(RATED_WRONG, "people call it wrong"))
        else:
            future.set_result(correct("people call it right"))
        return future

    def mistakes(self) -> Iterator[Mistake]:
        """Each wrong step beside the first right one there of the greatest label."""
        for (question, prefix), steps in self._rated.items():
            right, best = max(steps.values(), key=lambda step: step[1])
            for text, label in steps.values():
                if label < self._cut <= best:
                    yield Mistake(question, prefix, right, text)


def _words(step: str) -> str:
    return " ".join(step.split())
