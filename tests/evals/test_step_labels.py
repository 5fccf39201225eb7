"""The report on single steps, and its interval over questions."""

import math

import numpy as np
import pytest
import scipy.special

from aprm_jax.evals import step_labels, steps
from aprm_jax.evals.calibration import Platt
from aprm_jax.evals.records import Results
from aprm_jax.evals.step_sets import Judged


def measured(scores, labels, groups, platt=None):
    found = Judged(scores, labels, groups)
    made = step_labels.step_records(
        "test", "v", found, scipy.special.expit, 0.5, platt, 200
    )
    return Results(made)


def test_the_report_on_steps():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(float)
    scores = rng.normal(40 + 2 * labels, 1.0)  # as probabilities all of them are 1
    groups = np.arange(400) // 8
    found = measured(scores, labels, groups, Platt(2.0, -82.0))
    auc = found.find("steps", "test", "v", "auc")
    assert auc is not None
    assert auc.value == pytest.approx(steps.auc(scores, labels)) and auc.value > 0.9
    assert auc.low < auc.value < auc.high < 1
    value = {record.metric: record.value for record in found}
    assert value["ece"] == pytest.approx(1 - labels.mean(), abs=1e-6)
    assert value["ece_calibrated"] < 0.1 and value["unscored"] == 0
    assert value["accuracy"] == pytest.approx(labels.mean())
    alone = measured(scores, labels, groups)
    assert alone.find("steps", "test", "v", "ece_calibrated") is None


def test_an_unscored_step_counts_against_the_verifier():
    labels = np.tile([1.0, 0.0], 50)
    scores = np.where(labels == 1, 3.0, -3.0)
    groups = np.arange(100) // 2
    whole = measured(scores, labels, groups)
    cut = measured(np.where(np.arange(100) < 50, scores, np.nan), labels, groups)
    of = lambda found, metric: found.value("steps", "test", "v", metric)  # noqa: E731
    assert of(whole, "auc") == of(whole, "accuracy") == 1.0
    assert of(cut, "auc") == 0.25 and of(cut, "accuracy") == 0.5
    assert (of(cut, "unscored"), of(cut, "count")) == (50, 100)


def test_the_interval_is_wider_where_questions_are_few():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(float)
    scores = rng.normal(labels, 1.0)
    widths = []
    for groups in (np.arange(300), np.arange(300) // 60):
        # Every question shifts its own scores: steps of one are no independent draws.
        shifted = scores + np.random.default_rng(1).normal(0, 2, 300)[groups]
        interval = step_labels.auc_interval(shifted, labels, groups, 300)
        assert interval.low < interval.mean < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] > widths[0]
    alone = step_labels.auc_interval(np.ones(2), np.ones(2), np.zeros(2, int), 10)
    assert math.isnan(alone.low)


def _ends(scores, labels, groups):
    found = step_labels.auc_interval(
        np.array(scores), np.array(labels, float), np.array(groups), 400
    )
    return found.mean, found.low, found.high


def test_no_interval_where_the_questions_say_little():
    nan = math.nan
    perfect = _ends([0.0] * 4 + [1.0] * 4, [0] * 4 + [1] * 4, [0, 1, 2, 3] * 2)
    assert perfect == pytest.approx((1.0, nan, nan), nan_ok=True)
    one = _ends([0.1, 0.3, 0.2, 0.9], [0, 0, 1, 1], [0] * 4)
    assert one == pytest.approx((0.75, nan, nan), nan_ok=True)
    # One question of 20 has all the wrong steps: of its own kind nothing varies.
    labels = np.array([0, 0, *[1] * 38])
    scores = np.linspace(0, 1, 40)[np.r_[5, 9, 0:5, 6:9, 10:40]]
    rare = _ends(scores, labels, np.arange(40) // 2)
    assert 0.5 < rare[0] < 1.0 and math.isnan(rare[1]) and math.isnan(rare[2])
