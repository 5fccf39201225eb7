"""A solution while a solver writes it, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aprm_jax.solvers.protocol import Solution, Start, Written, numbered


@dataclasses.dataclass
class Partial:
    """A solution that is being written while it `goes_on`.

    Attributes:
      question: the problem.
      steps: the prefix, then what was written.
      draw: picks its randomness, whichever others are still unfinished.
      finished: whether its last step concludes it.
      closed: whether that is a whole step.
      room: whether there is room for another.
      tokens: of each sampled step; empty where nobody tells.
      logprobs: likewise.
    """

    question: str
    steps: list[str]
    draw: int
    finished: bool = False
    closed: bool = True
    room: bool = True
    tokens: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    logprobs: list[tuple[float, ...]] = dataclasses.field(default_factory=list)

    @property
    def start(self) -> Start:
        """What the next step goes on from."""
        return self.question, tuple(self.steps)

    @property
    def goes_on(self) -> bool:
        """Whether another step may follow, as far as the last one and the room go."""
        return self.closed and self.room and not self.finished

    def add(self, written: Written) -> None:
        """One more step, or that there was no room for one."""
        self.room = written.room
        if not written.room:  # the last step is as whole as it was
            return
        self.closed, self.finished = written.closed, written.finished
        self.steps.append(written.text)
        self.tokens.append(written.tokens)
        self.logprobs.append(written.logprobs)

    def solution(self) -> Solution:
        """As it is now; with ids and log-probabilities if it was told of all steps."""
        return Solution(
            self.question,
            tuple(self.steps),
            self.finished,
            tuple(self.tokens) if all(self.tokens) else (),
            tuple(self.logprobs) if all(self.logprobs) else (),
            self.closed,
        )


def begun(
    starts: Sequence[Start], count: int, draws: Sequence[int] | None
) -> list[Partial]:
    """`count` solutions of each start, see `Solver.solve`; nothing is written yet."""
    wanted = [start for start in starts for _ in range(count)]
    if draws is None:
        draws = numbered(len(starts), count)
    return [
        Partial(question, list(prefix), draw)
        for (question, prefix), draw in zip(wanted, draws, strict=True)
    ]


def ended(partial: Sequence[Partial], count: int) -> list[list[Solution]]:
    """The solutions of `begun`, start by start."""
    out = [p.solution() for p in partial]
    return [out[i : i + count] for i in range(0, len(out), count)]
