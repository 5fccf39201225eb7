"""What a verifier is: it scores steps, and says what its scores are."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import scipy.special
from jaxtyping import Float

from aprm_jax.config.errors import UserError
from aprm_jax.solvers.protocol import Rows, Start

Pairs = Sequence[tuple[str, tuple[str, ...]]]  # (question, steps) of solutions
StepScores = Float[np.ndarray, " _"]  # one a step of a solution
Row = TypeVar("Row")
_TINY = 1e-12  # keeps the log-odds of a stated probability of 0 or 1 finite
_ROUNDING = 1e-6  # by which a log-probability may lie above 0


class VerifierError(UserError, ValueError):
    """A verifier does not answer as its protocol says; tells what would be right."""


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
        """One array a solution, one score a step; NaN for a step that was not read.

        Whoever wants them asks `scores_of`, which checks them. Infinite is certain.
        """
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
        """What `verifier` says, an array a solution.

        Raises:
          VerifierError: see `scores_of`.
        """
        how = getattr(verifier, "aggregation", "min")
        rows = scores_of(verifier, solutions)
        return Scored(verifier.scale, rows, how)

    @classmethod
    def stated(cls, probabilities: Sequence[StepScores]) -> Scored[StepScores]:
        """Of P(correct) by row, such as a file gives; NaN where unscored."""
        return Scored(Scale.LOG_ODDS, [logit(row) for row in probabilities])

    def probabilities(self: Scored[StepScores]) -> list[StepScores]:
        """P(correct) of every step."""
        return [self.scale.probability(row) for row in self.rows]


def scores_of(verifier: Verifier, solutions: Pairs) -> list[StepScores]:
    """What a verifier says of solutions, once it is known to be scores of their steps.

    Raises:
      VerifierError: names the verifier, the solution, and what would be right.
    """
    given: Any = verifier.score(solutions)
    who = f"{type(verifier).__name__}.score"
    right = "right is one array a solution, with one score a step"
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise VerifierError(f"{who} returned {type(given).__name__}; {right}")
    rows = list(given)
    if len(rows) != len(solutions):
        raise VerifierError(
            f"{who} returned {len(rows)} rows of scores for {len(solutions)} "
            f"solution(s); {right}"
        )
    for k, (question, steps) in enumerate(solutions):
        what = f"solution {k}, of {question[:60]!r}"
        rows[k] = checked(rows[k], len(steps), verifier, f"{who}: {what}", "step")
    return rows


def last_scores(
    verifier: StepVerifier[Rows], found: Any, wanted: int
) -> tuple[Rows, Float[np.ndarray, " N"]]:
    """What a `StepVerifier` read, once it is known to be a state and its scores.

    Args:
      verifier: it.
      found: what its `begin` or `read` returned.
      wanted: how many rows it was to read.

    Raises:
      VerifierError: see `scores_of`.
    """
    who = type(verifier).__name__
    if not isinstance(found, tuple) or len(found) != 2:
        raise VerifierError(
            f"{who} returned {type(found).__name__}; right is a pair: the new state, "
            "and one score a row"
        )
    return found[0], checked(found[1], wanted, verifier, who, "row")


def checked(
    given: Any, wanted: int, verifier: Any, who: str, of: str
) -> Float[np.ndarray, " _"]:
    """Scores, `wanted` of them, that are on their verifier's scale; NaN is not read.

    Args:
      given: what should be them.
      wanted: how many are right.
      verifier: whose they are.
      who: the verifier and what it scored, for the message.
      of: what has one each, likewise.

    Raises:
      VerifierError: says what is wrong, and what would be right.
    """
    scale: Any = verifier.scale
    if not isinstance(scale, Scale):
        raise VerifierError(f"{who}: its scale is {scale!r:.60}, and not one of Scale")
    try:
        scores = np.asarray(given)
    except ValueError:  # rows of several lengths
        scores = np.empty((0, 0))
    right = f"right is one a {of}, {wanted}, NaN for a {of} that was not read"
    if scores.ndim == 1 and len(scores) != wanted:
        raise VerifierError(
            f"{who}: {len(scores)} score(s) for {wanted} {of}(s); {right}"
        )
    numbers = scores.dtype.kind in "fiu" or scores.dtype.name == "bfloat16"
    if scores.ndim != 1 or not (numbers or not wanted):
        shown = type(given).__name__ if scores.ndim == 0 else f"{given!r:.60}"
        if isinstance(given, np.ndarray):
            shown = f"an array of {scores.dtype} and shape {scores.shape}"
        raise VerifierError(f"{who}: {shown} is no array of numbers; {right}")
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    if scale is Scale.LOG_PROBABILITY and (above := scores > _ROUNDING).any():
        k = int(above.argmax())
        raise VerifierError(
            f"{who}: score {k} is {scores[k]:g}; a log-probability is at most 0. Of "
            "P(correct) in [0, 1] give np.log, or with Scale.LOG_ODDS `protocol.logit`"
        )
    return scores


def bare_scores(
    verifier: Verifier, questions: Sequence[str]
) -> Float[np.ndarray, " N"]:
    """The score of each bare question: NaN, but where a verifier has `questions`.

    Raises:
      VerifierError: see `scores_of`.
    """
    read = getattr(verifier, "questions", None)
    if read is None:
        return np.full(len(questions), math.nan)
    who = f"{type(verifier).__name__}.questions"
    return checked(read(questions), len(questions), verifier, who, "question")


def ends(verifier: Verifier, solutions: Pairs) -> Float[np.ndarray, " N"]:
    """The score of what each solution ends with: its last step, or the bare question.

    Raises:
      VerifierError: see `scores_of`.
    """
    out = np.full(len(solutions), math.nan)
    stepped = [i for i, (_, steps) in enumerate(solutions) if steps]
    if stepped:
        scored = scores_of(verifier, [solutions[i] for i in stepped])
        out[stepped] = [row[-1] for row in scored]
    bare = [i for i, (_, steps) in enumerate(solutions) if not steps]
    if bare:
        out[bare] = bare_scores(verifier, [solutions[i][0] for i in bare])
    return out


def logit(probabilities: Any) -> Float[np.ndarray, "*shape"]:
    """The log-odds of stated probabilities, finite at 0 and 1; NaN stays NaN."""
    values = np.asarray(probabilities, np.float64)
    return scipy.special.logit(np.clip(values, _TINY, 1 - _TINY))
