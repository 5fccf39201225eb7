"""Progress as reward: each formula against loops over plain numbers."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.verifiers import progress
from aprm_jax.verifiers.progress import ProverStatistics, Siblings

RNG = np.random.default_rng(0)
KINDS = [np.asarray, lambda x: jnp.asarray(x, jnp.float32)]


@pytest.mark.parametrize("of", KINDS, ids=["numpy", "jax"])
def test_best_of_k_is_the_chance_that_one_of_k_arrives(of):
    q = RNG.uniform(size=7)
    for k in (1, 2, 4, 32):
        expected = [1 - math.prod([1 - value] * k) for value in q.tolist()]
        np.testing.assert_allclose(progress.best_of(of(q), k), expected, atol=1e-6)
    assert np.asarray(progress.best_of(of(np.array([0.0, 1.0])), 4)).tolist() == [0, 1]
    with pytest.raises(ValueError, match="the best of 0"):
        progress.best_of(of(q), 0)


@pytest.mark.parametrize("of", KINDS, ids=["numpy", "jax"])
def test_progress_is_what_each_step_changes_the_bare_question_first(of):
    q, start = RNG.uniform(size=(3, 5)), np.array([0.2, 0.7, np.nan])
    found = np.asarray(progress.advantages(of(q), of(start)))
    for row, before, got in zip(q.tolist(), start.tolist(), found, strict=True):
        expected = [b - a for a, b in itertools.pairwise([before, *row])]
        if math.isnan(before):  # nobody says what the question is worth
            expected[0] = 0.0
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.asarray(of(q)).dtype
    rewards = np.asarray(progress.effective_rewards(of(q), of(found), 0.5))
    np.testing.assert_allclose(rewards, q + 0.5 * found, rtol=1e-5)


def test_a_reward_to_go_would_telescope_into_a_baseline():
    """So progress is each step's own reward: its sums say nothing of the steps."""
    q, start = RNG.uniform(size=6), np.array(0.3)
    togo = np.cumsum(progress.advantages(q, start)[::-1])[::-1]
    np.testing.assert_allclose(togo, q[-1] - np.array([start, *q[:-1]]))


def test_the_worked_example_keeps_a_step_of_each_parent():
    """Alpha 0.5, best of 4: parents 0.0 and 0.2, two children each, two places."""
    before = np.array([0.0, 0.0, 0.2, 0.2])
    q = np.array([0.0, 0.1, 0.2, 0.3])
    gain = progress.best_of(q, 4) - progress.best_of(before, 4)
    rewards = progress.effective_rewards(q, gain, 0.5)
    np.testing.assert_allclose(rewards, [0.0, 0.272, 0.2, 0.385], atol=5e-4)
    assert sorted(np.argsort(q)[-2:]) == [2, 3]
    assert sorted(np.argsort(rewards)[-2:]) == [1, 3]


def test_siblings_rank_alike_under_the_best_of_k_and_only_parents_differ():
    changed = 0
    for _ in range(200):
        parents = RNG.uniform(size=2)
        q = RNG.uniform(size=(2, 4))
        k, alpha = int(RNG.integers(2, 33)), RNG.uniform(0.1, 6)
        best = progress.best_of(q, k)
        gain = best - progress.best_of(parents, k)[:, None]
        rewards = progress.effective_rewards(q, gain, alpha)
        for values, paid in zip(q, rewards, strict=True):
            assert np.argsort(values).tolist() == np.argsort(paid).tolist()
        orders = (np.argsort(x.ravel()).tolist() for x in (q, rewards))
        changed += next(orders) != next(orders)
    assert changed > 50


def _loops(policy, prover, base):
    mean = sum(p * a for p, a in zip(policy, prover, strict=True))
    variance = sum(p * (a - mean) ** 2 for p, a in zip(policy, prover, strict=True))
    both = zip(policy, prover, base, strict=True)
    return variance, sum(p * a * b for p, a, b in both)


