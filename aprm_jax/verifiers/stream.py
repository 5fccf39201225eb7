"""Scores solutions as they come, in order: what is held is one batch of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from aprm_jax.data.solutions import GivenCandidates, GivenSolution
from aprm_jax.verifiers.protocol import Scored, StepScores, Verifier
from aprm_jax.verifiers.score_file import written_scores

_MOST_CHARS = 1 << 22  # of a batch's texts; a solution that has more is one by itself


@runtime_checkable
class _Sized(Protocol):
    @property
    def num_chars(self) -> int: ...


Row = TypeVar("Row", bound=_Sized)


def score_stream(
    solutions: Iterable[GivenSolution], verifier: Verifier, rows: int
) -> Iterator[tuple[GivenSolution, Float[np.ndarray, " _"]]]:
    """Each solution with P(correct) of its steps, NaN where unscored.

    Args:
      solutions: taken up one batch at a time.
      verifier: of their steps.
      rows: most solutions of a batch.
    """
    for batch in batches(solutions, rows):
        pairs = [(solution.question, solution.steps) for solution in batch]
        scored: Scored[StepScores] = Scored.by(verifier, pairs)
        yield from zip(batch, scored.probabilities(), strict=True)


def batches(rows: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Rows in lists of at most `most`, and of not too much text."""
    batch: list[Row] = []
    chars = 0
    for row in rows:
        if batch and (len(batch) == most or chars + row.num_chars > _MOST_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(row)
        chars += row.num_chars
    if batch:
        yield batch


def scored_row(
    solution: GivenSolution, probabilities: Float[np.ndarray, " _"]
) -> dict[str, Any]:
    """What is written of a solution; `ScoreFileVerifier` reads it."""
    return written_name(solution) | {"scores": written_scores(probabilities)}


def written_name(row: GivenSolution | GivenCandidates) -> dict[str, Any]:
    """What tells in an output which row of the input it is of."""
    named = {} if row.name is None else {"id": row.name}
    return {"line": row.line, **named, "key": row.key}
