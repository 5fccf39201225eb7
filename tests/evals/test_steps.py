"""Step metrics against definitions, scipy and hand-made cases."""

import math

import numpy as np
import pytest
import scipy.stats

from aprm_jax.evals import steps


def noisy(count, seed=0, levels=20):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1)
    return np.round(scores * levels) / levels, labels  # rounded: ties


def test_hand_made_counts():
    #                 kept  rejected  caught  caught  fooled
    scores = np.array([0.9, 0.2, 0.1, 0.49, 0.5])
    labels = np.array([1, 1, 0, 0, 0])
    report = steps.classification_report(scores, labels)
    assert report["accuracy"] == pytest.approx(3 / 5)
    assert report["precision"] == pytest.approx(2 / 3)
    assert report["recall"] == pytest.approx(2 / 3)
    assert report["f1"] == pytest.approx(2 / 3)
    assert report["precision_correct"] == pytest.approx(1 / 2)
    assert report["recall_correct"] == pytest.approx(1 / 2)
    assert report["f1_correct"] == pytest.approx(1 / 2)
    assert report["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert report["auc"] == pytest.approx(4 / 6)
    assert report["incorrect_share"] == pytest.approx(3 / 5)
    assert report["brier"] == pytest.approx(np.mean((scores - labels) ** 2))


def test_weights_repeat_steps():
    scores, labels = noisy(60)
    times = np.random.default_rng(1).integers(0, 4, 60)
    weighted = steps.classification_report(scores, labels, times.astype(float), 0.4)
    repeated = steps.classification_report(
        np.repeat(scores, times), np.repeat(labels, times), threshold=0.4
    )
    assert weighted.pop("count") == 60
    assert repeated.pop("count") == times.sum()
    assert weighted == pytest.approx(repeated)


def test_auc_equals_mann_whitney_and_the_definition():
    scores, labels = noisy(200, seed=2)
    right, wrong = scores[labels == 1], scores[labels == 0]
    u = scipy.stats.mannwhitneyu(right, wrong).statistic
    got = steps.auc(scores, labels)
    assert got == pytest.approx(u / (len(right) * len(wrong)))
    pairs = (right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)
    assert got == pytest.approx(pairs.mean())
    assert steps.auc(1 - scores, labels) == pytest.approx(1 - got)


def test_one_class_only():
    report = steps.classification_report(np.array([0.9, 0.3]), np.array([1, 1]))
    assert math.isnan(report["auc"])
    assert report["recall"] == report["f1"] == 0.0
    assert report["recall_correct"] == 0.5


def test_calibration():
    # Two bins: 0.2 with a quarter correct, 0.9 with all correct.
    scores = np.array([0.2] * 4 + [0.9] * 4)
    labels = np.array([0, 0, 0, 1] + [1] * 4)
    result = steps.reliability(scores, labels)
    assert result.ece == pytest.approx((0.05 + 0.1) / 2)
    assert result.correct[2] == 0.25
    assert result.correct[9] == 1.0
    assert np.isnan(result.score[0])
    assert result.weight.sum() == pytest.approx(1)
    # Calibrated scores: the error vanishes; the Brier score is the mean of p (1 - p).
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=200_000)
    labels = rng.uniform(size=200_000) < scores
    report = steps.classification_report(scores, labels)
    assert report["ece"] < 0.005
    assert report["brier"] == pytest.approx(1 / 6, abs=0.003)
    # A score of exactly 1 falls in the last bin.
    assert steps.reliability(np.array([1.0]), np.array([1])).weight[9] == 1


@pytest.mark.parametrize(
    "metric", ["accuracy", "balanced_accuracy", "f1", "f1_correct"]
)
@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_beats_every_other(metric, seed):
    scores, labels = noisy(80, seed=seed)
    best = steps.best_threshold(scores, labels, metric)
    grid = np.concatenate([[best], np.linspace(0, 1.001, 400)])
    values = [
        steps.classification_report(scores, labels, threshold=t)[metric] for t in grid
    ]
    assert values[0] == pytest.approx(max(values))


def test_best_threshold_between_two_clusters_and_neighbouring_floats():
    assert steps.best_threshold(np.array([0.1, 0.2, 0.8]), np.array([0, 0, 1])) == 0.5
    pair = np.array([0.5, np.nextafter(0.5, 1)])
    t = steps.best_threshold(pair, np.array([0, 1]))
    assert (pair >= t).tolist() == [False, True]
    assert steps.best_threshold(np.array([1.0, 1.0]), np.array([0, 0])) > 1.0


def test_an_unscored_step_is_a_miss():
    nan = math.nan
    scores, labels = np.array([0.9, nan, 0.1, nan]), np.array([1, 1, 0, 0])
    for threshold in (0.0, 0.5, 1.1):
        report = steps.classification_report(scores, labels, threshold=threshold)
        whole = steps.classification_report(
            scores[[0, 2]], labels[[0, 2]], threshold=threshold
        )
        assert report["accuracy"] == whole["accuracy"] / 2
        assert report["recall"] == whole["recall"] / 2
        assert report["recall_correct"] == whole["recall_correct"] / 2
        assert (report["count"], report["unscored"]) == (4, 2)
        # Calibration has nothing to say of what has no score.
        assert (report["ece"], report["brier"]) == (whole["ece"], whole["brier"])
    # Of the four pairs the scored one alone is in order.
    assert steps.auc(scores, labels) == 0.25
    assert steps.best_threshold(scores, labels) == 0.5
    kinds = steps.per_kind_report(scores, labels, ["", "", "sum", "sum"])
    assert kinds["sum"] == {"recall": 0.5, "auc": 0.25, "count": 2.0}
    nothing = steps.classification_report(np.full(2, nan), np.array([0, 1]))
    assert nothing["accuracy"] == nothing["auc"] == 0.0 and math.isnan(nothing["ece"])


def test_kinds():
    scores = np.array([0.9, 0.6, 0.95, 0.1, 0.7, 0.2])
    labels = np.array([1, 1, 0, 0, 0, 0])
    kinds = ["correct", "copied", "illegal", "sum", "illegal", "sum"]
    report = steps.per_kind_report(scores, labels, kinds)
    assert list(report) == ["illegal", "sum"]
    assert report["sum"] == {"recall": 1.0, "auc": 1.0, "count": 2.0}
    assert report["illegal"] == {"recall": 0.0, "auc": 0.25, "count": 2.0}


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "no steps"),
        ([1.5], [1], "probabilities"),
        ([0.5], [0.5], "0 or 1"),
    ],
)
def test_refuses(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        steps.classification_report(np.array(scores), np.array(labels))
