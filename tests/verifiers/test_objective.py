"""R's loss against closed forms in float64, and its gradients against each other."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.verifiers.objective import (
    PrmObjective,
    bernoulli_entropy,
    bernoulli_kl,
    prm_loss,
)

RIGHT, WRONG = 0.9, -0.3
NAMES = ("expected", "cross_entropy", "ppo")
KEY = jax.random.key(0)


def _loss(logits, ref, labels, mask, objective, key=KEY):
    """The loss as a number, and the metrics' means."""
    draws = jax.random.uniform(key, logits.shape)
    loss, metrics = prm_loss(logits, ref, labels, mask, objective, draws)
    return loss.mean(), {name: value.shown() for name, value in metrics.items()}


def _objective(name: str, beta: float = 0.4, eta: float = 0.15) -> PrmObjective:
    return PrmObjective(name, beta=beta, eta=eta, right=RIGHT, wrong=WRONG)


def _batch(seed: int = 0, shape: tuple[int, int] = (5, 3)):
    """Logits, reference logits, labels (two of them soft) and weights (some 0)."""
    rng = np.random.default_rng(seed)
    logits, ref = 2 * rng.normal(size=(2, *shape)).astype(np.float32)
    labels = rng.integers(0, 2, size=shape).astype(np.float32)
    labels[0, :2] = 0.25, 0.8
    mask = rng.integers(0, 3, size=shape).astype(np.float32)
    mask[0] = 1
    return tuple(jnp.array(x) for x in (logits, ref, labels, mask))


def _probability(logits) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


def test_divergence_and_entropy_of_two_verdicts():
    logits, ref, _, _ = _batch(1, (6, 7))
    p, q = _probability(logits), _probability(ref)
    np.testing.assert_allclose(bernoulli_kl(logits, ref), _divergence(p, q), atol=1e-6)
    np.testing.assert_allclose(bernoulli_entropy(logits), _entropy(p), atol=1e-6)
    np.testing.assert_allclose(bernoulli_kl(logits, logits), 0.0, atol=1e-7)
    # Where probabilities have rounded to 0 and 1 the log-odds still tell.
    far = jnp.array([40.0, -40.0])
    np.testing.assert_allclose(bernoulli_kl(far, -far), [40.0, 40.0], rtol=1e-5)
    assert np.all(np.asarray(bernoulli_entropy(far)) < 1e-15)


@pytest.mark.parametrize("name", ["expected", "cross_entropy"])
def test_loss_is_the_closed_form(name):
    logits, ref, labels, mask = _batch()
    p, q, y = _probability(logits), _probability(ref), np.asarray(labels, np.float64)
    reward = RIGHT * (y * p + (1 - y) * (1 - p)) + WRONG * (y * (1 - p) + (1 - y) * p)
    utility = reward
    if name == "cross_entropy":
        utility = (RIGHT - WRONG) * (y * np.log(p) + (1 - y) * np.log(1 - p))
    regularised = utility - 0.4 * _divergence(p, q) + 0.15 * _entropy(p)
    loss, metrics = _loss(logits, ref, labels, mask, _objective(name), KEY)
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, -np.average(regularised, weights=mask), rtol=1e-5)
    expected = {
        "reward": np.average(reward, weights=mask),
        "kl": np.average(_divergence(p, q), weights=mask),
        "entropy": np.average(_entropy(p), weights=mask),
        "accuracy": np.average((p > 0.5) == (y > 0.5), weights=mask),
    }
    assert metrics.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(metrics[key], value, rtol=1e-5, err_msg=key)


def test_ppos_loss_and_gradient_are_those_of_the_drawn_verdict():
    """At ratio 1: the advantage of the draw, and the score function times it."""
    logits, ref, labels, mask = _batch()
    objective = _objective("ppo", 0.0, 0.0)
    (loss, _), gradient = jax.value_and_grad(_loss, has_aux=True)(
        logits, ref, labels, mask, objective, KEY
    )
    p = _probability(logits)
    drawn = np.asarray(jax.random.bernoulli(KEY, jax.nn.sigmoid(logits)))
    assert 0 < drawn.sum() < drawn.size
    gap = (RIGHT - WRONG) * (2 * np.asarray(labels, np.float64) - 1)
    advantage = gap * np.where(drawn, 1 - p, -p)
    np.testing.assert_allclose(loss, -np.average(advantage, weights=mask), rtol=1e-5)
    score = np.where(drawn, 1 - p, -p)  # d log P(drawn) / d logit
    expected = -np.asarray(mask) * advantage * score / np.sum(mask)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_ppos_gradient_is_that_of_the_expectation_on_average():
    logits, ref, labels, mask = _batch(2)

    def gradient(key, name):
        loss = jax.grad(lambda x: _loss(x, ref, labels, mask, _objective(name), key)[0])
        return loss(logits)

    draws = jax.jit(jax.vmap(lambda key: gradient(key, "ppo")))(
        jax.random.split(KEY, 4096)
    )
    expected = np.asarray(gradient(KEY, "expected"))
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - expected) < 5 * error + 1e-6)
    assert np.any(error > 0) and np.max(np.abs(expected)) > 20 * np.max(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_step_has_no_influence_even_if_it_is_not_a_number(name):
    logits, ref, labels, mask = _batch()
    off = mask == 0
    assert np.any(off)

    def run(fill):
        args = [jnp.where(off, fill, x) for x in (logits, ref, labels)]
        (loss, metrics), gradient = jax.value_and_grad(_loss, has_aux=True)(
            *args, mask, _objective(name), KEY
        )
        return loss, metrics, gradient

    expected = run(0.5)
    for fill in (jnp.nan, jnp.inf):
        got = run(fill)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert not np.any(np.asarray(expected[2])[np.asarray(off)])


@pytest.mark.parametrize("name", NAMES)
def test_a_certain_verdict_gives_a_finite_gradient(name):
    """float32's sigmoid is exactly 1 from log-odds of 17 on."""
    logits = jnp.array([[30.0, -30.0, 200.0, -200.0]])
    labels = jnp.array([[1.0, 1.0, 0.0, 0.0]])
    gradient = jax.grad(
        lambda x: _loss(x, 0 * x, labels, jnp.ones((1, 4)), _objective(name), KEY)[0]
    )(logits)
    assert np.all(np.isfinite(gradient))


def test_an_empty_mask_costs_nothing():
    logits, ref, labels, mask = _batch()
    loss, gradient = jax.value_and_grad(
        lambda x: _loss(x, ref, labels, 0 * mask, _objective("expected"), KEY)[0]
    )(logits)
    assert loss == 0.0 and not np.any(gradient)


def test_the_reference_gets_no_gradient():
    logits, ref, labels, mask = _batch()
    gradient = jax.grad(
        lambda x: _loss(logits, x, labels, mask, _objective("expected"), KEY)[0]
    )(ref)
    assert not np.any(gradient)


def test_unknown_objective_is_named():
    logits, ref, labels, mask = _batch()
    objective = dataclasses.replace(_objective("expected"), name="regret")
    with pytest.raises(ValueError, match="regret"):
        _loss(logits, ref, labels, mask, objective, KEY)
