"""OGDA: the rule against NumPy and optax, composition, and convergence in games."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aprm_jax.game.ogda import ScaleByOgdaState, ogda, ogda_adam, scale_by_ogda

OPTIMISERS = {
    "ogda": lambda: ogda(0.1),
    "ogda_adam": lambda: ogda_adam(optax.cosine_decay_schedule(0.02, 1500)),
    "ogda_adam_full": lambda: ogda_adam(
        optax.cosine_decay_schedule(0.02, 1500), b1=0.3, clip_norm=1.0
    ),
}


def _gradients(steps: int = 6, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "kernel": rng.normal(size=(3, 2)).astype(np.float32),
            "bias": rng.normal(size=2).astype(np.float32),
        }
        for _ in range(steps)
    ]


def _params() -> dict[str, jax.Array]:
    return {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}


def _updates(optimiser, gradients, params: Any = None) -> list[Any]:
    """The updates of every step, as NumPy."""
    params = _params() if params is None else params
    state = optimiser.init(params)
    collected = []
    for gradient in gradients:
        updates, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        collected.append(jax.tree.map(np.asarray, updates))
    return collected


def _update(optimiser, gradient, params, state: Any = None) -> tuple[Any, Any]:
    """One update, from a fresh state by default."""
    state = optimiser.init(params) if state is None else state
    return optimiser.update(gradient, state, params)


def _assert_equal(left, right, **tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right
    )


def test_extrapolates_and_takes_the_first_gradient_as_its_own_predecessor():
    gradients = _gradients()
    expected = [gradients[0]] + [
        {k: 2 * now[k] - before[k] for k in now}
        for before, now in itertools.pairwise(gradients)
    ]
    _assert_equal(_updates(scale_by_ogda(), gradients), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "rate", [0.1, optax.linear_schedule(0.2, 0.01, 4)], ids=["constant", "schedule"]
)
def test_equals_optax_at_every_step_the_first_included(rate):
    gradients = _gradients()
    ours = _updates(ogda(rate), gradients)
    theirs = _updates(optax.optimistic_gradient_descent(rate), gradients)
    _assert_equal(ours, theirs, rtol=1e-6, atol=1e-7)


def test_schedule_multiplies_the_extrapolated_update():
    gradients = _gradients(3)
    rates = [0.5, 0.1, 0.02]
    updates = _updates(ogda(lambda step: jnp.array(rates)[step]), gradients)
    expected = -rates[2] * (2 * gradients[2]["bias"] - gradients[1]["bias"])
    np.testing.assert_allclose(updates[2]["bias"], expected, rtol=1e-5)


def test_chain_order_is_clip_precondition_optimism_decay_rate():
    gradients, params = _gradients(), _params()
    b1, b2, eps, clip, decay, rate = 0.3, 0.9, 1e-6, 0.5, 0.1, 0.01
    actual = _updates(
        ogda_adam(rate, b1=b1, b2=b2, eps=eps, clip_norm=clip, weight_decay=decay),
        gradients,
    )
    z = {k: np.asarray(v, np.float64) for k, v in params.items()}
    m = {k: np.zeros_like(v) for k, v in z.items()}
    v = {k: np.zeros_like(a) for k, a in z.items()}
    previous = None
    for step, gradient in enumerate(gradients, start=1):
        norm = np.sqrt(sum(np.square(g).sum() for g in gradient.values()))
        now = {}
        for k, g in gradient.items():
            g = g * min(1.0, clip / norm)
            m[k] = b1 * m[k] + (1 - b1) * g
            v[k] = b2 * v[k] + (1 - b2) * g**2
            now[k] = m[k] / (1 - b1**step) / (np.sqrt(v[k] / (1 - b2**step)) + eps)
        before = previous or now
        for k in z:
            update = -rate * (2 * now[k] - before[k] + decay * z[k])
            np.testing.assert_allclose(actual[step - 1][k], update, rtol=2e-4)
            z[k] = z[k] + update
        previous = now


def test_without_momentum_equals_adam_with_b1_zero_and_keeps_one_copy_less():
    gradients = _gradients()
    short = ogda_adam(0.1)
    full = optax.chain(
        optax.scale_by_adam(b1=0.0, b2=0.99),
        scale_by_ogda(),
        optax.scale_by_learning_rate(0.1),
    )
    _assert_equal(
        _updates(short, gradients), _updates(full, gradients), rtol=1e-4, atol=1e-6
    )

    def size(tree):
        return sum(np.size(leaf) for leaf in jax.tree.leaves(tree) if np.size(leaf) > 1)

    params = _params()
    assert size(short.init(params)) == size(full.init(params)) - size(params)


def test_masked_leaves_pass_through():
    gradients = _gradients(2)
    mask = {"kernel": True, "bias": False}
    updates = _updates(optax.masked(scale_by_ogda(), mask), gradients)
    np.testing.assert_allclose(updates[1]["bias"], gradients[1]["bias"])
    np.testing.assert_allclose(
        updates[1]["kernel"],
        2 * gradients[1]["kernel"] - gradients[0]["kernel"],
        rtol=1e-6,
    )


@pytest.mark.parametrize("make", [ogda, ogda_adam], ids=["ogda", "ogda_adam"])
def test_inject_hyperparams_reads_and_changes_the_rate(make):
    gradients, params = _gradients(2), _params()
    injected = optax.inject_hyperparams(make)(learning_rate=0.1)
    _assert_equal(
        _updates(injected, gradients), _updates(make(0.1), gradients), atol=1e-6
    )
    state: Any = injected.init(params)
    assert state.hyperparams["learning_rate"] == pytest.approx(0.1)
    state.hyperparams["learning_rate"] = jnp.array(0.0)
    updates, _ = _update(injected, gradients[0], params, state)
    assert not np.any(updates["kernel"])


def test_multi_steps_extrapolates_the_accumulated_gradient():
    gradients = _gradients(4)
    accumulated = optax.MultiSteps(ogda(0.1), every_k_schedule=2)
    updates = _updates(accumulated, gradients)
    means = [
        {k: (gradients[i][k] + gradients[i + 1][k]) / 2 for k in gradients[i]}
        for i in (0, 2)
    ]
    assert not np.any(updates[0]["kernel"])
    assert not np.any(updates[2]["kernel"])
    _assert_equal([updates[1], updates[3]], _updates(ogda(0.1), means), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_dtype_is_kept_and_the_second_call_compiles_nothing(name, dtype):
    optimiser = OPTIMISERS[name]()
    params: Any = {"w": jnp.ones(4, dtype)}
    gradient = {"w": jnp.arange(4).astype(dtype)}

    def step(params, state):
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), updates, state

    jitted: Any = jax.jit(step)
    first: Any = optimiser.init(params)
    state = first
    for _ in range(3):
        params, updates, state = jitted(params, state)
    assert params["w"].dtype == updates["w"].dtype == dtype
    assert jitted._cache_size() == 1
    # Bitwise the same structure and types: the state can be carried by a scan.
    assert jax.tree.structure(first) == jax.tree.structure(state)
    assert [leaf.dtype for leaf in jax.tree.leaves(first)] == [
        leaf.dtype for leaf in jax.tree.leaves(state)
    ]


def test_state_keeps_the_parameters_dtype_under_float32_gradients():
    gradient = jnp.full(3, 1.001, jnp.float32)
    updates, state = _update(scale_by_ogda(), gradient, jnp.ones(3, jnp.bfloat16))
    assert updates.dtype == gradient.dtype == jnp.float32
    assert updates[0] == np.float32(1.001)
    assert isinstance(state, ScaleByOgdaState)
    assert jnp.asarray(state.previous).dtype == jnp.bfloat16


def test_sharding_is_kept():
    devices = np.array(jax.devices())
    mesh = jax.sharding.Mesh(devices, ("fsdp",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    params = jax.device_put(jnp.ones((len(devices), 2)), sharding)
    gradient = jax.device_put(jnp.full((len(devices), 2), 0.5), sharding)
    optimiser = ogda(0.1)
    state: Any = optimiser.init(params)
    assert state[0].previous.sharding == sharding
    updates, state = jax.jit(optimiser.update)(gradient, state, params)
    assert updates.sharding.is_equivalent_to(sharding, 2)
    assert state[0].previous.sharding.is_equivalent_to(sharding, 2)


def _play(optimiser, gradient, start, steps):
    """Distances to the origin over a play; both players in one pytree."""

    def step(carry, _):
        z, state = carry
        updates, state = optimiser.update(gradient(z), state, z)
        z = optax.apply_updates(z, updates)
        return (z, state), optax.tree.norm(z)

    @jax.jit
    def run(z):
        return jax.lax.scan(step, (z, optimiser.init(z)), None, length=steps)[1]

    return np.asarray(run(start))


def _bilinear(regulariser):
    """min over x, max over y of x.y + regulariser * (|x|^2 - |y|^2)."""

    def gradient(z):
        return {
            "x": z["y"] + 2 * regulariser * z["x"],
            "y": -z["x"] + 2 * regulariser * z["y"],
        }

    start = {"x": jnp.array([2.0, -1.0, 0.5, 1.0]), "y": jnp.array([1.0, 2.0, 2.0, 0])}
    return gradient, start


@pytest.mark.parametrize("name", OPTIMISERS)
def test_reaches_the_optimum_of_a_quadratic(name):
    curvature = jnp.array([1.0, 3.0])
    start = jnp.array([1.0, -2.0])
    distance = _play(OPTIMISERS[name](), lambda z: curvature * z, start, 1500)
    assert distance[-1] < 1e-3


@pytest.mark.parametrize("name", OPTIMISERS)
def test_converges_on_the_regularised_bilinear_game(name):
    distance = _play(OPTIMISERS[name](), *_bilinear(0.05), steps=1500)
    assert distance[0] > 3.5
    assert distance[-1] < 5e-3


def test_plain_gradient_and_default_adam_do_not_converge_where_ours_do():
    gradient, start = _bilinear(0.0)
    schedule = optax.cosine_decay_schedule(0.05, 3000)
    gda = _play(optax.sgd(0.1), gradient, start, 1500)
    adam = _play(optax.adam(schedule), gradient, start, 3000)
    assert gda[-1] > 4 * gda[0]
    assert adam[-1] > adam[0]
    assert _play(ogda(0.1), gradient, start, 1500)[-1] < 1e-2
    assert _play(ogda_adam(schedule), gradient, start, 3000)[-1] < 5e-3


def test_momentum_undoes_the_optimism():
    schedule = optax.cosine_decay_schedule(0.02, 1500)
    ends = [
        _play(ogda_adam(schedule, b1=b1), *_bilinear(0.0), steps=1500)[-1]
        for b1 in (0.0, 0.5, 0.9)
    ]
    assert ends[0] < ends[1] < ends[2]
    assert ends[2] > 1.0


def test_a_constant_rate_ends_in_a_ball_of_the_size_of_the_rate():
    distance = _play(ogda_adam(0.01), *_bilinear(0.05), steps=3000)
    assert 1e-4 < distance[-500:].max() < 10 * 0.01 * np.sqrt(8)


def test_factored_moments_of_small_kernels_are_whole_ones():
    whole, factored = (
        _updates(ogda_adam(0.1, eps=0.0, factored=flag), _gradients())
        for flag in (False, True)
    )
    # The gradient before is rounded to bfloat16, and is that of no first step.
    _assert_equal(factored[0], whole[0], rtol=1e-6)
    for ours, theirs in zip(factored[1:], whole[1:], strict=True):
        _assert_equal(ours, theirs, atol=0.1 * 2 * 2**-8)


def test_factored_moments_are_exact_where_squares_are_an_outer_product():
    rng = np.random.default_rng(0)
    row, column = rng.normal(size=(2, 128, 1)), rng.normal(size=(2, 1, 130))
    gradient = {"kernel": jnp.asarray(row * column, jnp.float32)}
    params = jax.tree.map(jnp.zeros_like, gradient)
    for update in _updates(ogda_adam(0.5, factored=True), [gradient] * 3, params):
        _assert_equal(update, {"kernel": -0.5 * np.sign(row * column)}, atol=5e-3)


def test_factored_moments_take_a_quarter_of_the_memory():
    params = {"kernel": jnp.zeros((3, 256, 512))}

    def size(**options):
        state = jax.eval_shape(ogda_adam(0.1, **options).init, params)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))

    assert size(factored=True) < 0.26 * size()
    with pytest.raises(ValueError, match=r"b1 is 0, not 0\.9"):
        size(factored=True, b1=0.9)
