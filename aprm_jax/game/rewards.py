"""The rewards of the two players, by the oracle's verdict and R's.

Their structure is APRM's (Juneja et al., arXiv 2511.22888), the constants are ours.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int

from aprm_jax.oracle.verdict import Label


@dataclasses.dataclass(frozen=True)
class RewardTable:
    """The constants of the game; they are ours, the paper's are not published.

    Attributes:
      generator_fooled: G's reward when s' is incorrect and R says correct.
      generator_caught: G's reward when s' is incorrect and R says so.
      generator_still_correct: G's reward when s' is still correct.
      prm_right: R's reward when its verdict is the oracle's.
      prm_wrong: R's reward when it is not.
    """

    generator_fooled: float = 1.0
    generator_caught: float = 0.0
    generator_still_correct: float = -1.0
    prm_right: float = 1.0
    prm_wrong: float = 0.0

    def generator(
        self, labels: Int[np.ndarray, " N"], p_correct: Float32[np.ndarray, " N"]
    ) -> Float32[np.ndarray, " N"]:
        """G's expected reward over R's verdict, which says correct with `p_correct`.

        Undecidable perturbations get 0 here; the caller masks them.
        """
        incorrect = (
            p_correct * self.generator_fooled
            + (1.0 - p_correct) * self.generator_caught
        )
        rewards = np.where(
            labels == Label.INCORRECT,
            incorrect,
            np.where(labels == Label.CORRECT, self.generator_still_correct, 0.0),
        )
        return rewards.astype(np.float32)
