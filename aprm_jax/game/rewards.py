"""The rewards of the Generator, by the oracle's verdict and R's.

Their structure is APRM's (Juneja et al., arXiv 2511.22888), the constants are ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int

from aprm_jax.config.game import RewardsConfig
from aprm_jax.oracle.verdict import Label


def generator_rewards(
    table: RewardsConfig,
    labels: Int[np.ndarray, " N"],
    p_correct: Float32[np.ndarray, " N"],
) -> Float32[np.ndarray, " N"]:
    """G's expected reward over R's verdict, which says correct with `p_correct`.

    Undecidable perturbations get 0 here; the caller masks them.
    """
    incorrect = (
        p_correct * table.generator_fooled + (1.0 - p_correct) * table.generator_caught
    )
    rewards = np.where(
        labels == Label.INCORRECT,
        incorrect,
        np.where(labels == Label.CORRECT, table.generator_still_correct, 0.0),
    )
    return rewards.astype(np.float32)
