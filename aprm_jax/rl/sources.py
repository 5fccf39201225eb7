"""Sources of reward: what a verifier or an oracle says of solutions, as pay of steps.

A source pays steps, or a whole solution; `policy` makes advantages of it.

Axes: B solutions, S steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

from aprm_jax.config.errors import UserError
from aprm_jax.config.rl import PayConfig, RLConfig
from aprm_jax.policy import rewards
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.pav import Pav
from aprm_jax.verifiers.protocol import (
    Scale,
    StepScores,
    Verifier,
    bare_scores,
    scores_of,
)
from aprm_jax.verifiers.score_file import ScoreFileVerifier

Needs = Literal["", "solution", "correctness", "steps", "values", "language_model"]


class RewardError(UserError, ValueError):
    """A reward wants another verifier than there is; the message says which."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A kind of reward.

    Attributes:
      needs: what it reads: nothing, a score of whole solutions, scores of steps (that
        say whether they are correct), values, a language model.
      whole: whether it pays a solution, not its steps.
      own: whether a step's return is its own pay, not what is still to come.
    """

    needs: Needs
    whole: bool = False
    own: bool = False


SOURCES: dict[str, Source] = {
    "outcome": Source("", whole=True),
    "overlong": Source("", whole=True),
    "solution": Source("solution", whole=True),
    "step": Source("steps"),
    "clip": Source("steps"),
    "delta": Source("steps"),
    "min_form": Source("steps"),
    "first_error": Source("correctness", own=True),
    "progress": Source("values", own=True),
    "implicit": Source("language_model"),
}


@dataclasses.dataclass(frozen=True)
class Said:
    """What a verifier says of B solutions.

    Attributes:
      steps: P(correct) or the value of each step, NaN where it was not read.
      whole: its score of each solution, in [0, 1]; 0 where that is not finished.
      starts: of each bare question, NaN where it says nothing of those.
      progress: its own rewards of the steps, where it pays any.
    """

    steps: list[StepScores]
    whole: Float32[np.ndarray, " B"]
    starts: Float32[np.ndarray, " B"]
    progress: list[StepScores] | None = None

    @property
    def whole_read(self) -> Float32[np.ndarray, " B"]:
        """`whole`, NaN where a step was not read."""
        read = [not np.isnan(steps).any() for steps in self.steps]
        return np.where(read, self.whole, np.nan).astype(np.float32)


_WHOLE = {
    "min": np.min,
    "product": np.prod,
    "mean": np.mean,
    "last": lambda steps: steps[-1],
}


def check_source(name: str, verifier: Any) -> None:
    """Whether a verifier says what a reward wants to know.

    Args:
      name: of `SOURCES`.
      verifier: None where there is none.

    Raises:
      RewardError: it does not; says what would be right.
    """
    needs = SOURCES[name].needs
    if needs in ("", "language_model"):
        return
    if verifier is None:
        raise RewardError(
            f"rl.rewards: {name!r} wants a verifier: name one in rl.verifiers"
        )
    for member in getattr(verifier, "verifiers", (verifier,)):
        fault = _fault(needs, member)
        if fault:
            raise RewardError(f"rl.rewards: {name!r} wants another verifier: {fault}")


def _fault(needs: Needs, verifier: Any) -> str:
    """Why a verifier does not say what is needed; "" where it does."""
    values = getattr(verifier, "values", False)
    outcomes = getattr(verifier, "aggregation", "min") == "last" and not values
    if isinstance(verifier, ScoreFileVerifier):
        return "a file has scores of solutions that are there, not of new ones"
    if verifier.scale is Scale.LOG_PROBABILITY:
        return (
            "a likelihood says how probable a text is, not whether it is right; for "
            "rewards of a language model take 'implicit'"
        )
    if needs == "values" and not values:
        return "this one has no values of steps: name a stage of job=pav"
    if needs == "correctness" and values:
        return (
            "values are low on a hard question too, where no step is wrong: name a PRM"
        )
    if needs in ("steps", "correctness") and outcomes:
        return (
            "an ORM, or values that a PRM learned for MCTS*, is read at the last step "
            "alone: take 'solution', or name a PRM"
        )
    return ""


def said(
    verifier: Any,
    solutions: Sequence[Solution],
    progress: bool,
    unfinished: bool = False,
) -> Said:
    """Reads what a verifier says of solutions; of equal ones once.

    Args:
      verifier: of any kind.
      solutions: finished or not.
      progress: asks for its own rewards of steps too.
      unfinished: whether the last step of a solution that did not end is taken at its
        word. A verifier that knows steps alone finds nothing wrong with never
        answering; else it scores 0, as does the whole, and earns no reward of its own.
    """
    pairs = [(s.question, tuple(s.steps)) for s in solutions]
    distinct = list(dict.fromkeys(pairs))
    stepped = [pair for pair in distinct if pair[1]]
    probability = verifier.scale.probability
    scores = map(probability, scores_of(verifier, stepped) if stepped else ())
    known = dict(zip(stepped, scores, strict=True))
    steps = [known.get(pair, np.zeros(0)) for pair in pairs]
    own = None
    if progress:
        paid = dict(zip(stepped, verifier.rewards(stepped), strict=True))
        own = [paid.get(pair, np.zeros(0)) for pair in pairs]
    if not unfinished:
        ended = [s.finished for s in solutions]
        steps = [p if end else _failed(p) for p, end in zip(steps, ended, strict=True)]
        if own is not None:
            own = [p if end else _failed(p) for p, end in zip(own, ended, strict=True)]
    how = _WHOLE[getattr(verifier, "aggregation", "min")]
    whole = [
        how(p) if len(p) and (s.finished or unfinished) else 0.0
        for s, p in zip(solutions, steps, strict=True)
    ]
    starts = probability(bare_scores(verifier, [question for question, _ in pairs]))
    return Said(
        steps, np.asarray(whole, np.float32), np.asarray(starts, np.float32), own
    )


def _failed(steps: StepScores) -> StepScores:
    """What is said of steps, the last of which comes to nothing; unread stays so."""
    out = np.array(steps)
    out[-1:] = np.minimum(out[-1:], 0.0)
    return out


def paying(c: RLConfig, verifier: Verifier, prover: Verifier | None) -> Verifier:
    """The verifier whose word is paid for: a PAV where progress is.

    Args:
      c: the settings.
      verifier: of the base's values, where progress is paid.
      prover: of another policy's; None for the best of K of the base.

    Raises:
      RewardError, NoValuesError: one of them has no values.
    """
    if "progress" not in c.rewards:
        return verifier
    check_source("progress", verifier)
    by = c.pay.progress_prover if prover is None else prover
    return Pav(verifier, by, c.pay.progress_alpha)


def padded(rows: Sequence[np.ndarray], width: int) -> Float32[np.ndarray, "B S"]:
    """Rows of steps side by side, 0 where a row has no step."""
    out = np.zeros((len(rows), width), np.float32)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row[:width]
    return out


@dataclasses.dataclass(frozen=True)
class Graded:
    """What is known of B solutions beside a verifier's word.

    Attributes:
      right: whether each is finished and has the right answer.
      paid: whether its outcome may be paid: of the problems with verifiable reward.
      lengths: sampled tokens.
      steps: how many each has.
      most_tokens: of a solution.
    """

    right: Bool[np.ndarray, " B"]
    paid: Bool[np.ndarray, " B"]
    lengths: Float32[np.ndarray, " B"]
    steps: Float32[np.ndarray, " B"]
    most_tokens: int


def pay(
    name: str,
    graded: Graded,
    word: Said | None,
    config: PayConfig,
    width: int,
) -> Float32[np.ndarray, "B S"]:
    """What a source pays: of the steps [B, S], or of solutions [B, 1].

    NaN where it does not pay: the step was not read, the problem has no verifiable
    reward. "implicit" is computed from tokens, elsewhere.
    """
    if name == "outcome":
        return np.where(graded.paid, graded.right, np.nan)[:, None].astype(np.float32)
    if name == "overlong":
        lengths = jnp.asarray(graded.lengths)
        buffer = config.overlong_buffer
        found = rewards.overlong(lengths, graded.most_tokens, buffer)
        return np.asarray(found)[:, None]
    assert word is not None  # `check_source` has seen to it
    if name == "solution":
        return word.whole[:, None]
    if name == "progress":
        assert word.progress is not None
        return padded(word.progress, width)
    scores = padded(word.steps, width)
    mask = (np.arange(width) < graded.steps[:, None]).astype(np.float32)
    args = jnp.asarray(scores), jnp.asarray(mask)
    if name == "clip":
        paid = rewards.clipped(*args, config.clip_margin)
    elif name == "delta":
        paid = rewards.deltas(*args, jnp.asarray(word.starts), config.delta_bound)
    elif name == "min_form":
        paid = rewards.min_form(*args, config.min_form_temperature)
    elif name == "first_error":
        right = jnp.asarray(graded.right & graded.paid)
        paid = rewards.first_error(*args, right, config.error_threshold)
    else:
        paid = scores
    return np.asarray(paid)
