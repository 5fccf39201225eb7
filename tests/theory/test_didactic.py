"""RL on a small planted task: what is paid, and that it learns."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.theory.didactic import Didactic, _logits, _Policy
from aprm_jax.theory.planted import PlantedTask

TASK = PlantedTask(planted=(0, 1), tokens=4, length=4)
SETTING = Didactic(TASK, width=16, samples=64, batch=32, learning_rate=1e-2)


def test_a_token_is_predicted_from_those_before_it_alone():
    policy = _Policy(TASK.tokens, 8)
    tokens = jnp.array([[0, 1, 2, 3]])
    params = policy.init(jax.random.key(0), tokens, jnp.arange(4))
    logits = _logits(policy, params, tokens)
    for t in range(4):
        changed = tokens.at[0, t].set((tokens[0, t] + 1) % 4)
        other = _logits(policy, params, changed)
        same = np.all(np.isclose(logits, other)[0], axis=-1)
        assert same[: t + 1].all() and not same[t + 1 :].any()
        one = _logits(policy, params, tokens, jnp.array([t]))
        np.testing.assert_allclose(one[:, 0], logits[:, t], rtol=1e-5, atol=1e-6)


def test_what_is_matched_is_what_the_automaton_says():
    rng = np.random.default_rng(0)
    tokens, rewards = TASK.samples(TASK.prover(3), 50, rng)
    found = np.asarray(SETTING._matched(jnp.asarray(tokens)))
    assert ((found[:, -1] == 2) == rewards.astype(bool)).all()
    for row, matched in zip(tokens, found, strict=True):
        k = 0
        for token, after in zip(row, matched, strict=True):
            ended = token == TASK.end and k < 2
            k = 0 if ended else int(TASK.automaton[k, token])
            assert after == k


def test_tokens_behind_an_end_are_not_learned_from():
    policy = _Policy(TASK.tokens, 8)
    tokens = jnp.array([[0, 3, 3, 3]])
    params = policy.init(jax.random.key(0), tokens, jnp.arange(4))
    weights = jnp.ones((1, 4))
    whole = SETTING._loss(policy, params, tokens, weights)
    first = SETTING._loss(policy, params, tokens, weights.at[0, 2:].set(0.0))
    logprobs = jax.nn.log_softmax(_logits(policy, params, tokens))
    np.testing.assert_allclose(whole, first)
    np.testing.assert_allclose(whole, -logprobs[0, 0, 0] - logprobs[0, 1, 3], rtol=1e-5)


def test_rl_learns_the_task_and_the_same_seed_gives_the_same():
    found = SETTING.rewards(4.0, 150, 0)
    assert found.shape == (150,) and found.dtype == np.float32
    assert found[-10:].mean() > 0.9 > found[:5].mean()
    np.testing.assert_array_equal(found, SETTING.rewards(4.0, 150, 0))
    # Outcomes alone are another reward.
    assert (found != SETTING.rewards(None, 150, 0)).any()
    # Progress that weighs nothing is none.
    without = dataclasses.replace(SETTING, alpha=0.0)
    np.testing.assert_array_equal(
        without.rewards(4.0, 150, 0), SETTING.rewards(None, 150, 0)
    )


def test_some_iterations_are_needed():
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        SETTING.rewards(None, 0, 0)
