r"""Regularised two-player matrix games: what the theory of the game says, in the small.

G mixes its n actions with probabilities x, R its m actions with y, and

.. math::

  U_G(x, y) &= x^\top A y - \beta_G \mathrm{KL}(x \| x_0) + \eta_G H(x) \\
  U_R(x, y) &= x^\top B y - \beta_R \mathrm{KL}(y \| y_0) + \eta_R H(y)

Both maximise. :math:`\tau = \beta + \eta` is a player's regulariser weight. The game's
operator is :math:`F = (-\nabla U_G, -\nabla U_R)`; an equilibrium is a zero of F on the
tangent space of the two simplices.

Simulation and solver compute in float64, in a local `jax.enable_x64`; everything else
follows the dtype of its arguments. Legend: n actions of G, m actions of R, T steps.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from aprm_jax.game import ogda

Space = Literal["logits", "policy"]
AnyArray = Array | np.ndarray
Vector = Sequence[float | int] | AnyArray
Matrix = Sequence[Sequence[float | int]] | AnyArray
Weight = float | int | Float[Array, ""]  # an array inside a compiled function


@flax.struct.dataclass
class MatrixGame:
    """A regularised two-player general-sum game; see `matrix_game`."""

    payoff_g: Float[AnyArray, "n m"]  # A: what G earns
    payoff_r: Float[AnyArray, "n m"]  # B: what R earns
    ref_g: Float[AnyArray, " n"]  # x_0, positive, sums to one
    ref_r: Float[AnyArray, " m"]  # y_0
    beta_g: Weight  # weight of KL(x || x_0)
    eta_g: Weight  # weight of H(x)
    beta_r: Weight
    eta_r: Weight

    @property
    def tau_g(self) -> Weight:
        """G's regulariser weight, beta + eta."""
        return self.beta_g + self.eta_g

    @property
    def tau_r(self) -> Weight:
        """R's regulariser weight, beta + eta."""
        return self.beta_r + self.eta_r


def matrix_game(
    payoff_g: Matrix,
    payoff_r: Matrix,
    *,
    beta_g: float | int = 0.0,
    eta_g: float | int = 0.0,
    beta_r: float | int = 0.0,
    eta_r: float | int = 0.0,
    ref_g: Vector | None = None,
    ref_r: Vector | None = None,
) -> MatrixGame:
    """Builds a game in float64 NumPy arrays.

    Args:
      payoff_g: A, G's payoffs, one row per action of G.
      payoff_r: B, R's payoffs, in the same layout.
      beta_g: weight of G's KL penalty.
      eta_g: weight of G's entropy bonus.
      beta_r: weight of R's KL penalty.
      eta_r: weight of R's entropy bonus.
      ref_g: G's reference policy, uniform by default; normalised here.
      ref_r: R's reference policy, uniform by default.

    Raises:
      ValueError: payoffs of different shapes, a negative weight, or a reference that is
        not a positive vector of the right length.
    """
    a = np.asarray(payoff_g, np.float64)
    b = np.asarray(payoff_r, np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"payoffs must be two equal matrices: {a.shape}, {b.shape}")
    weights = {"beta_g": beta_g, "eta_g": eta_g, "beta_r": beta_r, "eta_r": eta_r}
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must not be negative: {weight}")
    return MatrixGame(
        payoff_g=a,
        payoff_r=b,
        ref_g=_reference(ref_g, a.shape[0], "ref_g"),
        ref_r=_reference(ref_r, a.shape[1], "ref_r"),
        **{name: float(weight) for name, weight in weights.items()},
    )


def _reference(ref: Vector | None, size: int, name: str) -> np.ndarray:
    policy = np.ones(size) if ref is None else np.asarray(ref, np.float64)
    if policy.shape != (size,) or not (policy > 0).all():
        raise ValueError(f"{name} must be {size} positive numbers: {ref}")
    return policy / policy.sum()


