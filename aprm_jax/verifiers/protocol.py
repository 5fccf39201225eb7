"""What a verifier is: it scores steps, and says what its scores are."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import scipy.special
from jaxtyping import Float

from aprm_jax.solvers.protocol import Rows, Start

Pairs = Sequence[tuple[str, tuple[str, ...]]]  # (question, steps) of solutions
StepScores = Float[np.ndarray, " _"]  # one a step of a solution
Row = TypeVar("Row")
_TINY = 1e-12  # keeps the log-odds of a stated probability of 0 or 1 finite


class Scale(enum.Enum):
    """What scores on the real line are; see the methods.

    Scores stay as they are until somebody asks: probabilities of float32 round to 1,
    where the order of steps is lost.
    """

    LOG_ODDS = "log_odds"
    LOG_PROBABILITY = "log_probability"

    def probability(self, scores: Any) -> Float[np.ndarray, "*shape"]:
        """P(correct), as the verifier states it; NaN stays NaN."""
        values = np.asarray(scores, np.float64)
        odds = self is Scale.LOG_ODDS
        return scipy.special.expit(values) if odds else np.exp(values)

    def log_probability(self, scores: Any) -> Float[np.ndarray, "*shape"]:
        """Log P(correct), at most 0, exact at both ends: what aggregation takes."""
        values = np.asarray(scores, np.float64)
        return scipy.special.log_expit(values) if self is Scale.LOG_ODDS else values

    def log_shortfall(self, scores: Any) -> Float[np.ndarray, "*shape"]:
        """Log P(incorrect), exact at both ends likewise; -inf where P(correct) is 1."""
        if self is Scale.LOG_ODDS:
            return scipy.special.log_expit(-np.asarray(scores, np.float64))
        values = np.asarray(scores, np.float64)
        with np.errstate(divide="ignore"):
            return np.log(-np.expm1(np.minimum(values, 0.0)))


@runtime_checkable
class Verifier(Protocol):
    """Scores the steps of solutions; text is all that it is given."""

    @property
    def scale(self) -> Scale:
        """What its scores are."""
        ...

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """One array a solution, one score a step; NaN for a step that was not read."""
        ...


@runtime_checkable
class StepVerifier(Protocol[Rows]):
    """Scores solutions step by step, as they are written: it reads the new step only.

    A call makes a new state; the one that it was given is not used again.
    """

    @property
    def scale(self) -> Scale:
        """What its scores are."""
        ...

    @property
    def flops_per_token(self) -> float:
        """Of a forward pass, 2 for each parameter that multiplies; 0 if unknown."""
        ...

    def begin(
        self, starts: Sequence[Start], rows: Rows | None = None
    ) -> tuple[Rows, Float[np.ndarray, " N"]]:
        """A row for each start, and the score of what it ends with.

        That is its last step, or the bare question, which has no score (NaN) but where
        a verifier says how good a question is. `rows` are as of `StepSolver.begin`.
        """
        ...

    def read(
        self, rows: Rows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[Rows, Float[np.ndarray, " N"]]:
        """Copies rows and reads one more step of each copy.

        Args:
          rows: the state.
          parents: which of its rows go on: may repeat, and leave rows out.
          steps: the new step of each.

        Returns:
          A state with a row for each parent, and the score of each new step: what
          `Verifier.score` gives it in the whole solution. NaN where it was not read,
          because it does not fit; what follows it is not read either.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Scored(Generic[Row]):
    """What a verifier said of solutions.

    Attributes:
      scale: of the scores.
      rows: one array a solution, one score a step, NaN where unscored; or lists of
        such arrays.
      aggregation: to a solution's score, as suits the verifier.
    """

    scale: Scale
    rows: list[Row]
    aggregation: str = "min"

    @classmethod
    def by(cls, verifier: Verifier, solutions: Pairs) -> Scored[StepScores]:
        """What `verifier` says, an array a solution."""
        how = getattr(verifier, "aggregation", "min")
        return Scored(verifier.scale, verifier.score(solutions), how)

    @classmethod
    def stated(cls, probabilities: Sequence[StepScores]) -> Scored[StepScores]:
        """Of P(correct) by row, such as a file gives; NaN where unscored."""
        return Scored(Scale.LOG_ODDS, [logit(row) for row in probabilities])

    def probabilities(self: Scored[StepScores]) -> list[StepScores]:
        """P(correct) of every step."""
        return [self.scale.probability(row) for row in self.rows]


def ends(verifier: Verifier, solutions: Pairs) -> Float[np.ndarray, " N"]:
    """The score of what each solution ends with: its last step, or the bare question.

    The latter is NaN, but where a verifier has `questions`: scores of bare ones.
    """
    out = np.full(len(solutions), math.nan)
    stepped = [i for i, (_, steps) in enumerate(solutions) if steps]
    if stepped:
        scored = verifier.score([solutions[i] for i in stepped])
        out[stepped] = [row[-1] for row in scored]
    bare = [i for i, (_, steps) in enumerate(solutions) if not steps]
    read = getattr(verifier, "questions", None)
    if bare and read is not None:
        out[bare] = read([solutions[i][0] for i in bare])
    return out


def logit(probabilities: Any) -> Float[np.ndarray, "*shape"]:
    """The log-odds of stated probabilities, finite at 0 and 1; NaN stays NaN."""
    values = np.asarray(probabilities, np.float64)
    return scipy.special.logit(np.clip(values, _TINY, 1 - _TINY))
