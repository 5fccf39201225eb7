"""A file of step scores as a verifier, looked up by the texts of the solutions.

JSONL, a row a solution, as `job=score` and `python -m aprm_jax.score` write it:

    {"line": 1, "key": "9f…", "scores": [0.98, null]}
    {"prompt": "3 + 4?", "completions": ["7"], "scores": [0.98]}

`scores` are probabilities that each step is correct, null for one that was not scored.
`key` stands for the texts (`data.solutions.solution_key`); other rows hold them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from aprm_jax.data.jsonl import DataError, RowError, parse_row, require_str
from aprm_jax.data.solutions import parse_solution, solution_key
from aprm_jax.data.stream import stream_rows
from aprm_jax.verifiers.protocol import Pairs, Scale, logit

_ROUNDING = 0.02  # between two batches that one model read, of half precision at most


@dataclasses.dataclass(frozen=True)
class ScoreFileVerifier:
    """Scores that were written before; NaN for the steps of a solution without any.

    It holds some hundred bytes and eight a step for each row of the file.
    """

    path: Path
    scores: Mapping[str, Float[np.ndarray, " _"]]
    scale: Scale = Scale.LOG_ODDS

    @classmethod
    def read(cls, path: str | Path) -> ScoreFileVerifier:
        """Reads a file.

        Raises:
          DataError: a row is malformed, names no solution, or names one again with
            other scores than rounding explains; names the file and the line.
        """
        found: dict[str, np.ndarray] = {}
        for row in stream_rows(path):
            where = f"{path}, line {row.line}"
            try:
                key, scores = parse_row(row, _parse, row.line)
            except RowError as error:
                raise DataError(f"{where}: {error}") from None
            known = found.setdefault(key, scores)
            close = known.shape == scores.shape and np.allclose(
                known, scores, rtol=0, atol=_ROUNDING, equal_nan=True
            )
            if not close:
                raise DataError(f"{where}: the solution is there twice, scored anew")
        if not found:
            raise DataError(f"{path}: no rows")
        return cls(Path(path), found)

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`.

        Raises:
          DataError: the file has another number of scores than a solution has steps.
        """
        return [logit(self._found(*pair)) for pair in solutions]

    def _found(self, question: str, steps: tuple[str, ...]) -> np.ndarray:
        key = solution_key(question, steps)
        scores = self.scores.get(key, np.full(len(steps), np.nan))
        if len(scores) != len(steps):
            raise DataError(
                f"{self.path}, key {key}: {len(scores)} scores of {len(steps)} steps"
            )
        return scores


def parse_scores(row: Mapping[str, Any]) -> Float[np.ndarray, " _"]:
    """The field `scores`: probabilities, NaN for null.

    Raises:
      RowError: one is none.
    """
    values = row.get("scores")
    if not isinstance(values, list):
        raise RowError("field 'scores' must be a list of numbers")
    for k, value in enumerate(values):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RowError(f"score {k} must be a number, not {type(value).__name__}")
        if not 0 <= value <= 1:
            raise RowError(f"score {k} must be a probability in [0, 1], not {value!r}")
    numbers = [math.nan if value is None else value for value in values]
    return np.asarray(numbers, np.float64)


def written_scores(probabilities: Float[np.ndarray, " _"]) -> list[float | None]:
    """The field `scores` of a row."""
    return [None if math.isnan(p) else float(p) for p in probabilities]


def _parse(row: dict, line: int) -> tuple[str, np.ndarray]:
    scores = parse_scores(row)
    if "key" in row:
        return require_str(row, "key"), scores
    solution = parse_solution(row, line)
    if len(solution.steps) != len(scores):
        raise RowError(f"{len(scores)} scores of {len(solution.steps)} steps")
    return solution.key, scores
