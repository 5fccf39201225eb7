"""What a solver is, and what it writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from aprm_jax.sampling.methods import Truncation

# A question, and the steps that a solution begins with.
Start = tuple[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Solution:
    """One sampled solution.

    Attributes:
      question: the problem.
      steps: its steps, the given prefix included.
      finished: whether its last step concludes it.
      tokens: of each sampled step, the ids that were drawn, the stop included; empty
        where the solver does not tell them.
      logprobs: of these tokens, see `Samples.logprobs`.
    """

    question: str
    steps: tuple[str, ...]
    finished: bool
    tokens: tuple[tuple[int, ...], ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()

    @property
    def min_logprob(self) -> tuple[float, ...]:
        """Of each sampled step, its least token log-probability."""
        return tuple(min(step) for step in self.logprobs)

    @property
    def sum_logprob(self) -> tuple[float, ...]:
        """Of each sampled step, its log-probability."""
        return tuple(sum(step) for step in self.logprobs)


@runtime_checkable
class Solver(Protocol):
    """Writes solutions; text is all that others need to know of it."""

    def solve(
        self,
        starts: Sequence[Start],
        count: int,
        key: Any,
        *,
        max_steps: int,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
    ) -> list[list[Solution]]:
        """Completes each start `count` times.

        A solution ends with a concluding step, after `max_steps` steps, or where the
        solver has no room for another; the latter two are unfinished. What solution k
        of start i gets depends on (key, i, k), not on the others or on `count`.

        Args:
          starts: (question, prefix) of each.
          count: solutions a start.
          key: of the whole request.
          max_steps: most steps of a solution, the prefix included.
          temperature: 0 is greedy.
          truncation: which tokens may be drawn; None for all.

        Returns:
          `count` solutions for each start.
        """
        ...
