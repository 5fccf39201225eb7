"""What a round of RL is about: problems, who solves them, and what was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Bool

from aprm_jax.data.problem import Problem
from aprm_jax.data.steps import StepBuilder
from aprm_jax.models.decoder import Decoder
from aprm_jax.rl.trajectories import Trajectory
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.protocols import Grader, Problems
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.protocol import Verifier


@dataclasses.dataclass(frozen=True)
class Task:
    """What is solved, by whom, on which devices.

    Attributes:
      problems: to train on, and the dev split.
      grader: reads answers.
      solver: as it starts; its parameters are replaced in every round.
      decoder: its module.
      mesh: the devices.
      max_steps: of a solution.
    """

    problems: Problems
    grader: Grader
    solver: LocalSolver
    decoder: Decoder
    mesh: jax.sharding.Mesh
    max_steps: int

    @property
    def builder(self) -> StepBuilder:
        """The solver's."""
        return self.solver.builder

    @property
    def most_tokens(self) -> int:
        """Of a solution."""
        return self.max_steps * self.solver.sampler.max_new_tokens

    def solve(
        self, backbone: Any, problems: Sequence[Problem], count: int, key: Any
    ) -> list[list[Solution]]:
        """`count` solutions of each problem at temperature 1, untruncated."""
        solver = dataclasses.replace(self.solver, backbone=backbone)
        starts = [(problem.question, ()) for problem in problems]
        return solver.solve(starts, count, key, max_steps=self.max_steps)

    def right(
        self, problems: Sequence[Problem], solutions: Sequence[Sequence[Solution]]
    ) -> Bool[np.ndarray, "P M"]:
        """Whether each is finished and has the right answer; equal ones are read once.

        What the grader cannot decide is not right.
        """
        known: dict[tuple[str, str | None], bool] = {}

        def one(problem: Problem, solution: Solution) -> bool:
            if not solution.finished:
                return False
            given = self.grader.answer(solution.steps)
            pair = problem.answer, given
            if pair not in known:
                known[pair] = bool(self.grader.same_answer(given, problem.answer))
            return known[pair]

        rows = zip(problems, solutions, strict=True)
        return np.array([[one(p, s) for s in row] for p, row in rows], bool)


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A round's solutions, problem by problem."""

    problems: list[Problem]
    solutions: list[list[Solution]]
    trajectories: list[Trajectory | None]

    @property
    def flat(self) -> list[Solution]:
        """All solutions; those of problem g are `group_size` from g * `group_size`."""
        return [s for row in self.solutions for s in row]


class Rollouts(Protocol):
    """Draws a round's solutions outside of this process."""

    every: int  # rounds that are drawn with the same weights

    def solve(
        self,
        trained: Any,
        version: int,
        problems: Sequence[Problem],
        count: int,
        key: Any,
    ) -> list[list[Solution]]:
        """`count` solutions of each problem, at temperature 1, untruncated.

        Args:
          trained: the parameters that are learned.
          version: of them; what has been told of one need not be told again.
          problems: that are solved.
          count: of each.
          key: of the whole request.

        Returns:
          Solutions with the ids that were drawn and their log-probabilities.
        """
        ...


class Guard(Protocol):
    """Trains the verifier further while the policy searches for its mistakes."""

    state: Any  # before the first round

    def verifier(self, state: Any) -> Verifier:
        """What it has become."""
        ...

    def play(
        self,
        state: Any,
        step: int,
        timer: PhaseTimer,
        solutions: Sequence[Solution],
    ) -> tuple[Any, dict[str, Any]]:
        """One round of its own, `solutions` being what the policy has just written."""
        ...