def verdict_game(
    generator_rewards: Sequence[float | int] = (1.0, 0.0, -1.0),
    prm_rewards: Sequence[float | int] = (0.0, 1.0),
    *,
    clean_share: float | int = 0.0,
    beta_g: float | int = 0.0,
    eta_g: float | int = 0.0,
    beta_r: float | int = 0.0,
    eta_r: float | int = 0.0,
    ref_g: Vector | None = None,
    ref_r: Vector | None = None,
) -> MatrixGame:
    """The 2x2 model of the APRM game: G corrupts a step or leaves it, R judges it.

    G's actions are (corrupt, leave), R's are (says correct, says incorrect). A step
    that G left is still correct, so R is right to say so.

    Args:
      generator_rewards: r_G when R is fooled, when G is caught, when G left the step.
      prm_rewards: r_R for a wrong and for a right verdict.
      clean_share: share of clean correct steps in R's training mixture; they pay R
        whatever G does, and are what keeps R from "always incorrect".
      beta_g, eta_g, beta_r, eta_r: regulariser weights, see `matrix_game`.
      ref_g: G's reference policy, uniform by default.
      ref_r: R's reference policy, uniform by default.
    """
    if not 0 <= clean_share < 1:
        raise ValueError(f"clean_share must lie in [0, 1): {clean_share}")
    fooled, caught, still_correct = generator_rewards
    wrong, right = prm_rewards
    payoff_g = np.array([[fooled, caught], [still_correct, still_correct]])
    against_g = np.array([[wrong, right], [right, wrong]])
    on_clean = np.array([[right, wrong], [right, wrong]])
    return matrix_game(
        payoff_g,
        (1 - clean_share) * against_g + clean_share * on_clean,
        beta_g=beta_g,
        eta_g=eta_g,
        beta_r=beta_r,
        eta_r=eta_r,
        ref_g=ref_g,
        ref_r=ref_r,
    )


def entropy(policy: Float[AnyArray, " n"]) -> Float[Array, ""]:
    """H(policy) in nats."""
    return -jnp.sum(policy * jnp.log(policy))


def kl(policy: Float[AnyArray, " n"], ref: Float[AnyArray, " n"]) -> Float[Array, ""]:
    """KL(policy || ref) in nats."""
    return jnp.sum(policy * (jnp.log(policy) - jnp.log(ref)))


