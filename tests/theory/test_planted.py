"""The planted-subsequence task: the published setting's values, and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aprm_jax.theory.planted import PlantedTask

TASK = PlantedTask()
# gamma: V(start), A(hit at t=0), A(miss), A(end), V(t=4, k=4); to their last digits.
EXACT = {
    5: (0.00539, 0.00299, -0.00074, -0.00539, 0.2651),
    8: (0.02449, 0.00838, -0.00327, -0.02449, 0.3699),
    10: (0.04552, 0.01234, -0.00599, -0.04552, 0.4268),
    15: (0.11810, 0.02076, -0.01487, -0.11810, 0.5387),
    100: (0.81509, 0.01500, -0.05272, -0.81509, 0.9385),
}


@pytest.mark.parametrize("gamma", EXACT)
def test_values_of_the_published_setting(gamma):
    prover = TASK.prover(gamma)
    values, gains = TASK.values(prover), TASK.advantages(prover)
    found = values[0, 0], gains[0, 0, 3], gains[0, 0, 1], gains[0, 0, 14], values[4, 4]
    digits = (5, 5, 5, 5, 4)
    rounded = tuple(round(x, d) for x, d in zip(found, digits, strict=True))
    assert rounded == EXACT[gamma]


def test_a_sequence_that_breaks_off_may_have_begun_again():
    known = [{3: 1}, {6: 2, 3: 1}, {0: 3, 3: 1}, {3: 4}, {5: 5, 6: 2, 3: 1}]
    for k, moves in enumerate(known):
        expected = [moves.get(token, 0) for token in range(15)]
        assert TASK.automaton[k].tolist() == expected
    assert (TASK.automaton[5] == 5).all()


SMALL = PlantedTask(planted=(0, 1, 0), tokens=3, length=5)


def _policy(seed: int) -> np.ndarray:
    shape = (SMALL.length, *SMALL.automaton.shape[:1])
    return np.random.default_rng(seed).dirichlet(np.ones(SMALL.tokens), size=shape)


def _contains(sequence) -> bool:
    return any(sequence[i : i + 3] == SMALL.planted for i in range(len(sequence) - 2))


def test_values_are_those_of_all_sequences_one_by_one():
    policy, total, visited = _policy(0), 0.0, np.zeros((5, 4))
    for drawn in itertools.product(range(3), repeat=5):
        share, matched, ended, seen = 1.0, 0, False, ()
        for t, token in enumerate(drawn):
            if ended:
                share *= token == SMALL.end  # filled up, one way alone
                continue
            share *= policy[t, matched, token]
            ended = token == SMALL.end
            if not ended:
                seen = (*seen, token)
                matched = int(SMALL.automaton[matched, token])
        total += share * _contains(seen)
        matched, states = 0, []
        for t, token in enumerate(drawn):
            states.append((t, matched))
            if token == SMALL.end:
                break
            matched = int(SMALL.automaton[matched, token])
        for state in states:
            visited[state] += share
    np.testing.assert_allclose(SMALL.values(policy)[0, 0], total)
    np.testing.assert_allclose(SMALL.visits(policy), visited)


def test_monte_carlo_agrees_with_the_dynamic_programme():
    policy = _policy(1)
    tokens, rewards = SMALL.samples(policy, 40000, np.random.default_rng(2))
    exact = SMALL.values(policy)[0, 0]
    assert abs(rewards.mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / 40000)
    found = [_contains(tuple(row)) for row in tokens[:500].tolist()]
    assert found == rewards[:500].astype(bool).tolist()
    first = tokens[:, 0] == 0
    q = SMALL.q_values(policy)[0, 0, 0]
    spread = np.sqrt(q * (1 - q) / first.sum())
    assert abs(rewards[first].mean() - q) < 5 * spread


def test_advantages_average_out_under_their_own_policy():
    policy = _policy(3)
    means = (policy * SMALL.advantages(policy)).sum(axis=-1)
    np.testing.assert_allclose(means, 0.0, atol=1e-12)


def test_statistics_of_provers_grow_and_fall_with_their_strength():
    base = TASK.prover(5)
    by_gamma = {g: TASK.statistics(base, TASK.prover(g)) for g in (5, 10, 1e9)}
    assert by_gamma[5].same and not by_gamma[5].good
    own = by_gamma[5]
    np.testing.assert_allclose(own.distinguishability, own.alignment)
    assert by_gamma[10].good
    assert by_gamma[10].distinguishability > own.distinguishability
    # One that arrives from everywhere early on hardly sees a difference there.
    early = TASK.advantages(TASK.prover(1e9))[0, 0, :14]
    np.testing.assert_allclose(early, 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"planted": ()}, "one token or more of 0 to 13"),
        ({"planted": (3, 14)}, "14 ends a sequence"),
        ({"length": 0}, "length must be at least 1"),
    ],
)
def test_a_task_that_cannot_be_is_named(fields, said):
    with pytest.raises(ValueError, match=said):
        PlantedTask(**fields)
