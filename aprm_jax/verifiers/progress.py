r"""Progress as reward: the mathematics of process advantage verifiers (PAV).

Setlur et al. 2024, "Rewarding Progress" (arXiv 2410.08146). A value Q is the share of
completions from a step that arrive at the right answer. A step is worth what it brings:

.. math::

  Q^\pi(s_h, a_h) + \alpha A^\mu(s_h, a_h), \qquad
  A^\mu(s_h, a_h) = Q^\mu(s_h, a_h) - Q^\mu(s_{h-1}, a_{h-1})

with a prover :math:`\mu` that is not the base policy :math:`\pi`. Before the first step
stands :math:`V^\mu(x)`, the value of the bare question. The progress of a step is its
own reward: summed to a reward-to-go it telescopes into a baseline, and the method is
gone.

Functions take NumPy or JAX arrays, float32 or float64, and compute in their dtype.
Axes: H steps, S states, A actions of a state.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = Array | np.ndarray

# [ours] Where the readings of a prover begin; the paper has none in numbers.
_LEAST_SHARE = 0.1  # of the base's own variance: less tells no steps apart
_STRONG, _WEAK = 0.9, 0.1  # values of bare questions


def best_of(q: Float[AnyArray, "*b"], k: int) -> Float[AnyArray, "*b"]:
    """The value under the best of k completions: 1 - (1 - Q)^k, of no model's own.

    Raises:
      ValueError: `k` is less than 1.
    """
    if k < 1:
        raise ValueError(f"the best of {k}: a prover has at least 1 completion")
    xp: Any = q.__array_namespace__()
    return xp.asarray(1.0 - (1.0 - q) ** k)  # NumPy makes a scalar of 0 dimensions


def advantages(
    q: Float[AnyArray, "*b H"], start: Float[AnyArray, "*b"]
) -> Float[AnyArray, "*b H"]:
    """What each step changes: its value minus that of the step before it.

    Args:
      q: values of the steps.
      start: V(x), the value of the bare question; NaN where nobody says, and then the
        first step has no progress.
    """
    xp: Any = q.__array_namespace__()
    before = xp.concatenate([start[..., None], q[..., :-1]], axis=-1)
    return xp.where(xp.isnan(before), 0.0, q - before)


def effective_rewards(
    q: Float[AnyArray, "*b H"],
    progress: Float[AnyArray, "*b H"],
    alpha: float | int,
) -> Float[AnyArray, "*b H"]:
    """The reward of each step: Q of the base, and alpha times the prover's progress.

    Args:
      q: values under the base policy.
      progress: `advantages` under the prover.
      alpha: the paper's 0.2 to 0.6 in search, 0.5 to 6 in RL.
    """
    return q + alpha * progress


def distinguishability(
    policy: Float[AnyArray, "*s A"], prover: Float[AnyArray, "*s A"]
) -> Float[AnyArray, "*s"]:
    """Var over the base policy's actions of the prover's advantage, in each state.

    Args:
      policy: probabilities of the actions.
      prover: the prover's advantages, or values: a constant of the state drops out.
    """
    mean = (policy * prover).sum(-1)
    return (policy * (prover - mean[..., None]) ** 2).sum(-1)


def alignment(
    policy: Float[AnyArray, "*s A"],
    prover: Float[AnyArray, "*s A"],
    base: Float[AnyArray, "*s A"],
) -> Float[AnyArray, "*s"]:
    """The mean over the base policy's actions of A of the prover times A of the base.

    Args:
      policy: probabilities of the actions.
      prover: the prover's advantages.
      base: the base policy's, whose mean under it is 0.
    """
    return (policy * prover * base).sum(-1)


@dataclasses.dataclass(frozen=True)
class Siblings:
    """The steps that were sampled after one prefix, and their estimated values.

    Attributes:
      counts: how often each was drawn.
      base: its value under the base policy, NaN where unknown.
      prover: under the prover.
      base_noise: variance of the estimate of `base`.
      prover_noise: of that of `prover`.
      shared_noise: covariance of both estimates, which may be of the same completions.
    """

    counts: Int[np.ndarray, " A"]
    base: Float[np.ndarray, " A"]
    prover: Float[np.ndarray, " A"]
    base_noise: Float[np.ndarray, " A"]
    prover_noise: Float[np.ndarray, " A"]
    shared_noise: Float[np.ndarray, " A"]


@dataclasses.dataclass(frozen=True)
class ProverStatistics:
    """How a prover goes with a base policy; the improvement grows with their sum.

    Attributes:
      states: how many there were with two samples or more.
      distinguishability: the mean over states of Var[A of the prover].
      alignment: of E[A of the prover times A of the base].
      base: of Var[A of the base], to compare with.
      start: the prover's mean value of the bare questions, NaN where unknown.
      same: whether the prover is the base policy itself.
    """

    states: int
    distinguishability: float
    alignment: float
    base: float
    start: float = math.nan
    same: bool = False

    @property
    def good(self) -> bool:
        """Whether the prover tells the base's steps apart, as the base would."""
        return self.reading.startswith("good")

    @property
    def reading(self) -> str:
        """The paper's reading of the numbers, in words."""
        if self.same:
            return (
                "bad: the prover is the base policy, and alpha times its progress only "
                "repeats the advantage that RL on outcomes (ORM) already has"
            )
        if not self.states:
            return (
                "unknown: no prefix has two samples, so no steps could be compared: "
                "raise pav.n_cov"
            )
        if math.isnan(self.distinguishability):
            return (
                "unknown: too few completions a step to tell how much of its value is "
                "noise: raise pav.n_mc to twice pav.best_of, or to 2"
            )
        if self.distinguishability <= max(0.0, _LEAST_SHARE * self.base):
            why = "it is neither strong nor weak, but steps make no difference to it"
            if self.start >= _STRONG:
                why = "it is too strong: it arrives from good and from bad steps"
            elif self.start <= _WEAK:
                why = "it is too weak: it arrives from next to no step"
            return f"bad: the prover does not tell the base's steps apart: {why}"
        if self.alignment < 0:
            return (
                "bad: the prover tells steps apart, but is misaligned: it prefers "
                "those from which the base arrives less often"
            )
        return "good: the prover tells the base's steps apart, and is aligned with it"