def utilities(
    game: MatrixGame, x: Float[AnyArray, " n"], y: Float[AnyArray, " m"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """U_G and U_R at a pair of policies with full support."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    utility_g = x @ jnp.asarray(game.payoff_g) @ y
    utility_g += game.eta_g * entropy(x) - game.beta_g * kl(x, game.ref_g)
    utility_r = x @ jnp.asarray(game.payoff_r) @ y
    utility_r += game.eta_r * entropy(y) - game.beta_r * kl(y, game.ref_r)
    return utility_g, utility_r


def best_response(
    payoff: Float[AnyArray, " n"],
    ref: Float[AnyArray, " n"],
    beta: Weight,
    eta: Weight,
) -> Float[Array, " n"]:
    r"""The regularised best response, in closed form (Lemma 2).

    .. math:: \pi^* \propto \pi_0^{\beta/(\beta+\eta)} \exp(payoff/(\beta+\eta))

    Args:
      payoff: expected payoff of each action against the opponent's policy.
      ref: reference policy.
      beta: weight of the KL penalty.
      eta: weight of the entropy bonus; beta + eta must be positive.
    """
    return jax.nn.softmax((beta * jnp.log(ref) + payoff) / (beta + eta))


def best_responses(
    game: MatrixGame, x: Float[AnyArray, " n"], y: Float[AnyArray, " m"]
) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """Each player's best response to the other's policy."""
    return (
        best_response(game.payoff_g @ y, game.ref_g, game.beta_g, game.eta_g),
        best_response(x @ game.payoff_r, game.ref_r, game.beta_r, game.eta_r),
    )


def operator(
    game: MatrixGame, x: Float[AnyArray, " n"], y: Float[AnyArray, " m"]
) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """F in policy space: both negated gradients at one iterate, on the tangent space.

    Projected, because probabilities sum to one: it is zero exactly at an equilibrium.
    """
    gradient_g = jax.grad(lambda p: utilities(game, p, y)[0])(x)
    gradient_r = jax.grad(lambda p: utilities(game, x, p)[1])(y)
    return gradient_g.mean() - gradient_g, gradient_r.mean() - gradient_r


def logit_operator(
    game: MatrixGame, logits_g: Float[AnyArray, " n"], logits_r: Float[AnyArray, " m"]
) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """F in logits, which is where networks live: x and y are softmaxes."""
    x, y = jax.nn.softmax(logits_g), jax.nn.softmax(logits_r)
    return (
        jax.grad(lambda p: -utilities(game, jax.nn.softmax(p), y)[0])(logits_g),
        jax.grad(lambda p: -utilities(game, x, jax.nn.softmax(p))[1])(logits_r),
    )


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
    r"""The modulus :math:`\mu` in <F(z) - F(z'), z - z'> >= mu * |z - z'|^2.

    Exact with two actions each, for more a lower bound where positive. Not positive
    means that F is not strongly monotone.
    """
    off = _largest_double_difference(game.payoff_g, game.payoff_r) / 8
    tau_g, tau_r = float(game.tau_g), float(game.tau_r)
    # Twice the smaller eigenvalue of [[tau_g, -off], [-off, tau_r]]: the entropy is
    # 1-strongly convex in l1, and |u|_1^2 >= 2 |u|_2^2 for u that sums to zero.
    return tau_g + tau_r - math.hypot(tau_g - tau_r, 2 * off)


def lipschitz_bound(game: MatrixGame) -> float:
    """An L with |F(z) - F(z')| <= L |z - z'| for all policies above `support_floor`.

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
    n, m = len(x), len(y)
    cross = -(np.asarray(game.payoff_g) + np.asarray(game.payoff_r)) / 2
    full = np.block(
        [[np.diag(game.tau_g / x), cross], [cross.T, np.diag(game.tau_r / y)]]
    )
    basis = np.zeros((n + m, n + m - 2))
    basis[:n, : n - 1] = _tangent_basis(n)
    basis[n:, n - 1 :] = _tangent_basis(m)
    return float(np.linalg.eigvalsh(basis.T @ full @ basis)[0])


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
      clean_share: share of clean steps in R's mixture.

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


def game_optimisers(
    learning_rate: optax.ScalarOrSchedule, adam_learning_rate: optax.ScalarOrSchedule
) -> dict[str, optax.GradientTransformation]:
    """The four rules that are compared, by display name, plain ones first.

    Adam's steps have the size of the learning rate whatever the gradient's is, so the
    two preconditioned rules have a rate of their own. Only a decaying one lets the
    optimistic of the two end at a point (see `ogda.ogda_adam`).
    """
    return {
        "simultaneous GDA": optax.sgd(learning_rate),
        "OGDA": ogda.ogda(learning_rate),
        "Adam (default b1 = 0.9)": optax.adam(adam_learning_rate),
        "OGDA-Adam (b1 = 0)": ogda.ogda_adam(adam_learning_rate),
    }


@flax.struct.dataclass
class Trajectory:
    """A simulated play of T steps, the start included, in float64."""

    x: Float[np.ndarray, "T+1 n"]  # G's policies
    y: Float[np.ndarray, "T+1 m"]  # R's policies
    distance: Float[np.ndarray, "T+1"]  # Euclidean, of (x, y) to the equilibrium


def simulate(
    game: MatrixGame,
    optimiser: optax.GradientTransformation,
    steps: int,
    *,
    start: tuple[Vector, Vector] | None = None,
    space: Space = "logits",
    equilibrium: Equilibrium | None = None,
) -> Trajectory:
    """Lets both players step `steps` times with gradients of the same iterate.

    Args:
      game: the game.
      optimiser: one rule for both players; each has its own state.
      steps: number of joint updates.
      start: the two policies to start from, off the references by default.
      space: what the optimiser moves: "logits", or the probabilities themselves
        ("policy"), projected back onto the policies above `support_floor`, the set on
        which the theory's rate holds.
      equilibrium: what distances are measured to; solved for by default.

    Returns:
      Policies and distances after every step, as NumPy arrays.
    """
    target = equilibrium or solve_equilibrium(game)
    if start is None:
        start = (_tilted(game.ref_g, 3.0), _tilted(game.ref_r, -3.0))
    floors = support_floor(game)
    with jax.enable_x64(True):
        policies = tuple(jnp.asarray(part, jnp.float64) for part in start)
        x, y = _simulate(game, optimiser, steps, policies, space, floors)
    x, y = np.asarray(x), np.asarray(y)
    gaps = np.concatenate([x - target.x, y - target.y], axis=1)
    return Trajectory(x, y, np.linalg.norm(gaps, axis=1))


def _tilted(ref: AnyArray, tilt: float) -> np.ndarray:
    """A policy some way off the reference, its first actions favoured by `tilt`."""
    weights = np.asarray(ref) * np.exp(np.linspace(tilt / 2, -tilt / 2, len(ref)))
    return weights / weights.sum()


@functools.partial(jax.jit, static_argnames=("optimiser", "steps", "space"))
def _simulate(game, optimiser, steps, policies, space, floors):
    """Compiled once per optimiser, length and space; games share the compilation."""
    in_logits = space == "logits"

    def to_policies(z):
        return (jax.nn.softmax(z[0]), jax.nn.softmax(z[1])) if in_logits else z

    def step(carry, _):
        z, states = carry
        gradients = (logit_operator if in_logits else operator)(game, *z)
        moved, kept = [], []
        for player in range(2):
            updates, state = optimiser.update(
                gradients[player], states[player], z[player]
            )
            parameters: Any = optax.apply_updates(z[player], updates)
            if not in_logits:
                parameters = _project(parameters, floors[player])
            moved.append(parameters)
            kept.append(state)
        z = tuple(moved)
        return (z, tuple(kept)), to_policies(z)

    z = tuple(jnp.log(p) for p in policies) if in_logits else policies
    states = tuple(optimiser.init(part) for part in z)
    first = to_policies(z)
    _, path = jax.lax.scan(step, (z, states), None, length=steps)
    return tuple(
        jnp.concatenate([head[None], tail])
        for head, tail in zip(first, path, strict=True)
    )


def _project(policy: Float[Array, " n"], floor: Weight) -> Float[Array, " n"]:
    """The nearest policy all of whose probabilities are at least `floor`."""
    mass = 1 - policy.shape[0] * floor
    return floor + mass * optax.projections.projection_simplex((policy - floor) / mass)


def linear_rate(
    distance: Float[np.ndarray, " T"], *, above: float = 1e-11
) -> tuple[float, float]:
    """Fits distance = c * rate**t by least squares on its logarithm.

    Args:
      distance: of the iterates to the equilibrium.
      above: distances from the first one below this on are rounding and are left out.

    Returns:
      The factor per step and the fit's R squared. A factor below one with R squared
      near one is linear convergence.
    """
    distance = np.asarray(distance, np.float64)
    below = np.flatnonzero(distance < above)
    logs = np.log(distance[: below[0]] if below.size else distance)
    if len(logs) < 3:
        raise ValueError("fewer than three distances above rounding: nothing to fit")
    steps = np.arange(len(logs))
    slope, intercept = np.polyfit(steps, logs, 1)
    unexplained = np.square(logs - slope * steps - intercept).sum()
    total = np.square(logs - logs.mean()).sum()
    return float(np.exp(slope)), float(1 - unexplained / total)
