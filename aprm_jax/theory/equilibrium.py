"""Finds the equilibrium of a regularised matrix game, by Newton's method."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Float

from aprm_jax.theory.games import MatrixGame, Vector, best_responses


@dataclasses.dataclass(frozen=True)
class Equilibrium:
    """What `solve_equilibrium` found."""

    x: Float[np.ndarray, " n"]  # G's policy
    y: Float[np.ndarray, " m"]  # R's policy
    residual: float  # largest distance of a probability to the best response's
    iterations: int


class NoConvergenceError(RuntimeError):
    """The solver ran out of iterations."""


def solve_equilibrium(
    game: MatrixGame,
    start: tuple[Vector, Vector] | None = None,
    *,
    tolerance: float = 1e-12,
    max_iterations: int = 500,
) -> Equilibrium:
    """Finds a Nash equilibrium: a fixed point of both best responses.

    Newton's method on z - BR(z), with backtracking, in float64; where backtracking
    stalls, a damped best-response step. Without a start the payoffs are faded in from
    zero, which follows the principal branch; with one, the equilibrium found may be
    another where there are several.

    Raises:
      ValueError: a player has no regulariser, hence no unique best response.
      NoConvergenceError: the residual is above the tolerance after max_iterations.
    """
    if not (game.tau_g > 0 and game.tau_r > 0):
        raise ValueError("both players need beta + eta > 0")
    with jax.enable_x64(True):
        if start is not None:
            z = np.concatenate([np.asarray(part, np.float64) for part in start])
            z, residual, used = _newton(game, z, tolerance, max_iterations)
        else:
            z = np.concatenate([game.ref_g, game.ref_r])
            residual, used = math.inf, 0
            for fade in np.linspace(0.1, 1.0, 10):
                faded = dataclasses.replace(
                    game, payoff_g=fade * game.payoff_g, payoff_r=fade * game.payoff_r
                )
                z, residual, more = _newton(faded, z, tolerance, max_iterations)
                used += more
    if residual > tolerance:
        raise NoConvergenceError(f"residual {residual:.1e} after {used} iterations")
    n = len(game.ref_g)
    return Equilibrium(z[:n], z[n:], residual, used)


_best_responses = jax.jit(best_responses)


def _newton(
    game: MatrixGame, z: np.ndarray, tolerance: float, max_iterations: int
) -> tuple[np.ndarray, float, int]:
    n = len(game.ref_g)

    def responses(z: np.ndarray) -> np.ndarray:
        return np.concatenate(_best_responses(game, z[:n], z[n:]))

    reply = responses(z)
    for iteration in range(max_iterations):
        gap = z - reply
        residual = float(np.abs(gap).max())
        if residual <= tolerance:
            return z, residual, iteration
        direction = -np.linalg.solve(_fixed_point_jacobian(game, reply), gap)
        for step in 0.5 ** np.arange(12):
            candidate = z + step * direction
            candidate_reply = responses(candidate)
            if np.linalg.norm(candidate - candidate_reply) < (
                1 - 1e-4 * step
            ) * np.linalg.norm(gap):
                break
        else:
            candidate = 0.9 * z + 0.1 * reply
            candidate_reply = responses(candidate)
        z, reply = candidate, candidate_reply
    return z, float(np.abs(z - reply).max()), max_iterations


def _fixed_point_jacobian(game: MatrixGame, reply: np.ndarray) -> np.ndarray:
    """Jacobian of z - BR(z); that of a softmax is diag(p) - p p^T."""
    n = len(game.ref_g)
    p, q = reply[:n], reply[n:]
    jacobian = np.eye(len(reply))
    jacobian[:n, n:] = -(np.diag(p) - np.outer(p, p)) @ game.payoff_g / game.tau_g
    jacobian[n:, :n] = -(np.diag(q) - np.outer(q, q)) @ game.payoff_r.T / game.tau_r
    return jacobian
