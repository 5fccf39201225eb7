"""Several verifiers as one: what each combination is, exact where p rounds to 1."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from aprm_jax.verifiers.combined import COMBINATIONS, CombinedVerifier
from aprm_jax.verifiers.protocol import Scale, Scored, logit

PAIRS = [("q", ("a", "b", "c"))]


@dataclasses.dataclass
class Says:
    """Scores of one solution, whoever asks."""

    scores: list[float]
    scale: Scale = Scale.LOG_ODDS

    def score(self, solutions):
        return [np.array(self.scores) for _ in solutions]


def _combined(how, *verifiers):
    verifier = CombinedVerifier(verifiers, how)
    return Scored.by(verifier, PAIRS).probabilities()[0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [0.5, 0.35, 0.7]),
        ("min", [0.1, 0.2, 0.6]),
        ("product", [0.09, 0.1, 0.48]),
    ],
)
def test_a_combination_is_of_probabilities_whatever_the_scales(how, expected):
    """The solver's log-probabilities beside log-odds."""
    one = Says(logit([0.1, 0.2, 0.8]).tolist())
    other = Says(np.log([0.9, 0.5, 0.6]).tolist(), Scale.LOG_PROBABILITY)
    np.testing.assert_allclose(_combined(how, one, other), expected, rtol=1e-9)


@pytest.mark.parametrize("how", COMBINATIONS)
def test_the_order_of_steps_survives_where_probabilities_round_to_one(how):
    sure = [Says([40.0, 50.0, 60.0]), Says([41.0, 51.0, 61.0])]
    verifier = CombinedVerifier(sure, how)
    logs = verifier.scale.log_probability(verifier.score(PAIRS)[0])
    assert (np.diff(logs) > 0).all() and (logs < 0).all()


@pytest.mark.parametrize("how", COMBINATIONS)
def test_certain_ones_stay_certain_and_silence_is_no_opinion(how):
    certain = Says([0.0, -math.inf, 0.0], Scale.LOG_PROBABILITY)
    silent = Says([0.0, -math.inf, math.nan], Scale.LOG_PROBABILITY)
    np.testing.assert_array_equal(_combined(how, certain, silent), [1, 0, math.nan])


@pytest.mark.parametrize("how", COMBINATIONS)
def test_one_verifier_is_itself(how):
    only = Says([-3.0, 0.0, 7.0])
    expected = Scale.LOG_ODDS.probability(np.array(only.scores))
    np.testing.assert_allclose(_combined(how, only), expected, rtol=1e-12)


def test_none_and_unknown_combinations_are_refused():
    with pytest.raises(ValueError, match="no verifiers"):
        CombinedVerifier([])
    with pytest.raises(ValueError, match="'median' is none of mean, min, product"):
        CombinedVerifier([Says([0.0])], "median")
