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

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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
    eta_g: float | int = 0.0,
    eta_r: float | int = 0.0,
) -> MatrixGame:
    """The 2x2 model of the APRM game: G corrupts a step or leaves it, R judges it.

    G's actions are (corrupt, leave), R's are (says correct, says incorrect). A step
    that G left is still correct, so R is right to say so.

    Args:
      generator_rewards: r_G when R is fooled, when G is caught, when G left the step.
      prm_rewards: r_R for a wrong and for a right verdict.
      clean_share: share of clean correct steps in R's training mixture; they pay R
        whatever G does, and are what keeps R from "always incorrect".
      eta_g, eta_r: weights of the entropy bonuses, see `matrix_game`.
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
        eta_g=eta_g,
        eta_r=eta_r,
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
