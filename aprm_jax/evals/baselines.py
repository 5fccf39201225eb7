"""What a verifier must beat: chance, and the position of a step alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def chance_scores(sizes: Sequence[int], seed: int) -> list[Float[np.ndarray, " _"]]:
    """Uniform scores in [0, 1), one a step of each solution."""
    rng = np.random.default_rng([seed, 77])
    return [rng.random(size) for size in sizes]


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


def position_scores(
    rates: Float[np.ndarray, " K"], size: int
) -> Float[np.ndarray, " S"]:
    """The scores of a solution of `size` steps."""
    return rates[np.minimum(np.arange(size), len(rates) - 1)]
