"""Step scores to one solution score: min, product, mean, last.

Every score here is a log-probability of "correct", log p <= 0, and so is every
result. Log-probabilities keep their order where probabilities have rounded to 1 (two
steps with log-odds 20 and 40 are both 1.0 in float32), and they take a solver's own
token log-probabilities as they are. A verifier's `Scale` turns its scores into them.

Axes: N solutions, S steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from aprm_jax.verifiers.protocol import Scale


def _minimum(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, scores, np.inf).min(axis=-1, initial=np.inf)


def _product(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, scores, 0.0).sum(axis=-1)


def _mean(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    # Two forms of log mean p, each exact to the last digits at its own end:
    # log(1 + mean(p - 1)) near 1, logsumexp - log(count) near 0.
    count = np.maximum(mask.sum(axis=-1), 1)
    masked = np.where(mask, scores, -np.inf)
    shortfall = np.where(mask, np.expm1(masked), 0.0).sum(axis=-1) / count
    low = np.logaddexp.reduce(masked, axis=-1) - np.log(count)
    return np.where(shortfall > -0.5, np.log1p(np.maximum(shortfall, -0.75)), low)


def _last(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    steps = np.arange(mask.shape[-1])
    index = np.where(mask, steps, 0).max(axis=-1, initial=0)
    return np.take_along_axis(scores, index[..., None], axis=-1)[..., 0]


_AGGREGATES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "min": _minimum,
    "product": _product,
    "mean": _mean,
    "last": _last,
}
AGGREGATIONS: tuple[str, ...] = tuple(_AGGREGATES)


def aggregate(
    log_scores: Float[np.ndarray, "*N S"],
    mask: Shaped[np.ndarray, "*N S"],
    how: str,
) -> Float[np.ndarray, "*N"]:
    """Solution scores of padded step scores.

    Args:
      log_scores: log p of each step; what stands under the padding is ignored.
      mask: non-zero where the solution has the step.
      how: "min", "product" (sum of logs), "mean" (log of the mean p) or "last".

    Returns:
      log-scale float64 solution scores; -inf for a solution without steps, so that
      it is chosen last.

    Raises:
      ValueError: an unknown `how`, a NaN score, or a score above 0, which is not a
        log-probability (log-odds were forgotten to be converted).
    """
    if how not in _AGGREGATES:
        raise ValueError(f"aggregation {how!r} is none of {', '.join(AGGREGATIONS)}")
    mask = np.asarray(mask).astype(bool)
    scores = np.where(mask, np.asarray(log_scores, np.float64), 0.0)
    if np.isnan(scores).any():
        raise ValueError("a step score is NaN")
    if (scores > 1e-6).any():
        raise ValueError(
            f"a step score is {scores.max():.4g}; log-probabilities are at most 0 "
            "(convert log-odds with Scale.LOG_ODDS.log_probability)"
        )
    empty = ~mask.any(axis=-1)
    if scores.shape[-1] == 0:
        return np.full(scores.shape[:-1], -np.inf)
    return np.where(empty, -np.inf, _AGGREGATES[how](scores, mask))


def aggregate_lists(
    log_scores: Sequence[Sequence[float] | Float[np.ndarray, " _"]], how: str
) -> Float[np.ndarray, " N"]:
    """`aggregate` of solutions given as lists of different lengths."""
    lengths = np.array([len(row) for row in log_scores], int)
    width = int(lengths.max(initial=0))
    padded = np.zeros((len(log_scores), width))
    mask = np.arange(width)[None, :] < lengths[:, None]
    padded[mask] = [score for row in log_scores for score in row]
    return aggregate(padded, mask, how)


_CERTAIN = 1e30  # for an infinite score: finite, and so are sums of many


@dataclasses.dataclass(frozen=True)
class Aggregation:
    """What a search orders partial solutions by, where a verifier pays no reward.

    Attributes:
      how: one of `AGGREGATIONS`.
    """

    how: str

    def __post_init__(self):
        if self.how not in AGGREGATIONS:
            raise ValueError(
                f"aggregation {self.how!r} is none of {', '.join(AGGREGATIONS)}"
            )

    def __call__(
        self, scale: Scale, paths: Sequence[Sequence[float]]
    ) -> tuple[list[float], list[float]]:
        """The order of each partial solution, and its reward.

        Args:
          scale: of the scores.
          paths: scores of the steps of each, NaN for one that was not read.

        Returns:
          What is higher for a better one, -inf where not all was read; and the same
          as a probability, 0 there.
        """
        read = np.array([not np.isnan(path).any() for path in paths], bool)
        known = [
            np.nan_to_num(path, nan=-1.0, posinf=_CERTAIN, neginf=-_CERTAIN)
            for path in paths
        ]
        logs = [scale.log_probability(path) for path in known]
        order = aggregate_lists(logs, self.how)
        return (
            np.where(read, order, -np.inf).tolist(),
            np.where(read, np.exp(order), 0.0).tolist(),
        )
