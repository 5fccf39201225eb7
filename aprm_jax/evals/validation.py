"""What a validation set decides for each verifier: thresholds and a calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from aprm_jax.evals import first_errors, steps
from aprm_jax.evals.calibration import Platt, fit_platt

Probability = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The choices for one verifier.

    Attributes:
      threshold: of single steps, on the probabilities that the verifier states.
      first_error: of first errors, likewise.
      platt: calibrates its scores on the real line; None where nothing was fitted.
    """

    threshold: float = 0.5
    first_error: float = 0.5
    platt: Platt | None = None

    def first_error_thresholds(
        self, probability: Probability, tuned: float | None = None
    ) -> dict[str, float]:
        """Suffix -> threshold, as `first_errors.first_error_records` wants them.

        Args:
          probability: what the verifier states for scores on the real line.
          tuned: the threshold chosen on ProcessBench's gsm8k, for other splits.
        """
        thresholds = {first_errors.VALIDATION: self.first_error, first_errors.RAW: 0.5}
        if self.platt is not None:
            thresholds[first_errors.PLATT] = even_threshold(self.platt, probability)
        if tuned is not None:
            thresholds[first_errors.TUNED] = tuned
        return thresholds

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Chosen:
        """The inverse."""
        platt = row["platt"]
        return cls(row["threshold"], row["first_error"], platt and Platt(**platt))


def choose(
    scores: Shaped[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    probability: Probability,
    metric: str,
    rows: tuple[Sequence[Float[np.ndarray, " _"]], Sequence[int]] | None = None,
) -> Chosen:
    """The best thresholds and the calibration.

    Args:
      scores: of single steps on the real line; NaN where unscored.
      labels: 1 correct, 0 incorrect.
      probability: what the verifier states for such scores.
      metric: of `steps.best_threshold`, for single steps.
      rows: stated probabilities of solutions that look whole, and their first errors.
        Without enough of them the threshold is where the calibrated probability is 0.5.
    """
    known = ~np.isnan(scores)
    values, truth = scores[known], labels[known]
    threshold = 0.5
    if len(values):
        threshold = steps.best_threshold(probability(values), truth, metric)
    platt = fit_platt(values, truth) if len(set(truth.tolist())) == 2 else None
    first = first_errors.validation_threshold(*rows) if rows else None
    if first is None:
        first = 0.5 if platt is None else even_threshold(platt, probability)
    return Chosen(threshold, first, platt)


def even_threshold(platt: Platt, probability: Probability) -> float:
    """The stated probability at which the calibrated one is 0.5."""
    if platt.even == np.inf:  # every step is called wrong
        return float(np.nextafter(1.0, 2.0))
    return float(probability(np.array([platt.even]))[0])
