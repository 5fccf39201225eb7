"""Several verifiers as one: the mean, the least or the product of what they state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.verifiers.protocol import Pairs, Scale, Verifier, ends, scores_of


def _mean(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    # The odds of a mean are the sum of p over the sum of 1 - p: exact at both ends.
    return np.logaddexp.reduce(log_p) - np.logaddexp.reduce(log_q)


def _least(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    return (log_p - log_q).min(axis=0)  # of log-odds, which order as p does


def _product(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    return log_p.sum(axis=0)


_COMBINATIONS: dict[str, tuple[Callable[..., np.ndarray], Scale]] = {
    "mean": (_mean, Scale.LOG_ODDS),
    "min": (_least, Scale.LOG_ODDS),
    "product": (_product, Scale.LOG_PROBABILITY),
}
COMBINATIONS: tuple[str, ...] = tuple(_COMBINATIONS)


@dataclasses.dataclass(frozen=True)
class CombinedVerifier:
    """Combines P(correct) of several verifiers, step by step.

    A step that one of them has not read is not scored: nobody's silence is an opinion.

    Attributes:
      verifiers: one or more.
      how: of their probabilities p_k: `mean` (each has the same weight), `min` (the
        step is as right as its strictest judge says), `product` (all of them hold,
        as if they erred independently).
    """

    verifiers: Sequence[Verifier]
    how: str = "mean"

    def __post_init__(self):
        if not self.verifiers:
            raise ValueError("no verifiers to combine")
        if self.how not in _COMBINATIONS:
            known = ", ".join(COMBINATIONS)
            raise ValueError(f"combination {self.how!r} is none of {known}")

    @property
    def scale(self) -> Scale:
        """Of the combined scores."""
        return _COMBINATIONS[self.how][1]

    @property
    def aggregation(self) -> str:
        """That of the verifiers where all of them have one, else `min`."""
        found = {getattr(v, "aggregation", "min") for v in self.verifiers}
        return found.pop() if len(found) == 1 else "min"

    @property
    def values(self) -> bool:
        """Whether all of them have values."""
        return all(getattr(v, "values", False) for v in self.verifiers)

    @property
    def tokens_read(self) -> int:
        """By those that are models, so far."""
        return sum(getattr(v, "tokens_read", 0) for v in self.verifiers)

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`."""
        rows = [scores_of(verifier, solutions) for verifier in self.verifiers]
        return [self.combined(of_all) for of_all in zip(*rows, strict=True)]

    def questions(self, questions: Sequence[str]) -> Float[np.ndarray, " N"]:
        """The score of each bare question, NaN where one of them has none."""
        pairs = [(question, ()) for question in questions]
        return self.combined([ends(verifier, pairs) for verifier in self.verifiers])

    def combined(self, rows: Sequence[np.ndarray]) -> Float[np.ndarray, " _"]:
        """The scores of some steps from those that each verifier gives them."""
        pairs = zip(self.verifiers, rows, strict=True)
        logs = np.array([v.scale.log_probability(row) for v, row in pairs])
        pairs = zip(self.verifiers, rows, strict=True)
        rest = np.array([v.scale.log_shortfall(row) for v, row in pairs])
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            return _COMBINATIONS[self.how][0](logs, rest)
