"""One learner: a player's gradient, its optimiser step, and the guard around both.

Everything that is trained here is trained by this: language models, PRMs on labels,
and both players of the game, whose joint update is two of these steps in one compiled
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float32

from aprm_jax.training import hosts
from aprm_jax.training.masked import MaxMetric, MeanMetric, SumMetric
from aprm_jax.training.mesh import on_mesh, param_shardings, pin

Params = Any
Scalars = dict[str, Float32[Array, ""]]
# A loss is a mean whose weight does not depend on the parameters, and its metrics are
# means, sums or maxima: parts of a batch add up to the whole.
Metric = MeanMetric | SumMetric | MaxMetric
Loss = tuple[MeanMetric, Mapping[str, Metric]]
LossFn = Callable[[Params, Any], Loss]


@flax.struct.dataclass
class LearnerState:
    """What an update of one player changes.

    Attributes:
      params: all parameters, or an adapter and heads.
      opt: optimiser state; None where the player is not trained.
    """

    params: Params
    opt: Any = None


def value_and_gradient(
    loss_fn: LossFn, params: Params, batch: Any, microbatches: int = 1
) -> tuple[Float32[Array, ""], Scalars, Params]:
    """The loss of a batch, its metrics, and its gradient.

    Args:
      loss_fn: of (params, batch).
      params: what to differentiate with respect to.
      batch: a pytree whose leaves have rows in front.
      microbatches: parts that are computed one after the other and hold memory one
        at a time. They are summed with their weights: their number changes rounding
        alone. It must divide the rows.
    """
    loss, metrics, gradient = _summed(loss_fn, params, batch, microbatches)
    return loss.mean(), _shown(metrics), gradient


def _summed(
    loss_fn: LossFn, params: Params, batch: Any, microbatches: int
) -> tuple[MeanMetric, Mapping[str, Metric], Params]:
    """As `value_and_gradient`, the loss and its metrics as what adds up."""
    if microbatches == 1:

        def mean(params):
            loss, metrics = loss_fn(params, batch)
            return loss.mean(), (loss, dict(metrics))

        (_, found), gradient = jax.value_and_grad(mean, has_aux=True)(params)
        return *found, gradient

    def total(params, part):
        loss, metrics = loss_fn(params, part)
        return loss.total, (loss, dict(metrics))

    def summed(part):
        (_, found), gradient = jax.value_and_grad(total, has_aux=True)(params, part)
        return found, jax.tree.map(lambda x: x.astype(jnp.float32), gradient)

    def add(carry, part):
        (loss, metrics), gradient = carry
        (more, also), slope = summed(part)
        metrics = {name: metrics[name] + also[name] for name in metrics}
        return ((loss + more, metrics), jax.tree.map(jnp.add, gradient, slope)), None

    parts = jax.tree.map(lambda x: _dealt(jnp.asarray(x), microbatches), batch)
    # From zeros: were the first part computed before the loop, the compiler might run
    # the two beside each other, each with memory of its own (measured: twice as much).
    found = jax.eval_shape(summed, jax.tree.map(lambda x: x[0], parts))
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found)
    ((loss, metrics), gradient), _ = jax.lax.scan(add, none, parts)
    weight = jnp.maximum(loss.weight, 1e-8)
    gradient = jax.tree.map(lambda g, p: (g / weight).astype(p.dtype), gradient, params)
    return loss, metrics, gradient


def by_microbatch(function: Callable[[Any], Any], batch: Any, microbatches: int) -> Any:
    """`function` of a batch, row by row the same, computed in as many parts."""
    if microbatches == 1:
        return function(batch)
    parts = jax.tree.map(lambda x: _dealt(jnp.asarray(x), microbatches), batch)
    return jax.tree.map(_collected, jax.lax.map(function, parts))


def learn(
    tx: optax.GradientTransformation,
    state: LearnerState,
    loss_fn: LossFn,
    batch: Any,
    microbatches: int = 1,
    *,
    summable: bool = False,
) -> tuple[LearnerState, dict[str, Any], Bool[Array, ""], Bool[Array, ""]]:
    """One step down the loss, and two flags that say what it is worth, for `guarded`.

    Args:
      tx: the optimiser.
      state: before the step.
      loss_fn: of (params, batch).
      batch: see `value_and_gradient`.
      microbatches: likewise.
      summable: leaves the loss and its metrics as what adds up over several updates.

    Returns:
      The state after the step, whatever it is worth; metrics with `loss`,
      `grad_norm` and, of an optimistic optimiser, `grad_change` (||g_t - g_{t-1}|| /
      ||g_t||: how far optimism looks ahead); whether everything about it was finite;
      and whether anything in the batch weighs anything: if not, momentum alone would
      move the state, and optimism backwards.
    """
    total, parts, gradient = _summed(loss_fn, state.params, batch, microbatches)
    loss, norm = total.mean(), optax.tree.norm(gradient)
    updates, opt = tx.update(gradient, state.opt, state.params)
    found = {"loss": total, **parts} if summable else {"loss": loss, **_shown(parts)}
    metrics: dict[str, Any] = found | {"grad_norm": norm}
    previous = optax.tree_utils.tree_get(state.opt, "previous")
    if previous is not None:
        current = optax.tree_utils.tree_get(opt, "previous")
        metrics["grad_change"] = gradient_change(current, previous)
    after = LearnerState(optax.apply_updates(state.params, updates), opt)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    return after, metrics, finite, total.weight > 0


def gradient_change(gradient: Params, previous: Params) -> Float32[Array, ""]:
    """||g_t - g_{t-1}|| / ||g_t||: how far optimism looks ahead; in float32."""
    # Factored moments keep them in bfloat16, which has no room for sums of squares.
    gradient = optax.tree.cast(gradient, jnp.float32)
    previous = optax.tree.cast(previous, jnp.float32)
    change = jax.tree.map(jnp.subtract, gradient, previous)
    return optax.tree.norm(change) / (optax.tree.norm(gradient) + 1e-12)


def guarded(
    mesh: jax.sharding.Mesh | None,
    before: Any,
    after: Any,
    finite: Bool[Array, ""],
    learned: Any,
) -> tuple[Any, Scalars]:
    """`after` where all was finite, else `before`; pinned to its place on the mesh.

    `learned` is a flag, or one for each of several states: where it is not set that
    state is `before` too, its optimiser's included. One choice for both reasons: a
    second one would change how the compiler rounds.
    """

    def chosen(learned, after, before):
        good = finite & learned
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), after, before)

    kept = pin(mesh, jax.tree.map(chosen, learned, after, before))
    return kept, {"nonfinite": 1.0 - finite.astype(jnp.float32)}


def make_update(
    loss_fn: Callable[..., Loss],
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
    *,
    microbatches: int = 1,
    prefix: str = "",
    summable: bool = False,
) -> Callable[..., tuple[LearnerState, dict[str, Any]]]:
    """Compiles `update(state, batch, *rest) -> (state, metrics)`; the state is donated.

    Where the loss or the gradient is not finite the old state comes back and
    `metrics["nonfinite"]` is 1; so it does, without that, where nothing in the batch
    weighs anything. On a `mesh` the state stays where `training.mesh` puts it.

    Args:
      loss_fn: of (params, batch, *rest); `rest` is the same for all microbatches.
      tx: the optimiser.
      mesh: the devices.
      microbatches: see `value_and_gradient`.
      prefix: of the metrics' names.
      summable: see `learn`.
    """

    def update(state: LearnerState, batch: Any, *rest: Any):
        def loss_of(params, part):
            return loss_fn(params, part, *rest)

        after, metrics, *worth = learn(
            tx, state, loss_of, batch, microbatches, summable=summable
        )
        kept, flag = guarded(mesh, state, after, *worth)
        return kept, {prefix + name: x for name, x in metrics.items()} | flag

    return jax.jit(on_mesh(mesh, update), donate_argnums=0)


def start(
    params: Params,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
) -> LearnerState:
    """A state before the first step, on the `mesh` if there is one.

    It shares no array with `params`: updates donate their state, and `params` may be a
    reference as well, or a backbone that other roles read.
    """
    own = jax.tree.map(lambda x: x + 0, _on(mesh, params))
    return LearnerState(own, _on(mesh, tx.init(own)))


def _on(mesh: jax.sharding.Mesh | None, tree: Any) -> Any:
    return tree if mesh is None else hosts.place(tree, param_shardings(mesh, tree))


def _shown(metrics: Mapping[str, Metric]) -> Scalars:
    return {name: metric.shown() for name, metric in metrics.items()}


def _dealt(x: Array, parts: int) -> Array:
    """[B, ...] as [parts, B / parts, ...], rows dealt out in turn.

    In turn, because rows are split over devices in blocks: each part then has its
    rows on all of them.
    """
    if x.shape[0] % parts:
        raise ValueError(f"{parts} microbatches do not divide {x.shape[0]} rows")
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)


def _collected(x: Array) -> Array:
    """The opposite of `_dealt`."""
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])
