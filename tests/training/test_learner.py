"""A learner's state before the first step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from aprm_jax.game.ogda import ogda_adam
from aprm_jax.training import learner
from aprm_jax.training.learner import Loss
from aprm_jax.training.masked import MeanMetric


def _loss(params, batch) -> Loss:
    return MeanMetric.of((params["w"] * batch) ** 2, jnp.ones_like(batch)), {}


@pytest.mark.parametrize("on_mesh", [False, True])
def test_what_a_learner_starts_from_survives_its_updates(on_mesh):
    # A backbone that the solver reads and a PRM starts from is one array in memory.
    mesh = None
    if on_mesh:
        mesh = jax.make_mesh(
            (1, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
        )
    tx, params = optax.sgd(0.1), {"w": jnp.arange(3.0)}
    update = learner.make_update(_loss, tx, mesh)
    state = learner.start(params, tx, mesh)
    state, _ = update(state, jnp.ones(3))
    np.testing.assert_array_equal(params["w"], [0.0, 1.0, 2.0])
    assert np.all(np.asarray(state.params["w"])[1:] < [1.0, 2.0])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "tx",
    [
        ogda_adam(1e-2, clip_norm=1.0),
        ogda_adam(1e-2, clip_norm=1.0, factored=True),
        optax.adam(optax.linear_schedule(1e-2, 0.0, 9)),
        optax.adamw(1e-2, weight_decay=0.1),
    ],
    ids=["ogda", "factored", "adam", "adamw"],
)
def test_a_batch_that_weighs_nothing_is_no_step(tx, parts):
    """By momentum a learner would go on, and by optimism back."""

    def loss(params, batch) -> Loss:
        x, weight = batch
        return MeanMetric.of((x @ params["w"]) ** 2, weight), {}

    update = learner.make_update(loss, tx, microbatches=parts)

    def learned(weights):
        state, flags = learner.start({"w": jnp.array([1.0, 2.0])}, tx), []
        for weight in weights:
            x = jnp.array([[1.0, -3.0], [0.5, 2.0]])
            state, metrics = update(state, (x, jnp.full(2, weight)))
            flags.append(float(metrics["nonfinite"]))
        assert not any(flags)
        return jax.tree.map(np.asarray, state)

    some, all_ = learned([1.0, 1.0, 0.0, 0.0, 1.0]), learned([1.0, 1.0, 1.0])
    jax.tree.map(np.testing.assert_array_equal, some, all_)
    assert not np.array_equal(learned([1.0, 1.0]).params["w"], all_.params["w"])


def test_a_change_of_gradients_is_measured_in_float32():
    # As factored moments keep them, whose sums would be rounded to 8 bits.
    before, now = (
        {"w": jax.random.normal(key, (3001,)).astype(jnp.bfloat16)}
        for key in jax.random.split(jax.random.key(0))
    )
    a, b = (np.asarray(tree["w"], np.float64) for tree in (before, now))
    found = learner.gradient_change(now, before)
    assert found.dtype == jnp.float32
    expected = np.linalg.norm(b - a) / np.linalg.norm(b)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def _deep(params, batch) -> Loss:
    hidden = batch
    for _ in range(6):  # each keeps what its gradient needs
        hidden = jnp.tanh(hidden @ params["w"])
    return MeanMetric.of(hidden**2, jnp.ones_like(hidden)), {}


@pytest.mark.parametrize(("parts", "share"), [(2, 0.8), (4, 0.5)])
def test_microbatches_hold_memory_one_at_a_time(parts, share):
    def temporary(parts: int) -> int:
        def gradient(params, batch):
            return learner.value_and_gradient(_deep, params, batch, parts)

        shapes = {"w": jnp.zeros((64, 64))}, jnp.zeros((8192, 64))
        compiled = jax.jit(gradient).lower(*shapes).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(parts) < share * temporary(1)  # beside the batch, twice
