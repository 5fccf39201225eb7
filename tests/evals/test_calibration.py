"""Platt scaling against a known distribution."""

import numpy as np
import pytest
import scipy.special

from aprm_jax.evals import steps
from aprm_jax.evals.calibration import Platt, fit_platt


def test_the_fit_finds_the_slope_and_bias_that_made_the_labels():
    rng = np.random.default_rng(0)
    scores = rng.normal(3.0, 5.0, 200_000)
    labels = rng.random(200_000) < scipy.special.expit(0.4 * scores - 1.5)
    found = fit_platt(scores, labels.astype(float))
    assert (found.slope, found.bias) == pytest.approx((0.4, -1.5), abs=0.03)
    assert steps.reliability(found(scores), labels).ece < 0.005
    raw = scipy.special.expit(scores)
    assert steps.reliability(raw, labels).ece > 0.1
    assert steps.auc(found(scores), labels) == pytest.approx(steps.auc(scores, labels))


def test_it_is_the_most_likely_one_nearby():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=300)
    labels = (rng.random(300) < scipy.special.expit(2 * scores + 1)).astype(float)
    found = fit_platt(scores, labels)
    high, low = (labels.sum() + 1) / (labels.sum() + 2), 1 / ((1 - labels).sum() + 2)
    targets = np.where(labels == 1, high, low)

    def loss(slope, bias):
        p = Platt(slope, bias)(scores)
        return -(targets * np.log(p) + (1 - targets) * np.log1p(-p)).mean()

    best = loss(found.slope, found.bias)
    for d in (-0.02, 0.02):
        assert loss(found.slope + d, found.bias) > best
        assert loss(found.slope, found.bias + d) > best


def test_edges_of_the_fit():
    parted = fit_platt(np.array([-1.0, 1.0]), np.array([0, 1]))
    assert np.isfinite([parted.slope, parted.bias]).all() and parted.slope > 0
    reversed_ = fit_platt(np.linspace(-1, 1, 40), np.repeat([1, 0], 20))
    assert reversed_.slope == 0  # never turns a ranking around
    assert reversed_(np.array([7.0])) == pytest.approx(0.5)
    same = fit_platt(np.full(30, 2.5), np.repeat([1, 1, 0], 10))
    assert same(np.array([2.5])) == pytest.approx(2 / 3, abs=0.02)
    with pytest.raises(ValueError, match="finite"):
        fit_platt(np.array([np.inf, 0.0]), np.array([1, 0]))
    with pytest.raises(ValueError, match="labels"):
        fit_platt(np.zeros(0), np.zeros(0))
