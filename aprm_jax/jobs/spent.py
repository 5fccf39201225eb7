"""What a stage takes to learn: verdicts of the oracle, tokens of a model, compute."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from aprm_jax.models.flops import Compute
from aprm_jax.oracle.verdict import Verdict
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import Solution, Solver, Start
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.training.metrics import read_metrics


@dataclasses.dataclass
class Spent:
    """What a stage spent; what is drawn and judged to measure alone is left out.

    Attributes:
      oracle_calls: verdicts on steps that the oracle was asked for. A comparison with
        a known answer is none.
      sampled_tokens: drawn from a solver or a Generator, what closes a step included;
        of a server, which does not tell its tokens, none.
      trained_tokens, read_tokens, flops: see `Compute`; of a server none. Counted by
        job=sft, prm, aprm and search, whose flops have its attention too, a few
        percent; 0 elsewhere, but for a PAV's updates.
    """

    oracle_calls: int = 0
    sampled_tokens: int = 0
    trained_tokens: int = 0
    read_tokens: int = 0
    flops: int = 0

    def add(self, other: Spent | Compute) -> None:
        """So much more."""
        for name, value in dataclasses.asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @classmethod
    def of_metrics(cls, directory: str | os.PathLike[str], group: str) -> Spent:
        """The sum over a training's steps, those before a kill too.

        Args:
          directory: the stage's, with its metrics.
          group: opens the names of the metrics, as in "game/oracle_calls".
        """
        rows = read_metrics(directory)
        sums = {
            field.name: sum(row.get(f"{group}/{field.name}", 0) for row in rows)
            for field in dataclasses.fields(cls)
        }
        return cls(**{name: int(total) for name, total in sums.items()})

    def to_json(self) -> dict[str, int]:
        """Its fields."""
        return dataclasses.asdict(self)


class CountedOracle:
    """An oracle that counts its verdicts.

    Attributes:
      calls: how many it was asked for.
    """

    def __init__(self, oracle: StepOracle):
        self.calls, self._oracle = 0, oracle

    def judge(
        self, question: str, prefix: Sequence[str], original: str | None, candidate: str
    ) -> Verdict:
        """What the oracle says."""
        self.calls += 1
        return self._oracle.judge(question, prefix, original, candidate)


class CountedSolver:
    """A solver that counts what it draws.

    Attributes:
      tokens: how many.
    """

    def __init__(self, solver: Solver):
        self.tokens, self._solver = 0, solver
        self._before = solver.tokens_read if isinstance(solver, LocalSolver) else 0

    @property
    def spent(self) -> Spent:
        """What it drew, and what that took of a model in this process."""
        found, solver = Spent(sampled_tokens=self.tokens), self._solver
        if isinstance(solver, LocalSolver):
            read = self.tokens + solver.tokens_read - self._before
            found.add(Compute.of(solver.flops_per_token, read=read))
        return found

    def solve(
        self, starts: Sequence[Start], count: int, key: Any, **options: Any
    ) -> list[list[Solution]]:
        """See `Solver.solve`."""
        found = self._solver.solve(starts, count, key, **options)
        steps = (step for row in found for s in row for step in s.tokens)
        self.tokens += sum(map(len, steps))
        return found