def prover_statistics(
    states: Iterable[Siblings], start: float = math.nan, same: bool = False
) -> ProverStatistics:
    """Estimates of samples, free of the noise of Monte-Carlo values.

    The variance among the samples of a state is that of the values and that of their
    estimates; the latter is known and taken off, so a prover that tells nothing apart
    comes out at 0, or a little below. States count by their samples: as often as the
    base policy visits them; those with a step of unknown noise do not.

    Args:
      states: those with one sample are left out.
      start: see `ProverStatistics`.
      same: likewise.

    Raises:
      ValueError: a value of the prover is NaN or no probability.
    """
    found = [s for s in states if s.counts.sum() > 1]
    for s in found:
        check_values(s.prover)
    weights = np.array([s.counts.sum() for s in found], float)
    rows = np.array(
        [
            (
                _covariance(s.counts, s.prover, s.prover, s.prover_noise),
                _covariance(s.counts, s.prover, s.base, s.shared_noise),
                _covariance(s.counts, s.base, s.base, s.base_noise),
            )
            for s in found
        ]
    ).reshape(-1, 3)
    means = []
    for column in rows.T:
        known = ~np.isnan(column)  # the base is known in some states alone
        total = weights[known].sum()
        means.append(float(weights[known] @ column[known] / total) if total else np.nan)
    return ProverStatistics(len(found), *means, start=start, same=same)


def _covariance(
    counts: np.ndarray, x: np.ndarray, y: np.ndarray, noise: np.ndarray
) -> float:
    """Of a state's samples, unbiased; equal samples share one estimate."""
    total = counts.sum()
    share = counts / total
    centred = (share * (x - share @ x) * (y - share @ y)).sum()
    own = (share * (total - counts) / (total - 1) * noise).sum()
    return float(centred * total / (total - 1) - own)


def check_values(values: Float[AnyArray, "*b"]) -> None:
    """Refuses what is no value, before anything is made of it.

    Raises:
      ValueError: one is NaN, or not in [0, 1]; names the first.
    """
    flat = np.asarray(values, np.float64).reshape(-1)
    wrong = np.flatnonzero(~((flat >= 0) & (flat <= 1)))
    if wrong.size:
        at = int(wrong[0])
        raise ValueError(
            f"value {at} is {flat[at]}: a value is a probability of arriving at the "
            "right answer, in [0, 1]"
        )
