"""PPO's pieces against NumPy loops, and against exact sums over a small policy."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.policy.advantages import gae, group_advantages
from aprm_jax.policy.losses import clipped_surrogate
from aprm_jax.policy.rewards import at_last_token, regularised

BETA, ETA = 0.3, 0.07


def _spans(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Masks: one token first, then nothing, everything, random spans, and gaps."""
    mask = np.zeros((rows, width), np.float32)
    mask[0, width // 2] = 1
    mask[2] = 1
    for row in mask[3:]:
        start, end = sorted(rng.choice(width + 1, size=2, replace=False))
        row[start:end] = 1
    mask[-2:, 1::2] = 0  # a prompt or a tool's answer between the policy's tokens
    mask[-2:, 2] = 1
    return mask


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (0.95, 0.0)])
def test_gae_is_the_discounted_sum_of_residuals(gamma, lam):
    rng = np.random.default_rng(0)
    rows, width = 12, 9
    rewards, values = rng.normal(size=(2, rows, width)).astype(np.float32)
    mask = _spans(rng, rows, width)
    expected = np.zeros((rows, width))
    for b in range(rows):
        span = np.flatnonzero(mask[b])
        for i in range(len(span)):
            for j in range(i, len(span)):
                after = values[b, span[j + 1]] if j + 1 < len(span) else 0.0
                residual = rewards[b, span[j]] + gamma * after - values[b, span[j]]
                expected[b, span[i]] += (gamma * lam) ** (j - i) * residual
    got, returns = gae(
        jnp.array(rewards), jnp.array(values), jnp.array(mask), gamma=gamma, lam=lam
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(returns, (expected + values) * mask, atol=1e-5)
    # A mask of one token: the advantage is the reward less the value.
    t = width // 2
    np.testing.assert_allclose(got[0, t], rewards[0, t] - values[0, t], rtol=1e-6)
    assert not np.any(got[1]) and not np.any(returns[1])


def test_gae_ignores_what_is_masked():
    rng = np.random.default_rng(1)
    rewards, values = rng.normal(size=(2, 6, 7)).astype(np.float32)
    mask = _spans(rng, 6, 7)
    first = gae(
        jnp.array(rewards), jnp.array(values), jnp.array(mask), gamma=0.9, lam=0.9
    )
    off = 1e3 * (1 - mask)
    second = gae(
        jnp.array(rewards + off),
        jnp.array(values - off),
        jnp.array(mask),
        gamma=0.9,
        lam=0.9,
    )
    np.testing.assert_array_equal(first, second)


def test_the_reward_arrives_at_the_last_masked_token_and_stays_fractional():
    rng = np.random.default_rng(2)
    mask = _spans(rng, 8, 6)
    final = np.linspace(-0.37, 0.61, 8, dtype=np.float32)
    logprobs, ref = -rng.exponential(size=(2, 8, 6)).astype(np.float32)
    got = np.asarray(
        regularised(
            at_last_token(jnp.array(final), jnp.array(mask)),
            jnp.array(logprobs),
            jnp.array(ref),
            jnp.array(mask),
            beta=BETA,
            eta=ETA,
        )
    )
    expected = np.zeros((8, 6))
    for b in range(8):
        span = np.flatnonzero(mask[b])
        for t in span:
            expected[b, t] = BETA * ref[b, t] - (BETA + ETA) * logprobs[b, t]
        if len(span):
            expected[b, span[-1]] += final[b]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


# A policy over two tokens of three: 9 sequences, whose sums are exact.
SEQUENCES = np.array(list(itertools.product(range(3), repeat=2)))


def _enumerate(theta: jax.Array) -> jax.Array:
    """Log-probability of both tokens of each sequence; theta is [1 + 3, 3]."""
    logp = jax.nn.log_softmax(theta)
    first = logp[0][SEQUENCES[:, 0]]
    second = logp[1 + SEQUENCES[:, 0], SEQUENCES[:, 1]]
    return jnp.stack([first, second], axis=1)


def _utility(theta: jax.Array, ref: jax.Array, rewards: jax.Array) -> jax.Array:
    """E[r] - beta KL + eta H, from conditional distributions, token by token."""
    p, q = jax.nn.softmax(theta), jax.nn.softmax(ref)
    kl = (p * jnp.log(p / q)).sum(axis=1)
    entropy = -(p * jnp.log(p)).sum(axis=1)
    regulariser = -BETA * kl + ETA * entropy
    expected = regulariser[0] + (p[0] * regulariser[1:]).sum()
    joint = p[0][SEQUENCES[:, 0]] * p[1 + SEQUENCES[:, 0], SEQUENCES[:, 1]]
    return expected + (joint * rewards).sum()


def _theta(seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (4, 3))


def _totals(theta: jax.Array, ref: jax.Array, final: jax.Array) -> jax.Array:
    mask = jnp.ones((9, 2))
    rewards = regularised(
        at_last_token(final, mask),
        _enumerate(theta),
        _enumerate(ref),
        mask,
        beta=BETA,
        eta=ETA,
    )
    return rewards.sum(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_expected_token_rewards_are_the_regularised_utility(seed):
    theta, ref = _theta(seed), _theta(seed + 10)
    final = jax.random.uniform(jax.random.key(seed), (9,))
    joint = jnp.exp(_enumerate(theta).sum(axis=1))
    got = (joint * _totals(theta, ref, final)).sum()
    np.testing.assert_allclose(got, _utility(theta, ref, final), rtol=1e-5)


def test_the_surrogates_gradient_is_that_of_the_regularised_utility():
    """Each sequence weighted by its probability: the policy gradient without noise.

    A group baseline, whatever its value, must not change it.
    """
    theta, ref = _theta(0), _theta(1)
    final = jax.random.uniform(jax.random.key(3), (9,))
    old = _enumerate(theta)
    weight = jnp.exp(old.sum(axis=1))
    totals = _totals(theta, ref, final)
    centred = group_advantages(totals, jnp.zeros(9, jnp.int32), weight)
    assert not np.allclose(totals, centred)

    def surrogate(theta, advantage):
        advantages = jnp.broadcast_to(advantage[:, None], (9, 2))
        mask = jnp.broadcast_to(weight[:, None], (9, 2))
        objective, _ = clipped_surrogate(_enumerate(theta), old, advantages, mask, 0.2)
        return 2 * objective.mean()  # a mean over the two tokens of every sequence

    expected = jax.grad(_utility)(theta, ref, final)
    for advantage in (totals, centred):
        got = jax.grad(surrogate)(theta, advantage)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_group_advantages_match_a_loop():
    rng = np.random.default_rng(4)
    totals = rng.normal(size=10).astype(np.float32)
    groups = np.array([0, 0, 0, 2, 2, 5, 5, 7, 0, 9], np.int32)
    weights = np.array([1, 3, 0, 2, 2, 0, 0, 4, 0, 1], np.float32)
    expected = totals.astype(np.float64)
    for g in set(groups.tolist()):
        members = groups == g
        if weights[members].sum() > 0:
            expected[members] -= np.average(totals[members], weights=weights[members])
    got = group_advantages(jnp.array(totals), jnp.array(groups), jnp.array(weights))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_clipped_surrogate_matches_a_loop():
    rng = np.random.default_rng(5)
    new, old = -rng.exponential(size=(2, 6, 5)).astype(np.float32)
    advantages = rng.normal(size=(6, 5)).astype(np.float32)
    mask = rng.integers(0, 4, size=(6, 5)).astype(np.float32)
    total = clipped = 0.0
    for t in np.ndindex(6, 5):
        ratio = np.exp(new[t] - old[t])
        bounded = min(max(ratio, 0.8), 1.2)
        total += mask[t] * min(ratio * advantages[t], bounded * advantages[t])
        clipped += mask[t] * (ratio < 0.8 or ratio > 1.2)
    got = clipped_surrogate(
        jnp.array(new), jnp.array(old), jnp.array(advantages), jnp.array(mask), 0.2
    )
    expected = (total / mask.sum(), clipped / mask.sum())
    np.testing.assert_allclose([part.mean() for part in got], expected, rtol=1e-5)


def test_nothing_is_gained_beyond_the_clip():
    """Raising a good token's probability, or lowering a bad one's, past the bound."""

    def gradient(ratio, advantage):
        one = jnp.ones((1, 1))
        return jax.grad(
            lambda new: clipped_surrogate(new, 0 * one, advantage * one, one, 0.2)[
                0
            ].mean()
        )(jnp.log(ratio) * one)[0, 0]

    assert gradient(1.3, 1.0) == 0.0 == gradient(0.7, -1.0)
    assert gradient(1.1, 1.0) > 0.0 > gradient(0.9, -1.0)
    assert gradient(0.7, 1.0) > 0.0 > gradient(1.3, -1.0)


def test_a_reward_reaches_the_tokens_before_a_gap():
    mask = jnp.array([[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]])
    rewards = at_last_token(jnp.ones(1), mask)
    advantages, returns = gae(rewards, 0 * mask, mask, gamma=1.0, lam=1.0)
    np.testing.assert_array_equal(advantages, mask)
    np.testing.assert_array_equal(returns, mask)


def test_fractional_rewards_between_tokens_survive():
    """A step's reward is a token's, and no integer."""
    mask = jnp.ones((1, 4))
    rewards = jnp.array([[0.0, 0.75, 0.0, -0.375]])
    kept = regularised(rewards, 0 * mask, 0 * mask, mask, beta=0.1, eta=0.1)
    np.testing.assert_array_equal(kept, rewards)
    advantages, _ = gae(kept, 0 * mask, mask, gamma=1.0, lam=1.0)
    np.testing.assert_array_equal(advantages, [[0.375, 0.375, -0.375, -0.375]])
