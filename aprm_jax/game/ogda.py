r"""Optimistic gradient descent-ascent as optax gradient transformations.

Both players of the game hand in gradients taken at the *same* iterate, and both step
with the same rule

.. math::

  z_{t+1} = z_t - \eta_t \, (2 g_t - g_{t-1}), \qquad g_{-1} := g_0 .

A player that maximises negates its loss; the optimiser is never flipped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float

Scalar = float | int | Float[Array, ""]  # an array under optax.inject_hyperparams


class ScaleByOgdaState(NamedTuple):
    """State of `scale_by_ogda`."""

    is_first: Bool[Array, ""]  # True until the first update: g_{-1} := g_0
    previous: optax.Updates  # g_{t-1}, in the shapes, dtypes, shardings of the params


def scale_by_ogda(dtype: Any = None) -> optax.GradientTransformation:
    r"""Replaces an update by its optimistic extrapolation.

    .. math::

      u_t = 2 g_t - g_{t-1}, \qquad g_{-1} := g_0

    :math:`g_t` is whatever the transformations before this one in the chain hand over,
    so clipping and preconditioning belong before it and the learning rate after it.
    The output is computed and returned in the dtype of the incoming updates. The state
    keeps the dtype of the parameters whatever the gradients' dtype is: it can be
    carried through `jax.lax.scan`, and the second call compiles nothing.

    Optimism presumes that :math:`g_{t-1}` is the gradient of the game at the previous
    iterate. Several epochs or minibatches over one batch make it a gradient of the same
    data, and the extrapolation loses its meaning. Under `optax.MultiSteps` this
    transformation sees only the accumulated gradients, which is as it should be.

    Args:
      dtype: that :math:`g_{t-1}` is kept in; None for that of the parameters. In
        bfloat16 it takes half the memory, and the extrapolation is wrong by up to
        0.4 % of what it subtracts.

    Returns:
      A transformation whose state is a `ScaleByOgdaState`: one copy of the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> transform = scale_by_ogda()
      >>> state = transform.init(jnp.zeros(2))
      >>> updates, state = transform.update(jnp.array([1.0, 2.0]), state)
      >>> updates.tolist()  # the first gradient is its own predecessor
      [1.0, 2.0]
      >>> updates, state = transform.update(jnp.array([1.5, 0.0]), state)
      >>> updates.tolist()
      [2.0, -2.0]

    References:
      Popov, "A modification of the Arrow-Hurwicz method for search of saddle points",
      Mathematical Notes 28, 1980.

      Daskalakis et al., `Training GANs with Optimism
      <https://arxiv.org/abs/1711.00141>`_, ICLR 2018.

      Mokhtari et al., `A Unified Analysis of Extra-gradient and Optimistic Gradient
      Methods for Saddle Point Problems <https://arxiv.org/abs/1901.08511>`_, AISTATS
      2020.
    """

    def init(params: optax.Params) -> ScaleByOgdaState:
        return ScaleByOgdaState(
            is_first=jnp.array(True), previous=optax.tree.zeros_like(params, dtype)
        )

    def update(
        updates: optax.Updates,
        state: Any,  # ScaleByOgdaState; optax's protocol wants the wider type
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ScaleByOgdaState]:
        del params

        def extrapolate(gradient: ArrayLike, previous: Array) -> Array:
            gradient = jnp.asarray(gradient)
            previous = previous.astype(gradient.dtype)
            return 2 * gradient - jnp.where(state.is_first, gradient, previous)

        optimistic = jax.tree.map(extrapolate, updates, state.previous)
        previous = jax.tree.map(
            lambda gradient, kept: jnp.asarray(gradient, kept.dtype),
            updates,
            state.previous,
        )
        return optimistic, ScaleByOgdaState(jnp.array(False), previous)

    return optax.GradientTransformation(init, update)


def ogda(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    r"""Optimistic gradient descent: one gradient per step, last-iterate convergence.

    .. math::

      z_{t+1} = z_t - \eta_t \, (2 g_t - g_{t-1}), \qquad g_{-1} := g_0

    With a schedule the learning rate multiplies the extrapolated update, so the
    correction of the step before is weighted by today's rate: the step is
    :math:`-\eta_t (2 g_t - g_{t-1})`, not
    :math:`-2 \eta_t g_t + \eta_{t-1} g_{t-1}`. The two differ by
    :math:`(\eta_t - \eta_{t-1}) g_{t-1}`, which vanishes for slow schedules; prefer
    them to steps.

    `optax.optimistic_gradient_descent` with its defaults is the same rule, and the two
    are equal at every step, the first included, with or without a schedule. (Until its
    issue 1082 was fixed in October 2024, optax took zero for the gradient before the
    first, which doubled the first step.) They differ where gradients and parameters
    have different dtypes: the previous gradient here keeps the parameters' dtype, so
    that the state never changes its type.

    Args:
      learning_rate: a step size, or a schedule from the step count to one.

    Returns:
      A gradient transformation.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> # min over x, max over y of x * y: y's gradient is that of its negated utility
      >>> z = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
      >>> optimiser = ogda(0.3)
      >>> state = optimiser.init(z)
      >>> for _ in range(200):
      ...     gradients = {"x": z["y"], "y": -z["x"]}
      ...     updates, state = optimiser.update(gradients, state, z)
      ...     z = optax.apply_updates(z, updates)
      >>> bool(jnp.hypot(z["x"], z["y"]) < 1e-3)  # gradient descent would have diverged
      True

    References:
      Those of `scale_by_ogda`.
    """
    return optax.chain(scale_by_ogda(), optax.scale_by_learning_rate(learning_rate))


def ogda_adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.0,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    clip_norm: Scalar | None = None,
    weight_decay: Scalar = 0.0,
    factored: bool = False,
) -> optax.GradientTransformation:
    r"""Optimistic gradient descent on Adam's preconditioned gradient.

    .. math::

      \begin{align*}
        \tilde g_t &= g_t \min(1, c / \lVert g_t \rVert) \\
        m_t &= b_1 m_{t-1} + (1 - b_1) \tilde g_t, \qquad
        v_t = b_2 v_{t-1} + (1 - b_2) \tilde g_t^2 \\
        p_t &= \hat m_t / (\sqrt{\hat v_t} + \epsilon) \\
        z_{t+1} &= z_t - \eta_t \, (2 p_t - p_{t-1} + \lambda z_t)
      \end{align*}

    The order matters: clip, then precondition, then optimism, then the decoupled weight
    decay, then the learning rate. Clipping after the optimism would cut the correction
    away, and preconditioning after it would normalise a difference of gradients.

    The default `b1` is zero on purpose. Momentum is a memory of past gradients with a
    positive sign, optimism one with a negative sign: on a bilinear game b1 = 0.9
    outweighs the correction and the iterates circle, as plain Adam's do. Keep
    `b1 <= 0.5` in a game.

    At a constant learning rate the iterates reach a ball of radius about
    :math:`\eta \sqrt{d}` around the equilibrium and stay in it: near the equilibrium
    the gradients vanish, and so does their second moment, so the effective step grows
    until it no longer contracts. The ball is the same for b2 = 0.99 and 0.999, but the
    former gets there several times sooner (measured on random bilinear games in 8 + 8
    dimensions, learning rate 0.01). With a decaying learning rate the last iterate
    converges; plain `ogda` does at a constant one.

    Args:
      learning_rate: a step size, or a schedule from the step count to one; it
        multiplies the extrapolated update (see `ogda`).
      b1: decay of the first moment. A plain 0.0 keeps no first moment and saves one
        copy of the parameters.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      clip_norm: largest global norm of the gradient; None for no clipping.
      weight_decay: decoupled decay, not extrapolated; other than zero it needs `params`
        in `update`.
      factored: for memory: of :math:`v_t` only the means of its rows and columns are
        kept, as in Adafactor, where a kernel has 128 of both, and :math:`p_{t-1}` in
        bfloat16. It needs `params` in `update`, and there is no first moment.

    Returns:
      A gradient transformation.

    Raises:
      ValueError: `factored` with a first moment.

    Example:
      >>> import jax.numpy as jnp
      >>> optimiser = ogda_adam(1e-2, clip_norm=1.0)
      >>> state = optimiser.init(jnp.zeros(3))
      >>> updates, state = optimiser.update(jnp.array([1.0, -2.0, 4.0]), state)
      >>> [round(u, 4) for u in updates.tolist()]  # the first step has size eta
      [-0.01, 0.01, -0.01]

    References:
      Daskalakis et al., `Training GANs with Optimism
      <https://arxiv.org/abs/1711.00141>`_, ICLR 2018.

      Popov, "A modification of the Arrow-Hurwicz method for search of saddle points",
      Mathematical Notes 28, 1980.

      Mokhtari et al., `A Unified Analysis of Extra-gradient and Optimistic Gradient
      Methods for Saddle Point Problems <https://arxiv.org/abs/1901.08511>`_, AISTATS
      2020.

      Shazeer and Stern, `Adafactor <https://arxiv.org/abs/1804.04235>`_, ICML 2018.
    """
    stages = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    stages.append(_preconditioner(b1, b2, eps, factored))
    stages.append(scale_by_ogda(jnp.bfloat16 if factored else None))
    if not _is_plain_zero(weight_decay):
        stages.append(optax.add_decayed_weights(weight_decay))
    return optax.chain(*stages, optax.scale_by_learning_rate(learning_rate))


def _preconditioner(
    b1: Scalar, b2: Scalar, eps: Scalar, factored: bool
) -> optax.GradientTransformation:
    """What makes :math:`p_t` of the clipped gradient, see `ogda_adam`."""
    if factored and not _is_plain_zero(b1):
        raise ValueError(f"factored moments have no first one: b1 is 0, not {b1}")
    if factored:
        return optax.scale_by_factored_rms(decay_rate=b2, decay_rate_fn=_unbiased_decay)
    if _is_plain_zero(b1):
        return optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def _unbiased_decay(step: Any, b2: Any) -> Any:
    """Of a mean that weighs gradients as Adam's does after its bias is corrected."""
    weight = 1.0 - jnp.asarray(b2) ** jnp.asarray(step, jnp.float32)
    return b2 * weight / (1.0 - b2 + b2 * weight)


def _is_plain_zero(value: Scalar) -> bool:
    """Under optax.inject_hyperparams the numbers are arrays, which cannot decide what
    a chain is made of: only plain Python zeros take the short cuts.
    """
    return isinstance(value, (int, float)) and value == 0
