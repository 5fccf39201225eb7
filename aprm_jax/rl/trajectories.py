"""Solutions as they were written: rows of the ids that were sampled, never re-encoded.

Text that is encoded again may become other tokens, and the policy would learn from what
it never chose. A row holds a solution: each sampled step follows the very context that
it was drawn for. Where that context is what the row holds already, the step goes on
from there; else, as with a window, it is a segment of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from aprm_jax.data.rows import UNLABELLED, StepBatch, StepRow
from aprm_jax.data.steps import StepBuilder
from aprm_jax.solvers.protocol import Solution

_SHORTEST = 64  # row that is compiled for


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A solution as a row. T tokens.

    Attributes:
      row: tokens of step k have `step_ids` k, those of contexts -1.
      logprobs: the sampler's, of the steps' tokens; 0 elsewhere.
    """

    row: StepRow
    logprobs: Float32[np.ndarray, " T"]

    @property
    def num_tokens(self) -> int:
        """How many were sampled."""
        return int((self.row.step_ids >= 0).sum())


@dataclasses.dataclass
class _Segment:
    tokens: list[int]
    positions: list[int]
    step_ids: list[int]
    logprobs: list[float]


def trajectory(builder: StepBuilder, solution: Solution) -> Trajectory | None:
    """The row of a sampled solution; None where nothing was sampled.

    Args:
      builder: of the solver that sampled it.
      solution: without a given prefix, with its tokens and log-probabilities.
    """
    segments: list[_Segment] = []
    drawn = zip(solution.tokens, solution.logprobs, strict=True)
    for k, (ids, logprobs) in enumerate(drawn):
        context = builder.context(solution.question, solution.steps[:k])
        before = builder.positions(context).tolist()
        last = segments[-1] if segments else None
        if last is None or (last.tokens, last.positions) != (context, before):
            n = len(context)
            last = _Segment([*context], before, [-1] * n, [0.0] * n)
            segments.append(last)
        start = last.positions[-1] + 1  # as the sampler's count on
        last.tokens += ids
        last.positions += range(start, start + len(ids))
        last.step_ids += [k] * len(ids)
        last.logprobs += logprobs
    if not segments:
        return None

    def joined(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([np.asarray(getattr(s, name), dtype) for s in segments])

    numbers = [np.full(len(s.tokens), i + 1, np.int32) for i, s in enumerate(segments)]
    row = StepRow(
        tokens=joined("tokens", np.int32),
        positions=joined("positions", np.int32),
        segment_ids=np.concatenate(numbers),
        step_ids=joined("step_ids", np.int32),
        labels=np.full(len(solution.tokens), UNLABELLED, np.float32),
    )
    return Trajectory(row, joined("logprobs", np.float32))


def collated(
    builder: StepBuilder,
    trajectories: Sequence[Trajectory | None],
    max_steps: int,
    batch_size: int,
) -> tuple[StepBatch, Float32[np.ndarray, "B T"]]:
    """Rows padded to one of a few lengths, and the sampler's log-probabilities.

    A row that is None becomes one of a single token, which is to weigh nothing.
    """
    empty = builder.continuation([builder.bos_id], [builder.step_id])
    rows = [empty if t is None else t.row for t in trajectories]
    length = row_length(max(map(len, rows)))
    batch = builder.collate(
        rows, length=length, max_steps=max_steps, batch_size=batch_size
    )
    logprobs = np.zeros((batch_size, length), np.float32)
    for padded, known in zip(logprobs, trajectories, strict=False):
        if known is not None:
            padded[: len(known.logprobs)] = known.logprobs
    return batch, logprobs


def row_length(longest: int) -> int:
    """The least power of two, or one and a half of one, that holds a row."""
    length = _SHORTEST
    while length < longest:
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length
