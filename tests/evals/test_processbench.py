"""ProcessBench's metric on hand-made cases and its files; thresholds by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from aprm_jax.data.readers import read_steps
from aprm_jax.evals.processbench import (
    UNSCORED,
    best_threshold,
    first_error,
    processbench_score,
)
from aprm_jax.evals.step_sets import step_set


@pytest.mark.parametrize(
    ("scores", "threshold", "expected"),
    [
        ([0.9, 0.2, 0.1], 0.5, 1),
        ([0.1, 0.9, 0.9], 0.5, 0),
        ([0.9, 0.9, 0.1], 0.5, 2),
        ([0.9, 0.8, 0.7], 0.5, -1),
        ([0.5], 0.5, -1),  # strictly below
        ([], 0.5, -1),
        ([-np.inf], 0.5, 0),
    ],
)
def test_first_error(scores, threshold, expected):
    assert first_error(np.array(scores, np.float32), threshold) == expected


def test_first_error_compares_in_double_precision():
    score = np.float32(0.1)  # a little above 0.1
    assert first_error(np.array([score]), 0.1) == -1
    assert first_error(np.array([score]), 0.1000000016) == 0


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, np.nan], UNSCORED),
        ([np.nan, 0.1], UNSCORED),
        ([np.nan], UNSCORED),
        ([0.9, 0.1, np.nan], 1),  # found before the scores end
    ],
)
def test_without_a_score_there_is_no_verdict(scores, expected):
    assert first_error(np.array(scores, np.float32), 0.5) == expected


def test_who_calls_everything_wrong_gains_nothing_by_reading_half():
    labels = [0, 2, -1, -1, -1, -1]
    for threshold in (0.5, 1.0):
        read = [np.zeros(3)] * 4 + [np.full(3, np.nan)] * 2  # the last two were cut
        found = [first_error(row, threshold) for row in read]
        score = processbench_score(found, labels)
        assert score["f1"] == score["correct_accuracy"] == 0.0
        assert score["unscored"] == 2
    # Nor does hindsight find a threshold at which a cut solution is right.
    rows = [np.array([0.9, 0.1]), np.array([0.8, np.nan]), np.array([0.8, 0.7])]
    best = best_threshold(rows, [1, -1, -1])
    found = [first_error(row, best) for row in rows]
    assert processbench_score(found, [1, -1, -1])["correct_accuracy"] == 0.5
    missed = best_threshold([np.array([0.9, np.nan])] * 2, [1, -1])
    assert np.isfinite(missed)


@pytest.mark.parametrize(
    ("predictions", "labels", "error", "correct", "f1"),
    [
        ([1, 0, -1, -1], [1, 2, -1, -1], 0.5, 1.0, 2 / 3),
        # Finding *an* error is not enough: the index counts.
        ([0, 0, -1], [1, 2, -1], 0.0, 1.0, 0.0),
        ([-1, -1, -1], [0, 3, -1], 0.0, 1.0, 0.0),
        ([0, 3, 0], [0, 3, -1], 1.0, 0.0, 0.0),
        ([-1, 0], [0, -1], 0.0, 0.0, 0.0),  # 0/0
        ([0, -1, -1, 2], [0, 1, -1, -1], 0.5, 0.5, 0.5),
        ([-1], [-1], 0.0, 1.0, 0.0),  # no erroneous rows
        ([], [], 0.0, 0.0, 0.0),
    ],
)
def test_score(predictions, labels, error, correct, f1):
    result = processbench_score(predictions, labels)
    assert result["error_accuracy"] == pytest.approx(error)
    assert result["correct_accuracy"] == pytest.approx(correct)
    assert result["f1"] == pytest.approx(f1)
    assert result["num_error"] + result["num_correct"] == len(labels)


def test_scores_and_labels_must_match():
    with pytest.raises(ValueError, match="predictions"):
        processbench_score([0, 1], [0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_threshold_equals_brute_force(dtype):
    rng = np.random.default_rng(0)
    for _ in range(40):
        labels = rng.integers(-1, 4, size=12)
        sizes = [int(rng.integers(max(label + 1, 1), 6)) for label in labels]
        # Few distinct values, so that ties and touching intervals occur.
        scores = [(rng.integers(0, 9, size=n) / 8).astype(dtype) for n in sizes]

        def f1(threshold, scores=scores, labels=labels):
            found = [first_error(row, threshold) for row in scores]
            return processbench_score(found, labels)["f1"]

        grid = np.arange(-1, 18) / 16  # every value and every middle
        chosen = best_threshold(scores, labels)
        assert f1(chosen) == pytest.approx(max(map(f1, grid)))


def test_best_threshold_lies_in_the_middle_of_the_widest_gap():
    scores = [np.array([0.9, 0.1]), np.array([0.8, 0.9])]
    assert best_threshold(scores, [1, -1]) == pytest.approx((0.1 + 0.8) / 2)


def test_best_threshold_refuses_a_label_past_the_steps():
    with pytest.raises(ValueError, match="label 2"):
        best_threshold([np.array([0.5, 0.5])], [2])


@pytest.mark.parametrize(
    ("name", "erroneous", "correct"), [("gsm8k", 207, 193), ("math", 594, 406)]
)
def test_real_files(shared_data, name, erroneous, correct):
    path = shared_data / "processbench" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = read_steps(str(path), "processbench", unique=False, max_bad_share=0.0)
    data = step_set(name, "processbench", rows)
    assert data.origin == name  # the split of which a threshold may be tuned
    labels = data.first_errors
    wrong = [label for label in labels if label >= 0]
    assert (len(wrong), len(labels) - len(wrong)) == (erroneous, correct)
    # 0-based: the first step is some row's error, and no label is past the last step.
    assert min(wrong) == 0
    perfect = [
        np.where(np.arange(size) == label, 0.0, 1.0)
        for size, label in zip(data.sizes, labels, strict=True)
    ]
    found = [first_error(scores, 0.5) for scores in perfect]
    assert processbench_score(found, labels)["f1"] == 1.0
    assert 0 < best_threshold(perfect, labels) < 1
