"""Solutions as they were written: rows of the ids that were sampled, never re-encoded.

Text that is encoded again may become other tokens, and the policy would learn from what
it never chose. Each sampled step follows the very context that it was drawn for. Where
that context is what stands there already, the step goes on from there; else, as with a
window, it begins a segment of its own.

A few solutions of one problem stand in a row, and what they have in common is read
once: a context that several go on from, and what was written twice.

Axes: B rows, K solutions of a row, T tokens of a solution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.struct
import numpy as np
from jaxtyping import Array, Float32, Int32

from aprm_jax.data.rows import StepBatch, StepRow, concatenate
from aprm_jax.data.steps import StepBuilder
from aprm_jax.solvers.protocol import Solution

SHORTEST = 64  # row that is compiled for
FEWEST = 16  # tokens of a solution, likewise
MOST_SHARING = 4  # solutions a row: of more, attention costs what is saved


@dataclasses.dataclass(frozen=True)
class Segment:
    """What was sampled in one go, and the context that it was drawn for."""

    context: tuple[int, ...]
    drawn: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A solution as it was sampled. T tokens.

    Attributes:
      segments: of these tokens, in order.
      step_ids: the step of each.
      logprobs: the sampler's.
    """

    segments: tuple[Segment, ...]
    step_ids: Int32[np.ndarray, " T"]
    logprobs: Float32[np.ndarray, " T"]

    @property
    def num_tokens(self) -> int:
        """How many were sampled."""
        return len(self.step_ids)


@flax.struct.dataclass
class SolutionRows:
    """Rows of solutions that share what they have in common."""

    rows: StepBatch  # what was sampled are its steps
    # Where in its row each sampled token stands; -1 past the end.
    columns: Int32[Array | np.ndarray, "B K T"]
    step_ids: Int32[Array | np.ndarray, "B K T"]  # of its solution; -1 past the end
    sampler_logprobs: Float32[Array | np.ndarray, "B K T"]


def trajectory(builder: StepBuilder, solution: Solution) -> Trajectory | None:
    """What was sampled of a solution; None where nothing was.

    Args:
      builder: of the solver that sampled it.
      solution: without a given prefix, with its tokens and log-probabilities.
    """
    if not any(solution.tokens):
        return None
    segments: list[Segment] = []
    for k, ids in enumerate(solution.tokens):
        context = tuple(builder.context(solution.question, solution.steps[:k]))
        if segments and _goes_on(builder, segments[-1], context):
            last = segments.pop()
            segments.append(Segment(last.context, (*last.drawn, *ids)))
        else:
            segments.append(Segment(context, tuple(ids)))
    lengths = [len(ids) for ids in solution.tokens]
    return Trajectory(
        tuple(segments),
        np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        np.array([x for part in solution.logprobs for x in part], np.float32),
    )


def _goes_on(builder: StepBuilder, last: Segment, context: tuple[int, ...]) -> bool:
    """Whether a context is what stands there already, at its positions."""
    if (*last.context, *last.drawn) != context:
        return False
    there = builder.continuation(last.context, last.drawn).positions
    return np.array_equal(there, builder.positions(context))


def together(groups: int, size: int, parts: int) -> list[list[int]]:
    """Which solutions share a row, a few of one problem: indices of each row's.

    Args:
      groups: problems.
      size: solutions of each; those of problem g are `size` from g * `size`.
      parts: that rows are dealt out to, evenly where that can be.
    """
    fewest = -(-size // MOST_SHARING)  # rows a problem
    each = [n for n in range(fewest, size) if groups * n % parts == 0]
    of_one = np.array_split(np.arange(size), each[0] if each else size)
    return [(g * size + row).tolist() for g in range(groups) for row in of_one]


def collated(
    builder: StepBuilder,
    trajectories: Sequence[Sequence[Trajectory | None]],
    max_steps: int,
    batch_size: int,
    branch: bool = True,
) -> SolutionRows:
    """Rows padded to one of a few lengths.

    Args:
      builder: of the solver that sampled them.
      trajectories: those of each row, at least one; None for nothing.
      max_steps: of a solution.
      batch_size: B; missing rows are padding.
      branch: whether what goes on from one context may share it.
    """
    made = [_row(builder, of_row, branch) for of_row in trajectories]
    rows = [row for row, _ in made]
    most = max(map(len, trajectories))
    length = row_length(max(map(len, rows)), SHORTEST)
    batch = builder.collate(
        rows, length=length, max_steps=most * max_steps, batch_size=batch_size
    )
    if branch and batch.ends is None:  # the same program for all batches
        ends = np.full(batch.tokens.shape, length - 1, np.int32)
        batch = dataclasses.replace(batch, ends=ends)
    known = [t for of_row in trajectories for t in of_row if t is not None]
    width = row_length(max((t.num_tokens for t in known), default=1), FEWEST)
    shape = batch_size, most, width
    columns, step_ids = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    logprobs = np.zeros(shape, np.float32)
    for b, (of_row, (_, places)) in enumerate(zip(trajectories, made, strict=True)):
        for k, (t, place) in enumerate(zip(of_row, places, strict=True)):
            if t is not None:
                end = t.num_tokens
                columns[b, k, :end] = place
                step_ids[b, k, :end] = t.step_ids
                logprobs[b, k, :end] = t.logprobs
    return SolutionRows(batch, columns, step_ids, logprobs)


def _row(
    builder: StepBuilder, trajectories: Sequence[Trajectory | None], branch: bool
) -> tuple[StepRow, list[Int32[np.ndarray, " _"]]]:
    """A row that holds each segment once, and where the tokens of each solution are."""
    segments = dict.fromkeys(s for t in trajectories if t for s in t.segments)
    together: dict[object, list[Segment]] = {}
    for segment in segments:
        key = segment.context if branch else segment
        together.setdefault(key, []).append(segment)
    rows, places, column = [], {}, 0
    for of_context in together.values():
        context = of_context[0].context
        rows.append(builder.continuation(context, *(s.drawn for s in of_context)))
        column += len(context)
        for segment in of_context:
            end = column + len(segment.drawn)
            places[segment] = np.arange(column, end, dtype=np.int32)
            column = end
    if not rows:  # a single token, which is to weigh nothing
        rows = [builder.continuation([builder.bos_id], [builder.step_id])]
    nothing = np.zeros(0, np.int32)
    return concatenate(rows), [
        np.concatenate([places[s] for s in t.segments]) if t else nothing
        for t in trajectories
    ]


def row_length(longest: int, shortest: int) -> int:
    """The least power of two, or one and a half of one, that holds a row."""
    length = shortest
    while length < longest:
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length
