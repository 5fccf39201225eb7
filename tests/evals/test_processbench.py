"""ProcessBench's metric on hand-made cases and its files; thresholds by brute force."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aprm_jax.data.jsonl import DataError
from aprm_jax.evals.processbench import (
    auc,
    best_threshold,
    first_error,
    minimum_scores,
    processbench_score,
    read_processbench,
)


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


def test_a_nan_score_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        first_error(np.array([0.9, np.nan], np.float32), 0.5)


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


def test_auc_counts_pairs():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 5, size=40) / 4
    outcomes = rng.random(40) < 0.4
    pairs = [
        (a > b) + 0.5 * (a == b) for a in scores[outcomes] for b in scores[~outcomes]
    ]
    assert auc(scores, outcomes) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(scores, np.ones(40, bool)))


def test_minimum_scores():
    rows = [np.array([0.3, 0.1], np.float32), np.array([], np.float32)]
    np.testing.assert_allclose(minimum_scores(rows), [float(np.float32(0.1)), np.inf])


def test_bad_rows_are_named(tmp_path):
    good = {"problem": "p", "steps": ["a", "b"], "label": 1}
    good["final_answer_correct"] = False
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([good, {**good, "label": 2}]))
    with pytest.raises(DataError, match=r"line 2: label 2 is no step of 2"):
        read_processbench(path)
    rows = read_processbench(path, max_bad_share=0.5)
    assert [row.label for row in rows] == [1]


@pytest.mark.parametrize(
    ("name", "erroneous", "correct", "right_answers"),
    # Published counts: right answers with a wrong step.
    [("gsm8k", 207, 193, 7), ("math", 594, 406, 94)],
)
def test_real_files(shared_data, name, erroneous, correct, right_answers):
    path = shared_data / "processbench" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = read_processbench(path, max_bad_share=0.0)
    wrong = [row for row in rows if row.label >= 0]
    assert (len(wrong), len(rows) - len(wrong)) == (erroneous, correct)
    assert sum(row.final_answer_correct for row in wrong) == right_answers
    # 0-based: the first step is some row's error, and no label is past the last step.
    assert min(row.label for row in wrong) == 0
    assert all(row.label < len(row.steps) for row in rows)
    perfect = [
        np.where(np.arange(len(row.steps)) == row.label, 0.0, 1.0) for row in rows
    ]
    labels = [row.label for row in rows]
    found = [first_error(scores, 0.5) for scores in perfect]
    assert processbench_score(found, labels)["f1"] == 1.0
    assert 0 < best_threshold(perfect, labels) < 1
