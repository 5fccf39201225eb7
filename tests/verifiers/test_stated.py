"""Verifiers without a model, and what the scales of all verifiers mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import tiny_game
from tiny_game import DECODER, DOMAIN

from aprm_jax.verifiers.models import (
    BrokenModelError,
    likelihood_verifier,
    prm_verifier,
)
from aprm_jax.verifiers.protocol import Scale, Scored
from aprm_jax.verifiers.stated import (
    ChanceVerifier,
    OracleVerifier,
    PositionVerifier,
    position_rates,
)

QUESTION = "1 + 2 + 3 + 1"


def _stated(verifier, solutions):
    return Scored.by(verifier, solutions).probabilities()


@pytest.mark.parametrize("scale", Scale)
def test_both_readings_of_a_scale_agree_and_keep_the_order(scale):
    scores = np.array([-800.0, -30.0, -0.5, -1e-9])
    if scale is Scale.LOG_ODDS:
        scores = np.append(scores, [0.0, 20.0, 40.0, 800.0])
    probability, logs = scale.probability(scores), scale.log_probability(scores)
    np.testing.assert_allclose(np.exp(logs), probability, rtol=1e-12)
    assert (np.diff(logs[:-1]) > 0).all() and (logs <= 0).all()
    for read in (scale.probability, scale.log_probability):
        assert np.isnan(read(np.array([math.nan]))).all()


def test_the_oracle_is_a_verifier():
    """Steps behind a wrong one are wrong; an undecidable one is unscored."""
    right = (QUESTION, ("3 + 3 + 1", "6 + 1", "7"))
    wrong = (QUESTION, ("3 + 3 + 1", "5 + 1", "6"))
    leap = (QUESTION, ("3 + 3 + 1", "7"))
    found = _stated(OracleVerifier(DOMAIN.oracle), [right, wrong, leap])
    np.testing.assert_allclose(found[0], [1, 1, 1], atol=1e-9)
    np.testing.assert_allclose(found[1], [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(found[2], [1, math.nan], atol=1e-9)


def test_given_probabilities_are_stated_again():
    given = Scored.stated([np.array([0.25, 1.0, 0.0, math.nan]), np.zeros(0)])
    found = given.probabilities()
    np.testing.assert_allclose(found[0], [0.25, 1.0, 0.0, math.nan], atol=1e-9)
    assert np.isfinite(given.rows[0][:3]).all() and len(found[1]) == 0


def test_rates_of_positions():
    positions = [0] * 40 + [1] * 30 + [2] * 3 + [5]
    labels = [1.0] * 39 + [0.0] + [1.0] * 10 + [0.0] * 20 + [0.0] * 3 + [np.nan]
    rates = position_rates(positions, labels)
    assert rates.tolist() == pytest.approx([40 / 42, 11 / 32, 1 / 5])
    (scores,) = _stated(PositionVerifier(rates), [("q", tuple("abcde"))])
    assert scores.tolist() == pytest.approx([*rates, rates[2], rates[2]])
    with pytest.raises(ValueError, match="no labelled"):
        position_rates([0], [np.nan])


def test_chance_is_uniform_and_repeats():
    solutions = [("q", ("a",) * size) for size in (3, 0, 20_000)]
    scores = _stated(ChanceVerifier(1), solutions)
    assert [len(s) for s in scores] == [3, 0, 20_000]
    assert np.histogram(scores[2], 4, (0, 1))[0] / 5000 == pytest.approx(1, abs=0.05)
    again = _stated(ChanceVerifier(1), solutions)
    assert all((a == b).all() for a, b in zip(scores, again, strict=True))
    assert (_stated(ChanceVerifier(2), solutions[:1])[0] != scores[0]).all()


def test_models_state_their_own_scale_and_leave_out_what_does_not_fit():
    builder = tiny_game.builder(None, (24,))
    solutions = [
        ("1 + 2 + 3", ("3 + 3", "6")),
        ("1 + 2 + 3", ("3 + 3",) * 7),
        ("1", ()),
    ]
    prm, solver = tiny_game.prm(), tiny_game.generator()
    rows = {"builder": builder, "max_steps": 8, "batch_sizes": (4,)}
    judge = prm_verifier(DECODER, "token", prm, **rows)
    likelihood = likelihood_verifier(DECODER, solver, **rows)
    assert judge.scale is Scale.LOG_ODDS
    assert likelihood.scale is Scale.LOG_PROBABILITY
    for verifier in (judge, likelihood):
        scores = verifier.score(solutions)
        assert [len(row) for row in scores] == [2, 7, 0]
        assert np.isfinite(scores[0]).all()
        # <bos>, 6 tokens of the question, then 4 a step: four of them fit in 24.
        assert np.isnan(scores[1]).tolist() == [False] * 4 + [True] * 3
    assert (likelihood.score(solutions)[0] <= 0).all()
    raw = judge.score(solutions)[0]
    np.testing.assert_allclose(
        _stated(judge, solutions)[0], scipy.special.expit(raw), rtol=1e-9
    )


def test_a_broken_model_is_no_verifier():
    prm = tiny_game.prm()
    prm["head"] = {**prm["head"], "bias": np.float32(math.nan)}
    verifier = prm_verifier(
        DECODER, "token", prm, tiny_game.builder(None, (24,)), max_steps=8
    )
    with pytest.raises(BrokenModelError, match="not finite"):
        verifier.score([("1 + 2", ("3",))])
