"""A solver that is a model in this process, many problems side by side."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax

from aprm_jax.data.steps import StepBuilder
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.solvers.protocol import Solution, Solver, Start
from aprm_jax.tasks.protocols import Grader


@dataclasses.dataclass
class _Partial:
    question: str
    steps: list[str]
    draw: int  # picks its randomness, whichever others are still unfinished
    finished: bool = False
    dead: bool = False
    tokens: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    logprobs: list[tuple[float, ...]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class LocalSolver(Solver):
    """Samples step by step from a backbone.

    Attributes:
      sampler: of its architecture.
      backbone: its parameters.
      grader: tells which step concludes.
      builder: makes the prompts, and reads the replies.
    """

    sampler: Sampler
    backbone: Any
    grader: Grader
    builder: StepBuilder

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
        """See `Solver.solve`; a depth folds into the key."""
        if draws is None:
            pairs = itertools.product(range(len(starts)), range(count))
            draws = [(i << 16 | k) % (1 << 32) for i, k in pairs]
        wanted = [start for start in starts for _ in range(count)]
        partial = [
            _Partial(question, list(prefix), draw)
            for (question, prefix), draw in zip(wanted, draws, strict=True)
        ]
        for depth in range(max_steps):
            prompts, live = self._open(partial, max_steps)
            if not live:
                break
            samples = self.sampler.sample(
                self.backbone,
                prompts,
                jax.random.fold_in(key, depth),
                temperature=temperature,
                truncation=truncation,
                draws=[state.draw for state in live],
            )
            self._extend(live, samples)
        solutions = [
            Solution(
                p.question,
                tuple(p.steps),
                p.finished,
                tuple(p.tokens),
                tuple(p.logprobs),
                closed=not p.dead,
            )
            for p in partial
        ]
        return [solutions[i : i + count] for i in range(0, len(solutions), count)]

    def _open(
        self, partial: list[_Partial], max_steps: int
    ) -> tuple[list[list[int]], list[_Partial]]:
        """The solutions that go on, and their prompts."""
        prompts, live = [], []
        for state in partial:
            if state.finished or state.dead or len(state.steps) >= max_steps:
                continue
            prompt = self.builder.context(state.question, state.steps)
            state.dead = len(prompt) > self.sampler.prompt_buckets[-1]
            if not state.dead:
                prompts.append(prompt)
                live.append(state)
        return prompts, live

    def _extend(self, live: list[_Partial], samples: Samples) -> None:
        for i, state in enumerate(live):
            reply = self.builder.replies.read(samples.reply(i))
            # An empty line is a bad step, but it is one.
            closed = reply.reason in ("", "empty")
            state.steps.append(reply.text)
            state.tokens.append(reply.ids)
            state.logprobs.append(tuple(reply.logprobs.tolist()))
            # A reply that never closes is no step: nothing sensible can follow it.
            state.dead = not closed
            state.finished = closed and self.grader.is_final(reply.text)
