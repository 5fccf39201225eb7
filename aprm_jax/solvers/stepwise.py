"""Any solver step by step, without a cache: each step reads its whole prompt again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.flops import attention_flops, forward_flops
from aprm_jax.sampling.methods import Truncation
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import (
    NO_ROOM,
    Solution,
    Solver,
    Start,
    StepRows,
    Written,
)


@dataclasses.dataclass
class TextRows(StepRows):
    """Rows that are nothing but text.

    Attributes:
      starts: (question, steps) of each.
    """

    starts: tuple[Start, ...] = ()


@dataclasses.dataclass(frozen=True)
class UncachedSolver:
    """Implements `StepSolver`: the solver is asked for one more step of each row.

    Attributes:
      solver: writes it.
      prompt_tokens: how many tokens it reads of (question, steps).
      flops_per_token: see `StepSolver`.
      config: of a model in this process, whose attention is counted.
    """

    solver: Solver
    prompt_tokens: Callable[[str, Sequence[str]], int] = lambda question, steps: 0
    flops_per_token: float = 0.0
    config: DecoderConfig | None = None

    @classmethod
    def of(cls, solver: Solver) -> UncachedSolver:
        """With what a model in this process tells of itself."""
        if not isinstance(solver, LocalSolver):
            return cls(solver)
        return cls(
            solver,
            lambda question, steps: len(solver.builder.context(question, steps)),
            forward_flops(solver.backbone, unembeds=True),
            solver.sampler.config,
        )

    def begin(self, starts: Sequence[Start], rows: TextRows | None = None) -> TextRows:
        """See `StepSolver.begin`; nothing is read yet."""
        return TextRows((0,) * len(starts), starts=tuple(starts))

    def extend(
        self,
        rows: TextRows,
        parents: Sequence[int],
        draws: Sequence[int],
        key: Any,
        *,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
    ) -> tuple[TextRows, list[Written]]:
        """See `StepSolver.extend`; rows of equal length go together."""
        wanted = [rows.starts[parent] for parent in parents]
        written: dict[int, Written] = {}
        for depth in sorted({len(steps) for _, steps in wanted}):
            these = [i for i, (_, steps) in enumerate(wanted) if len(steps) == depth]
            solved = self.solver.solve(
                [wanted[i] for i in these],
                1,
                key,
                max_steps=depth + 1,
                temperature=temperature,
                truncation=truncation,
                draws=[draws[i] for i in these],
            )
            for i, (solution,) in zip(these, solved, strict=True):
                written[i] = _last(solution, depth)
        steps = [written[i] for i in range(len(wanted))]
        after = [
            (question, (*before, step.text) if step.closed else tuple(before))
            for (question, before), step in zip(wanted, steps, strict=True)
        ]
        # A prompt without room for a step was never read.
        read = [
            self.prompt_tokens(*start) if step.room else 0
            for start, step in zip(wanted, steps, strict=True)
        ]
        sizes = [n + len(step.tokens) for n, step in zip(read, steps, strict=True)]
        rows = TextRows(tuple(read), starts=tuple(after))
        rows.attention = whole_attention(self.config, sizes)
        return rows, steps


def whole_attention(
    config: DecoderConfig | None, sizes: Sequence[int]
) -> tuple[float, ...]:
    """`StepRows.attention` of rows that are read from their first token."""
    return tuple(attention_flops(config, n, n) for n in sizes) if config else ()


def _last(solution: Solution, depth: int) -> Written:
    """The step that was sampled after `depth` others."""
    if len(solution.steps) == depth:
        return NO_ROOM
    return Written(
        solution.steps[depth],
        solution.tokens[0] if solution.tokens else (),
        solution.logprobs[0] if solution.logprobs else (),
        solution.closed,
        solution.finished,
    )
