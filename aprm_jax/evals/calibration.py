"""Calibration of step scores: a logistic fit on a validation set (Platt scaling).

A PRM that was trained on balanced classes, or a likelihood, ranks steps but its scores
are no probabilities. Two numbers fitted on a validation set repair what can be
repaired without changing the ranking (Platt 1999; Guo et al., arXiv 1706.04599).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Float, Shaped


@dataclasses.dataclass(frozen=True)
class Platt:
    """P(correct) = sigmoid(slope * score + bias)."""

    slope: float
    bias: float

    def __call__(self, scores: Shaped[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Probabilities of scores on the real line."""
        return scipy.special.expit(
            self.slope * np.asarray(scores, np.float64) + self.bias
        )

    @property
    def even(self) -> float:
        """The score at which P(correct) is 0.5; infinite where there is none."""
        if self.slope > 0:
            return -self.bias / self.slope
        return -math.inf if self.bias >= 0 else math.inf


def fit_platt(
    scores: Shaped[np.ndarray, " N"], labels: Shaped[np.ndarray, " N"]
) -> Platt:
    """The most likely slope (not negative) and bias, with Platt's prior on targets.

    Args:
      scores: finite; log-odds, log-probabilities or whatever ranks the steps.
      labels: 1 correct, 0 incorrect.

    Raises:
      ValueError: no steps, or a score that is not finite.
    """
    values = np.asarray(scores, np.float64)
    truth = np.asarray(labels, np.float64)
    if not len(values) or values.shape != truth.shape:
        raise ValueError(f"scores {values.shape} for labels {truth.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a score is not finite")
    right = truth.sum()
    # Targets off 0 and 1 keep the fit finite where the scores separate the labels.
    high, low = (right + 1) / (right + 2), 1 / (len(truth) - right + 2)
    targets = np.where(truth == 1, high, low)
    centre, spread = values.mean(), values.std() or 1.0
    unit = (values - centre) / spread

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        logits = at[0] * unit + at[1]
        error = scipy.special.expit(logits) - targets
        value = np.logaddexp(0.0, logits) - targets * logits
        return float(value.mean()), np.array([(error * unit).mean(), error.mean()])

    found = scipy.optimize.minimize(
        loss,
        np.zeros(2),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None), (None,) * 2],
    ).x
    slope = found[0] / spread
    return Platt(float(slope), float(found[1] - slope * centre))
