"""Simulated play of a matrix game: both players step at the same iterate."""

from __future__ import annotations

import functools
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from aprm_jax.game import ogda
from aprm_jax.theory.bounds import support_floor, tangent_jacobian
from aprm_jax.theory.equilibrium import Equilibrium, solve_equilibrium
from aprm_jax.theory.games import (
    AnyArray,
    MatrixGame,
    Vector,
    Weight,
    logit_operator,
    operator,
)

Space = Literal["logits", "policy"]


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
    distance: Float[np.ndarray, " T+1"]  # Euclidean, of (x, y) to the equilibrium


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


def local_rates(
    game: MatrixGame, equilibrium: Equilibrium, step: float
) -> dict[str, float]:
    r"""The factor a step by which GDA and OGDA approach an equilibrium, in closed form.

    Near it F is its Jacobian on the tangent space, whose eigenvalues are
    :math:`\lambda`. GDA in policy space multiplies an eigenvector by
    :math:`1 - \eta\lambda`, OGDA by a root of
    :math:`\rho^2 - (1 - 2\eta\lambda)\rho - \eta\lambda = 0`; the largest modulus is
    what remains in the end.

    Args:
      game: the game.
      equilibrium: inside the simplices, where no projection is active.
      step: eta, the learning rate of both players.

    Returns:
      "gda" and "ogda", the factors; above one the distance grows.
    """
    jacobian = tangent_jacobian(game, equilibrium.x, equilibrium.y)
    turned = step * np.linalg.eigvals(jacobian)
    root = np.sqrt(1 + 4 * turned**2 + 0j)
    roots = np.concatenate([1 - 2 * turned + root, 1 - 2 * turned - root]) / 2
    return {
        "gda": float(np.abs(1 - turned).max()),
        "ogda": float(np.abs(roots).max()),
    }
