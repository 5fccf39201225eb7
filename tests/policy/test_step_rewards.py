"""What steps are paid, and how sources are compared: against NumPy loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.policy import advantages, losses, rewards

STEPS = 4
COUNTS = np.array([4, 1, 3, 0, 2, 4])  # steps of each row


def _scores(seed=0):
    scores = np.random.default_rng(seed).random((len(COUNTS), STEPS), np.float32)
    mask = (np.arange(STEPS) < COUNTS[:, None]).astype(np.float32)
    return scores, mask


def _step_ids(rng):
    """Two to three tokens a step, one of a prompt before each."""
    rows = []
    for count in COUNTS:
        row = []
        for k in range(count):
            row += [-1] + [k] * int(rng.integers(2, 4))
        rows.append(row + [-1] * (4 * STEPS - len(row)))
    return np.array(rows, np.int32)


def test_steps_are_paid_at_their_last_token_in_float32():
    ids, (scores, mask) = _step_ids(np.random.default_rng(1)), _scores()
    got = np.asarray(rewards.at_step_ends(jnp.array(scores), jnp.array(ids)))
    expected = np.zeros(ids.shape)
    for b, k in zip(*np.nonzero(mask), strict=True):
        expected[b, np.flatnonzero(ids[b] == k)[-1]] = scores[b, k]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected)
    back = rewards.by_step(jnp.array(got), jnp.array(ids), STEPS)
    np.testing.assert_allclose(back, scores * mask)


def test_clip_and_delta_pay_nothing_for_saying_it_again():
    scores, mask = _scores()
    got = rewards.clipped(jnp.array(scores), jnp.array(mask), 0.6)
    np.testing.assert_allclose(got, np.minimum(scores - 0.6, 0) * mask, rtol=1e-6)
    start = np.array([0.2, np.nan, 0.9, 0.5, np.nan, 0.0], np.float32)
    got = rewards.deltas(*map(jnp.array, (scores, mask, start)), 0.3)
    for b, k in np.ndindex(scores.shape):
        before = scores[b, k - 1] if k else start[b]
        change = 0.0 if np.isnan(before) else np.clip(scores[b, k] - before, -0.3, 0.3)
        np.testing.assert_allclose(got[b, k], change * mask[b, k], atol=1e-6)
    again = jnp.full((1, 9), 0.8)
    for pay in (
        rewards.clipped(again, jnp.ones((1, 9)), 0.8),
        rewards.deltas(again, jnp.ones((1, 9)), jnp.array([0.8]), 1.0),
    ):
        np.testing.assert_allclose(pay, 0.0, atol=1e-6)


def test_the_worst_step_has_the_credit_of_min_form():
    scores, mask = _scores(2)
    got = np.asarray(rewards.min_form(jnp.array(scores), jnp.array(mask), 0.1))
    for b, count in enumerate(COUNTS):
        weights = np.exp(-scores[b, :count] / 0.1)
        expected = weights / max(weights.sum(), 1e-30) * scores[b, :count]
        np.testing.assert_allclose(got[b, :count], expected, rtol=1e-5)
        assert not got[b, count:].any()
    cold = rewards.min_form(jnp.array(scores[:1]), jnp.ones((1, STEPS)), 1e-4)
    np.testing.assert_allclose(cold.sum(), scores[0].min(), rtol=1e-5)


def test_the_first_error_is_not_held_against_the_steps_before_it():
    scores = jnp.array([[0.9, 0.2, 0.9, 0.1]] * 3)
    mask = jnp.array([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]])
    right = jnp.array([False, True, False])
    got = rewards.first_error(scores, mask, right, 0.5)
    expected = [[1, -1, -1, -1], [1, 1, 1, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(got, expected)


def test_implicit_rewards_and_the_penalty_of_length():
    rng = np.random.default_rng(3)
    own, ref = -rng.exponential(size=(2, 3, 5)).astype(np.float32)
    mask = rng.integers(0, 2, (3, 5)).astype(np.float32)
    got = rewards.implicit(*map(jnp.array, (own, ref, mask)), 0.05)
    np.testing.assert_allclose(got, 0.05 * (own - ref) * mask, atol=1e-7)
    lengths = jnp.array([0.0, 60, 70, 75, 80, 200])
    got = rewards.overlong(lengths, 80, 20)
    np.testing.assert_allclose(got, [0, 0, -0.5, -0.75, -1, -1], atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_returns_to_go(gamma):
    scores, mask = _scores(4)
    got = advantages.returns_to_go(jnp.array(scores), jnp.array(mask), gamma)
    for b, k in np.ndindex(scores.shape):
        tail = [gamma ** (j - k) * scores[b, j] for j in range(k, COUNTS[b])]
        np.testing.assert_allclose(got[b, k], sum(tail), rtol=1e-5, atol=1e-6)


GROUPS = np.array([0, 0, 0, 2, 2, 5], np.int32)


def _expected(how, scaled, values, mask):
    out, here = np.zeros(values.shape), mask > 0
    if how == "reinforce++":
        chosen = values[here].astype(np.float64)
        spread = chosen.std(ddof=1) + 1e-6 if scaled else 1.0
        out[here] = (chosen - chosen.mean()) / spread
        return out
    for g in set(GROUPS.tolist()):
        rows = np.flatnonzero((g == GROUPS) & here.any(axis=1))
        if len(rows) == 1:
            out[rows] = values[rows] * mask[rows]
            continue
        squares = free = 0.0
        for k in range(values.shape[1]):
            with_it = [b for b in rows if here[b, k]]
            for b in with_it:
                others = [values[j, k] for j in with_it if j != b]
                mean = np.mean([values[j, k] for j in with_it])
                if others:
                    base = np.mean(others) if how == "rloo" else mean
                    out[b, k] = values[b, k] - base
            squares += sum(out[b, k] ** 2 for b in with_it)
            free += max(len(with_it) - 1, 0)
        if how == "grpo" and scaled:
            out[rows] /= np.sqrt(squares / max(free, 1)) + 1e-6
    return out


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("how", advantages.BASELINES)
@pytest.mark.parametrize("steps", [STEPS, 1])
def test_baselines_match_a_loop(how, scaled, steps):
    values, mask = (x[:, :steps] for x in _scores(5))
    args = map(jnp.array, (values, mask, GROUPS))
    got = advantages.baselined(*args, how, scaled)
    expected = _expected(how, scaled, values, mask)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-5)
    assert np.any(expected[mask > 0] != values[mask > 0])


def test_of_an_outcome_grpo_is_the_textbooks():
    right = np.array([1, 0, 0, 1, 1, 1, 0, 0], np.float32)[:, None]
    groups = jnp.array([0, 0, 0, 0, 4, 4, 4, 4], jnp.int32)
    ones = jnp.ones((8, 1))
    got = advantages.baselined(jnp.array(right), ones, groups, "grpo")
    for rows in (slice(0, 4), slice(4, 8)):
        values = right[rows]
        expected = (values - values.mean()) / (values.std(ddof=1) + 1e-6)
        np.testing.assert_allclose(got[rows], expected, rtol=1e-5)
    alike = advantages.baselined(0.1 * ones, ones, groups, "grpo")
    assert np.abs(alike).max() < 0.1  # nothing to tell, so nothing much is told
    with pytest.raises(ValueError, match="'gpro' is none of grpo"):
        advantages.baselined(ones, ones, groups, "gpro")


def test_a_sum_that_is_compared_once_has_lost_what_the_steps_say():
    """Two samples whose rewards have one sum: compared source by source they differ."""
    process = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    mask, groups = jnp.ones((2, 2)), jnp.zeros(2, jnp.int32)
    total = process.sum(axis=1, keepdims=True)
    assert not advantages.baselined(total, mask[:, :1], groups, "rloo").any()
    got = advantages.baselined(process, mask, groups, "rloo")
    np.testing.assert_array_equal(got, [[-1, 1], [1, -1]])


def test_tokens_have_what_their_steps_have():
    ids, (scores, _) = _step_ids(np.random.default_rng(1)), _scores()
    got = advantages.of_tokens(jnp.array(scores), jnp.array(ids))
    for b, t in np.ndindex(ids.shape):
        assert got[b, t] == (scores[b, ids[b, t]] if ids[b, t] >= 0 else 0)
    whole = advantages.of_tokens(jnp.array(scores[:, :1]), jnp.array(ids))
    np.testing.assert_array_equal(whole, np.where(ids >= 0, scores[:, :1], 0))


def test_clip_higher_and_dual_clip_match_a_loop():
    rng = np.random.default_rng(6)
    new, old = -2 * rng.exponential(size=(2, 8, 6)).astype(np.float32)
    gains = rng.normal(size=(8, 6)).astype(np.float32)
    got, outside = losses.token_objective(
        *map(jnp.array, (new, old, gains)), low=0.2, high=0.28, dual=3.0
    )
    capped = 0
    for t in np.ndindex(8, 6):
        ratio = np.exp(new[t] - old[t])
        value = min(ratio * gains[t], np.clip(ratio, 0.8, 1.28) * gains[t])
        if gains[t] < 0 and value < 3 * gains[t]:
            value, capped = 3 * gains[t], capped + 1
        np.testing.assert_allclose(got[t], value, rtol=1e-4, atol=1e-6)
        assert outside[t] == float(ratio < 0.8 or ratio > 1.28)
    assert capped


def test_importance_weights_are_truncated_and_have_no_gradient():
    new, drawn = jnp.array([[-1.0, -1.0, -2.0]]), jnp.array([[-1.0, -3.0, -1.0]])
    got = losses.importance_weights(new, drawn, 2.0)
    np.testing.assert_allclose(got, [[1, 2, np.exp(-1)]], rtol=1e-6)
    np.testing.assert_array_equal(losses.importance_weights(new, drawn, 0.0), 1)
    slope = jax.grad(lambda x: losses.importance_weights(x, drawn, 2.0).sum())(new)
    assert not slope.any()


@pytest.mark.parametrize("how", losses.AGGREGATIONS)
def test_aggregations_match_a_loop_and_add_up_over_parts(how):
    rng = np.random.default_rng(7)
    values = rng.normal(size=(6, 5)).astype(np.float32)
    mask = (np.arange(5) < np.array([5, 1, 3, 0, 2, 4])[:, None]).astype(np.float32)
    weights = np.array([1, 1, 0, 1, 1, 1], np.float32)
    rows = [b for b in range(6) if weights[b] and mask[b].any()]
    sums = [float((values[b] * mask[b]).sum()) for b in rows]
    lengths = [mask[b].sum() for b in rows]
    expected = {
        "token": sum(sums) / sum(lengths),
        "sequence": np.mean([s / n for s, n in zip(sums, lengths, strict=True)]),
        "constant": np.mean(sums) / 10,
    }[how]
    args = [jnp.array(x) for x in (values, mask, weights)]
    whole = losses.aggregated(*args, how, 10.0)
    np.testing.assert_allclose(whole.mean(), expected, rtol=1e-5)
    parts = [losses.aggregated(*(x[i::2] for x in args), how, 10.0) for i in (0, 1)]
    np.testing.assert_allclose((parts[0] + parts[1]).mean(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="'tokens' is none of token"):
        losses.aggregated(*args, "tokens")


def test_k2_has_the_gradient_of_the_kl_and_k1_has_none():
    """Expected over the policy's own draws, as a loss on samples estimates it."""
    theta, ref = jnp.array([0.3, -1.0, 0.8]), jnp.log(jnp.array([0.2, 0.5, 0.3]))

    def kl(theta):
        logp = jax.nn.log_softmax(theta)
        return jnp.sum(jnp.exp(logp) * (logp - ref))

    drawn = jnp.exp(jax.nn.log_softmax(theta))  # fixed: the samples are

    def as_loss(estimator):
        return jax.grad(
            lambda theta: jnp.sum(
                drawn * estimator(jax.nn.log_softmax(theta)[None], ref[None])[0]
            )
        )(theta)

    np.testing.assert_allclose(as_loss(losses.squared_kl), jax.grad(kl)(theta), 1e-4)
    np.testing.assert_allclose(as_loss(lambda x, y: x - y), 0, atol=1e-6)
