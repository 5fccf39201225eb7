"""What a solver is, and what it writes: whole solutions, or step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

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
      closed: whether its last step is a whole one; False where it was cut off. A
        solution that is closed, unfinished and shorter than was asked for ended where
        its solver had no room for another step.
    """

    question: str
    steps: tuple[str, ...]
    finished: bool
    tokens: tuple[tuple[int, ...], ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()
    closed: bool = True

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
        draws: Sequence[int] | None = None,
    ) -> list[list[Solution]]:
        """Completes each start `count` times.

        A solution ends with a concluding step, after `max_steps` steps, or where the
        solver has no room for another; the latter two are unfinished. What solution k
        of start i gets depends on (key, its draw), not on the others; its draw is
        made of (i, k), or given.

        Args:
          starts: (question, prefix) of each.
          count: solutions a start.
          key: of the whole request.
          max_steps: most steps of a solution, the prefix included.
          temperature: 0 is greedy.
          truncation: which tokens may be drawn; None for all.
          draws: a number for each solution, start by start, from 0 to 2^32 - 1.

        Returns:
          `count` solutions for each start.
        """
        ...


def numbered(starts: int, count: int) -> list[int]:
    """The draw of each solution, start by start: no two are alike.

    It is made of (start, solution), and up to 2^16 of either not of how many there are.
    """
    width = 1 << 16 if max(starts, count) <= 1 << 16 else count
    return [i * width + k for i in range(starts) for k in range(count)]


@dataclasses.dataclass(frozen=True)
class Written:
    """One sampled step of a row.

    Attributes:
      text: of the step; "" where there was no room to write one.
      tokens: the ids that were drawn, the stop included; empty where nobody tells.
      logprobs: of these tokens, see `Samples.logprobs`.
      closed: whether it is a whole step, so that another could follow.
      finished: whether it concludes the solution.
      room: whether there was room to write one: also a step without a text, of which
        nobody tells tokens, was drawn.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    closed: bool = True
    finished: bool = False
    room: bool = True


NO_ROOM = Written("", closed=False, room=False)


@dataclasses.dataclass
class StepRows:
    """Rows that go on step by step; what more a solver or verifier keeps of them.

    Attributes:
      prefilled: of each row, the tokens that the call that made this state read for
        it, drawn ones left out; what several rows share is counted with the first.
      num_bytes: of the caches that are held.
      oracle_calls: of each row, verdicts that the call asked for; empty for none.
      attention: of each row, the operations that the call spent on tokens that see
        others, beside those a token; empty where unknown.
      rewards: of each row, what a verifier pays for its last step where that is not
        its score; a search then orders by it. Empty for none.
    """

    prefilled: tuple[int, ...]
    num_bytes: int = 0
    oracle_calls: tuple[int, ...] = ()
    attention: tuple[float, ...] = dataclasses.field(default=(), kw_only=True)
    rewards: tuple[float, ...] = dataclasses.field(default=(), kw_only=True)


Rows = TypeVar("Rows", bound=StepRows)


@runtime_checkable
class StepSolver(Protocol[Rows]):
    """Writes solutions step by step: the rows of a state are open solutions.

    A call makes a new state; the one that it was given is not used again.
    """

    @property
    def flops_per_token(self) -> float:
        """Of a forward pass, 2 for each parameter that multiplies; 0 if unknown."""
        ...

    def begin(self, starts: Sequence[Start], rows: Rows | None = None) -> Rows:
        """A row for each start. A tree method enters a branch anew with its path.

        Args:
          starts: (question, steps) of each.
          rows: of a state that is not used again; what it holds need not be read anew.
        """
        ...

    def extend(
        self,
        rows: Rows,
        parents: Sequence[int],
        draws: Sequence[int],
        key: Any,
        *,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
    ) -> tuple[Rows, list[Written]]:
        """Copies rows and samples one more step of each copy.

        What a row gets depends on (key, its draw) and its own lines, not on the
        others; it is what `Solver.solve` samples first with this key and draw.

        Args:
          rows: the state.
          parents: which of its rows go on: may repeat, and leave rows out; each
            closed and unfinished.
          draws: a number for each new row, from 0 to 2^32 - 1.
          key: of the whole request.
          temperature: 0 is greedy.
          truncation: which tokens may be drawn; None for all.

        Returns:
          A state with a row for each parent, and the step that each got.
        """
        ...
