"""A language model that pays for tokens, and learns from outcomes what to pay."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny_rl
from tiny_rl import config, leaves, play, rounds

from aprm_jax.models.lora import LoraConfig
from aprm_jax.policy.logprobs import read_replies
from aprm_jax.rl.implicit import ImplicitPRM, OutcomeBatch, outcome_loss
from aprm_jax.rl.trajectories import collated, together, trajectory
from aprm_jax.training.masked import MeanMetric

TASK = tiny_rl.TASK
LEARNING = {"rewards": ("implicit",), "implicit_learning_rate": 3e-2}


def _prm(c, task=TASK):
    return ImplicitPRM(task, c, tiny_rl.policy(task), jax.random.key(0))


def _read():
    """Rows of a few samples, and the log-probabilities of the model that wrote them."""
    problems = [TASK.problems.train(index) for index in range(3)]
    params = tiny_rl.policy(TASK)
    drawn = TASK.solve(
        params["backbone"], problems, 4, jax.random.key_data(jax.random.key(3))
    )
    written = [trajectory(TASK.builder, s) for row in drawn for s in row]
    rows = [[written[i] for i in row] for row in together(3, 4, 1)]
    read = collated(TASK.builder, rows, TASK.max_steps, len(rows))
    tokens = read_replies(TASK.decoder, params, read.rows, read.columns)
    return read, np.asarray(tokens.logprobs), params


def test_the_loss_is_the_cross_entropy_of_the_summed_log_ratio():
    c = config(**LEARNING)
    read, logprobs, params = _read()
    reply = np.asarray(read.columns) >= 0
    rng = np.random.default_rng(0)
    ref = np.where(reply, logprobs - rng.normal(0, 3, logprobs.shape), 0)
    right = rng.random(reply.shape[:2]) < 0.5
    weight = (rng.random(right.shape) < 0.7).astype(np.float32)
    batch = OutcomeBatch(read, right, weight, ref.astype(np.float32))
    loss, metrics = outcome_loss(params, batch, params, TASK.decoder, c)
    odds = 0.05 * np.where(reply, logprobs - ref, 0).sum(axis=-1)
    p = 1 / (1 + np.exp(-odds))
    each = -np.where(right, np.log(p), np.log(1 - p))
    wanted = (each * weight).sum() / weight.sum()
    assert float(loss.mean()) == pytest.approx(wanted, rel=1e-5)
    told = metrics["accuracy"]
    assert isinstance(told, MeanMetric)
    share = ((p > 0.5) == right)[weight > 0].mean()
    assert float(told.mean()) == pytest.approx(share)


@pytest.mark.parametrize("adapter", [None, LoraConfig(4, 16.0)], ids=["full", "lora"])
def test_a_policy_learns_from_outcomes_that_its_implicit_prm_learned(adapter):
    c = config(
        rewards=("outcome", "implicit"),
        implicit_learning_rate=3e-3,
        learning_rate=1e-2,
        estimator="rloo",
        group_size=8,
        lora=adapter,
    )
    of = rounds(c, implicit=_prm(c))
    _, metrics = play(of, of.state, range(12))
    right = [
        np.mean([m["reward/oracle"] for m in part])
        for part in (metrics[:3], metrics[-3:])
    ]
    assert right[1] > right[0] + 0.2
    taught = [m for m in metrics if not m["rl/idle"]]
    # It starts as the solver does.
    assert taught[0]["implicit/loss"] == pytest.approx(np.log(2), rel=1e-4)
    assert all(m["rl/labels"] == 32 for m in metrics)
    # The start stays what both are compared with.
    for a, b in zip(leaves(of.ref), leaves(tiny_rl.policy(TASK)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_learns_which_solutions_are_right():
    c = config(**LEARNING)
    read, logprobs, _ = _read()
    right = np.arange(logprobs.shape[0] * logprobs.shape[1]) % 3 == 0
    right = right.reshape(logprobs.shape[:2])
    batch = OutcomeBatch(read, right, np.ones_like(right, np.float32), logprobs)
    prm = _prm(c)
    state, found = prm.state, []
    for _ in range(30):
        state, metrics = prm.learn(state, batch)
        found.append((float(metrics["implicit/loss"]), metrics["implicit/accuracy"]))
    assert found[0][0] == pytest.approx(np.log(2), rel=1e-4)
    assert found[-1][0] < 0.3 and found[-1][1] > 0.9


def test_a_round_of_which_no_outcome_is_known_leaves_it_as_it_is():
    """Adam's momentum alone would move it, once it has learned."""
    read, logprobs, _ = _read()
    right = np.arange(logprobs.shape[0] * logprobs.shape[1]) % 3 == 0
    right = right.reshape(logprobs.shape[:2])
    known = np.ones_like(right, np.float32)
    prm = _prm(config(**LEARNING))
    state, _ = prm.learn(prm.state, OutcomeBatch(read, right, known, logprobs))
    before = leaves(state)
    state, metrics = prm.learn(state, OutcomeBatch(read, right, 0 * known, logprobs))
    assert metrics["nonfinite"] == 0
    for a, b in zip(leaves(state), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_problems_that_are_all_right_or_all_wrong_teach_nothing():
    none = dataclasses.replace(TASK, problems=tiny_rl.Numbers("0"))
    c = config(**LEARNING)
    of = rounds(c, none, implicit=_prm(c, none))
    before = leaves(of.state.implicit)
    state, metrics = play(of, of.state, range(1))
    assert metrics[0]["rl/idle"] == 1 and metrics[0]["rl/uniform"] > 0
    for a, b in zip(leaves(state.implicit), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_it_learned_is_in_the_checkpoint():
    c = config(**LEARNING)
    of = rounds(c, implicit=_prm(c))
    whole, metrics = play(of, of.state, range(4))
    half, _ = play(of, of.state, range(2))
    kept = jax.device_get(half)
    resumed = dataclasses.replace(
        kept,
        policy=jax.device_put(kept.policy),
        implicit=jax.device_put(kept.implicit),
    )
    after, again = play(of, resumed, range(2, 4))
    for a, b in zip(leaves(after), leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert repr(again) == repr(metrics[2:])


def test_only_solutions_whose_answers_are_known_teach_it():
    c = config(**LEARNING, verifiable_share=0.0)
    of = rounds(c, implicit=_prm(c))
    before = leaves(of.state.implicit)
    state, metrics = play(of, of.state, range(1))
    assert metrics[0]["rl/labels"] == 0
    # They are paid for all the same, and their outcomes do not say which.
    assert not metrics[0]["rl/idle"] and not metrics[0]["rl/uniform"]
    assert not metrics[0]["nonfinite"]
    params = leaves(state.implicit.params)
    for a, b in zip(params, before[: len(params)], strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_learning_rate_it_pays_as_it_is():
    c = config(rewards=("implicit",))
    prm = _prm(c)
    assert prm.state is None and not prm.learns
    assert prm.model(None) is prm.merged(None)