def test_distinguishability_and_alignment_are_what_the_paper_defines():
    policy = RNG.dirichlet(np.ones(4), size=3)
    q_mu, q_pi = RNG.uniform(size=(2, 3, 4))
    prover = q_mu - RNG.uniform(size=(3, 1))  # of whatever state before
    base = q_pi - (policy * q_pi).sum(-1, keepdims=True)
    rows = [_loops(*of_state) for of_state in zip(policy, prover, base, strict=True)]
    found = (
        progress.distinguishability(policy, prover),
        progress.alignment(policy, prover, base),
    )
    np.testing.assert_allclose(np.transpose(found), rows)
    # The prover's own constant drops out of the variance.
    np.testing.assert_allclose(found[0], progress.distinguishability(policy, q_mu))
    # The base as its own prover is aligned as far as it distinguishes.
    np.testing.assert_allclose(
        progress.alignment(policy, base, base),
        progress.distinguishability(policy, base),
    )


def _state(rng, policy, q_pi, q_mu, draws, tried):
    """Siblings as they are sampled: binomial estimates of known values."""
    counts = rng.multinomial(draws, policy)
    drawn = counts > 0
    base, prover = (rng.binomial(tried, q[drawn]) / tried for q in (q_pi, q_mu))
    noise = [x * (1 - x) / (tried - 1) for x in (base, prover)]
    return Siblings(counts[drawn], base, prover, *noise, np.zeros(drawn.sum()))


def test_statistics_of_samples_have_no_bias_of_few_samples_or_completions():
    rng = np.random.default_rng(1)
    policy = np.array([0.5, 0.3, 0.2])
    q_pi, q_mu = np.array([0.1, 0.4, 0.7]), np.array([0.5, 0.3, 0.9])
    states = [_state(rng, policy, q_pi, q_mu, 3, 4) for _ in range(20000)]
    found = progress.prover_statistics(states)
    exact = _loops(policy, q_mu, q_pi - policy @ q_pi)
    assert abs(found.distinguishability - exact[0]) < 0.05 * exact[0]
    assert abs(found.alignment - exact[1]) < 0.05 * exact[1]
    own = _loops(policy, q_pi, q_pi)[0]
    assert abs(found.base - own) < 0.05 * own
    # A prover to whom all steps are alike is seen as one, however few completions.
    flat = [_state(rng, policy, q_pi, np.full(3, 0.5), 3, 4) for _ in range(20000)]
    found = progress.prover_statistics(flat)
    assert abs(found.distinguishability) < 0.05 * exact[0]
    assert found.reading.startswith("bad: the prover does not tell")


def test_states_with_one_sample_say_nothing_and_what_is_no_value_is_named():
    one = Siblings(*(np.array([x]) for x in (1, 0.5, 0.5, 0.0, 0.0, 0.0)))
    found = progress.prover_statistics([one])
    assert found.states == 0 and math.isnan(found.distinguishability)
    assert found.reading.startswith("unknown: no prefix has two samples")
    two = np.zeros(2)
    broken = Siblings(np.array([1, 1]), two, np.array([0.2, np.nan]), two, two, two)
    with pytest.raises(ValueError, match="value 1 is nan: a value is a probability"):
        progress.prover_statistics([broken])


@pytest.mark.parametrize(
    ("numbers", "said", "good"),
    [
        ((0.02, 0.01, 0.03, 0.5), "good: the prover tells", True),
        ((0.02, -0.01, 0.03, 0.5), "bad: .*misaligned", False),
        ((0.001, 0.0, 0.03, 0.95), "bad: .*too strong", False),
        ((0.001, 0.0, 0.03, 0.01), "bad: .*too weak", False),
        ((-0.001, 0.0, 0.0, 0.5), "bad: .*steps make no difference", False),
    ],
)
def test_the_numbers_are_read_as_the_paper_reads_them(numbers, said, good):
    *rest, start = numbers
    found = ProverStatistics(9, *rest, start=start)
    assert found.good == good
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(found.reading)
    same = ProverStatistics(9, *rest, start=start, same=True)
    assert not same.good and "already has" in same.reading
