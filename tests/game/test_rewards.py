"""The reward table: its five cases, and expectations in between."""

from __future__ import annotations

import numpy as np

from aprm_jax.config.game import RewardsConfig
from aprm_jax.game.rewards import generator_rewards
from aprm_jax.oracle.verdict import Label


def test_every_case_of_the_table():
    table = RewardsConfig(
        generator_fooled=2.0, generator_caught=-0.5, generator_still_correct=-3.0
    )
    labels = np.array([Label.INCORRECT, Label.INCORRECT, Label.CORRECT, Label.CORRECT])
    said_correct = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
    got = generator_rewards(table, labels.astype(int), said_correct)
    assert got.tolist() == [2.0, -0.5, -3.0, -3.0]
    undecidable = np.array([int(Label.UNDECIDABLE)])
    got = generator_rewards(table, undecidable, np.ones(1, np.float32))
    assert got.tolist() == [0.0]


def test_fractional_rewards_survive():
    p = np.array([0.25, 0.625], np.float32)
    table = RewardsConfig(generator_caught=0.0)
    got = generator_rewards(table, np.zeros(2, int), p)
    assert got.dtype == np.float32 and got.tolist() == [0.25, 0.625]
    table = RewardsConfig(generator_fooled=0.3, generator_caught=0.1)
    got = generator_rewards(table, np.zeros(2, int), p)
    np.testing.assert_allclose(got, 0.1 + 0.2 * p, rtol=1e-6)
