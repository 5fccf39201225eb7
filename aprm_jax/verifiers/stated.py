"""Verifiers that are no models: the oracle, and baselines.

Baselines are what a verifier must beat: chance, and the position of a step alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.verifiers.protocol import Pairs, Scale, logit


@dataclasses.dataclass(frozen=True)
class OracleVerifier:
    """The oracle's verdicts, an upper bound; NaN for an undecidable step.

    A step that follows a wrong one counts as wrong: its premises are.
    """

    oracle: StepOracle
    scale: Scale = Scale.LOG_ODDS

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`."""
        return [logit(self._verdicts(*solution)) for solution in solutions]

    def _verdicts(self, question: str, steps: tuple[str, ...]) -> list[float]:
        verdicts: list[float] = []
        for k, step in enumerate(steps):
            label = self.oracle.judge(question, steps[:k], None, step).label
            if label == Label.INCORRECT:
                return verdicts + [0.0] * (len(steps) - k)
            verdicts.append(1.0 if label == Label.CORRECT else math.nan)
        return verdicts


@dataclasses.dataclass(frozen=True)
class ChanceVerifier:
    """Uniform probabilities in [0, 1), whatever the steps are."""

    seed: int
    scale: Scale = Scale.LOG_ODDS

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`."""
        rng = np.random.default_rng([self.seed, 77])
        return [logit(rng.random(len(steps))) for _, steps in solutions]


@dataclasses.dataclass(frozen=True)
class PositionVerifier:
    """How often a step of this index is right, see `position_rates`."""

    rates: Float[np.ndarray, " K"]
    scale: Scale = Scale.LOG_ODDS

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`."""
        last = len(self.rates) - 1
        return [
            logit(self.rates[np.minimum(np.arange(len(steps)), last)])
            for _, steps in solutions
        ]


def position_rates(
    positions: Sequence[int], labels: Sequence[float], least: int = 30
) -> Float[np.ndarray, " K"]:
    """P(correct | index of the step), from labelled steps of training data.

    Each rate has one step of either label added. Beyond the last index that has
    `least` steps all the indices share one rate, which is the last.

    Raises:
      ValueError: there are no labelled steps.
    """
    known = [
        (k, label)
        for k, label in zip(positions, labels, strict=True)
        if not math.isnan(label)
    ]
    if not known:
        raise ValueError("no labelled steps")
    index = np.array([k for k, _ in known])
    values = np.array([label for _, label in known])
    counts = np.bincount(index)
    last = next((k for k in range(len(counts)) if counts[k] < least), len(counts) - 1)
    index = np.minimum(index, last)
    right = np.bincount(index, values, minlength=last + 1)
    return (right + 1) / (np.bincount(index, minlength=last + 1) + 2)
