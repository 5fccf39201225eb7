"""What holds at every equilibrium: its support, monotonicity and Lipschitz bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.theory.games import AnyArray, Matrix, MatrixGame, verdict_game


def support_floor(game: MatrixGame) -> tuple[float, float]:
    r"""A lower bound on every probability of every equilibrium (Theorem 1).

    A best response weighs an action by :math:`\pi_0^{\beta/\tau} e^{payoff/\tau}`, so
    no probability is below
    :math:`\min \pi_0^{\beta/\tau} / \sum \pi_0^{\beta/\tau} \cdot e^{-\Delta/\tau}`,
    where :math:`\Delta` is the widest range of the player's payoffs against one action
    of the opponent. On the policies above the floor F is Lipschitz.
    """

    def floor(spread: float, ref: AnyArray, beta: float, tau: float) -> float:
        weights = np.asarray(ref) ** (beta / tau)
        return float(weights.min() / weights.sum() * np.exp(-spread / tau))

    spread_g = float(np.ptp(game.payoff_g, axis=0).max())
    spread_r = float(np.ptp(game.payoff_r, axis=1).max())
    return (
        floor(spread_g, game.ref_g, float(game.beta_g), float(game.tau_g)),
        floor(spread_r, game.ref_r, float(game.beta_r), float(game.tau_r)),
    )


def monotonicity_bound(payoff_g: Matrix, payoff_r: Matrix) -> float:
    r"""The regulariser weight above which F is strongly monotone in policy space.

    .. math::

      \tau^* = \tfrac18 \max_{i,j,k,l} |C_{ik} - C_{jk} - C_{il} + C_{jl}|,
      \qquad C = A + B

    With two actions each this is :math:`|a + b| / 8`, a and b being the double
    differences of the payoffs. It is exact for any number of actions: in a direction
    (u, v) of the tangent space the regulariser contributes at least
    :math:`\tau (\|u\|_1^2 + \|v\|_1^2)`, the payoffs :math:`-u^\top C v`, and the
    vertices of the l1 ball of a simplex's tangent space are :math:`(e_i - e_j)/2`. With
    different weights for the two players the geometric mean
    :math:`\sqrt{\tau_G \tau_R}` takes the place of :math:`\tau`. A zero-sum game has
    C = 0: any positive weight will do.
    """
    return _largest_double_difference(payoff_g, payoff_r) / 8


def _largest_double_difference(payoff_g: Matrix, payoff_r: Matrix) -> float:
    total = np.asarray(payoff_g, np.float64) + np.asarray(payoff_r, np.float64)
    pairs = itertools.combinations(range(total.shape[0]), 2)
    return max((float(np.ptp(total[i] - total[j])) for i, j in pairs), default=0.0)


def strong_monotonicity(game: MatrixGame) -> float:
    r"""The modulus in :math:`\langle F(z)-F(z'), z-z' \rangle \ge \mu \|z-z'\|^2`.

    Exact with two actions each, for more a lower bound where positive. Not positive
    means that F is not strongly monotone.
    """
    off = _largest_double_difference(game.payoff_g, game.payoff_r) / 8
    tau_g, tau_r = float(game.tau_g), float(game.tau_r)
    # Twice the smaller eigenvalue of [[tau_g, -off], [-off, tau_r]]: the entropy is
    # 1-strongly convex in l1, and |u|_1^2 >= 2 |u|_2^2 for u that sums to zero.
    return tau_g + tau_r - math.hypot(tau_g - tau_r, 2 * off)


def lipschitz_bound(game: MatrixGame) -> float:
    r"""An L with :math:`\|F(z)-F(z')\| \le L \|z-z'\|` above `support_floor`.

    OGDA with a step below 1 / (2 L) converges linearly where F is strongly monotone
    (Malitsky and Tam, "A forward-backward splitting method for monotone inclusions
    without cocoercivity", 2020: OGDA is its unconstrained case, and `simulate` in
    policy space its projected one).
    """
    floor_g, floor_r = support_floor(game)
    steepest = max(float(game.tau_g) / floor_g, float(game.tau_r) / floor_r)
    payoffs = (game.payoff_g, game.payoff_r)
    return steepest + max(float(np.linalg.norm(payoff, 2)) for payoff in payoffs)


def tangent_eigenvalue(game: MatrixGame, x: np.ndarray, y: np.ndarray) -> float:
    """The smallest eigenvalue of DF's symmetric part on the tangent space at (x, y).

    A numerical check of `strong_monotonicity`, which is its infimum over all policies.
    """
    jacobian = tangent_jacobian(game, x, y)
    return float(np.linalg.eigvalsh((jacobian + jacobian.T) / 2)[0])


def tangent_jacobian(
    game: MatrixGame, x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, "k k"]:
    """DF at (x, y) on the n + m - 2 directions that keep probabilities summing to one.

    Args:
      game: the game.
      x: G's policy, every probability positive.
      y: R's policy, likewise.
    """
    n, m = len(x), len(y)
    payoff_g, payoff_r = np.asarray(game.payoff_g), np.asarray(game.payoff_r)
    full = np.block(
        [[np.diag(game.tau_g / x), -payoff_g], [-payoff_r.T, np.diag(game.tau_r / y)]]
    )
    basis = np.zeros((n + m, n + m - 2))
    basis[:n, : n - 1] = _tangent_basis(n)
    basis[n:, n - 1 :] = _tangent_basis(m)
    return basis.T @ full @ basis


def _tangent_basis(size: int) -> np.ndarray:
    """Orthonormal columns that span the vectors that sum to zero."""
    centred = np.eye(size) - 1 / size
    return np.linalg.svd(centred)[0][:, : size - 1]


def regulariser_warning(
    beta_g: float | int,
    eta_g: float | int,
    beta_r: float | int,
    eta_r: float | int,
    generator_rewards: Sequence[float | int] = (1.0, 0.0, -1.0),
    prm_rewards: Sequence[float | int] = (0.0, 1.0),
    clean_share: float | int = 0.0,
) -> str | None:
    """What to log when a config's regularisers are too weak for its rewards.

    Args:
      beta_g, eta_g, beta_r, eta_r: regulariser weights, see `matrix_game`.
      generator_rewards: r_G when R is fooled, when G is caught, when G left the step.
      prm_rewards: r_R for a wrong and for a right verdict.
      clean_share: share of clean steps in R's mixture. The job `aprm` leaves them out:
        with them its defaults are below the bound, see docs/method.md, and a warning
        that every run logs tells nobody anything.

    Returns:
      A sentence that names the bound, or None where the weights are above it.
    """
    game = verdict_game(generator_rewards, prm_rewards, clean_share=clean_share)
    bound = monotonicity_bound(game.payoff_g, game.payoff_r)
    tau_g, tau_r = beta_g + eta_g, beta_r + eta_r
    weight = math.sqrt(max(tau_g, 0.0) * max(tau_r, 0.0))
    if weight > bound:
        return None
    return (
        f"regularisers below the monotonicity bound: sqrt(tau_G * tau_R) = {weight:.4g}"
        f" with tau_G = beta_G + eta_G = {tau_g:.4g}, tau_R = beta_R + eta_R ="
        f" {tau_r:.4g}, but these rewards need more than {bound:.4g}; below it the"
        " game operator is not strongly monotone, and neither a unique equilibrium"
        " nor a linear rate of OGDA is guaranteed"
    )
