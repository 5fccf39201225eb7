"""Sets of labelled solutions and the reports on them, against hand-made cases."""

import math

import numpy as np
import pytest
import scipy.special

from aprm_jax.data.labelled import from_first_error, from_labels, from_ratings
from aprm_jax.evals import step_sets, steps
from aprm_jax.evals.calibration import Platt
from aprm_jax.evals.processbench import processbench_score

NAN = math.nan
RATED = [
    from_ratings("q", ("a",), (1,), problem_id="q"),
    from_ratings("q", ("a", "b"), (None, 1), problem_id="q"),
    from_ratings("q", ("a", "c"), (None, -1), problem_id="q"),
    from_ratings("r", ("d", "e"), (0, -1), problem_id="r"),
]


def test_steps_of_a_tree_count_once():
    data = step_sets.step_set("test", "prm800k", RATED)
    assert data.kind == "steps"
    assert data.ids == ["test-0", "test-1", "test-2"] and data.sizes == [2, 2, 2]
    assert data.first_errors == [-1, 1, 1]
    scores = [np.array([3.0, 1.0]), np.array([3.0, 2.0]), np.array([5.0])]
    found = step_sets.judged(data.rows, scores)
    assert found.scores.tolist() == [3.0, 1.0, 2.0, 5.0]
    assert found.labels.tolist() == [1.0, 1.0, 0.0, 1.0]  # neutral is not incorrect
    assert found.groups.tolist() == [0, 0, 0, 1]
    assert found.left_out == 1
    strict = step_sets.step_set("test", "prm800k", RATED, neutral="incorrect")
    assert strict.first_errors == [-1, 1, 0]


def test_a_benchmark_keeps_its_rows():
    rows = [from_first_error("q", "abc", 1), from_first_error("q", "abc", -1)]
    data = step_sets.step_set("gsm8k", "processbench", [*rows, rows[0]])
    assert data.kind == "first_error" and len(data.rows) == 3
    assert data.first_errors == [1, -1, 1]
    np.testing.assert_array_equal(data.rows[0].labels, (1.0, 0.0, NAN))


def _steps_report(scores, labels, groups, threshold=0.5, platt=None):
    found = step_sets.Judged(scores, labels, groups, 3)
    return step_sets.steps_report(
        found, scipy.special.expit, threshold, platt or Platt(1.0, 0.0), 200
    )


def test_the_report_on_steps():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(float)
    scores = rng.normal(40 + 2 * labels, 1.0)  # as probabilities all of them are 1
    groups = np.arange(400) // 8
    report = _steps_report(scores, labels, groups, platt=Platt(2.0, -82.0))
    assert (
        report["auc"] == pytest.approx(steps.auc(scores, labels))
        and report["auc"] > 0.9
    )
    assert report["auc.low"] < report["auc"] < report["auc.high"] < 1
    assert report["ece"] == pytest.approx(1 - labels.mean(), abs=1e-6)
    assert report["ece_calibrated"] < 0.1 and report["left_out"] == 3
    assert report["accuracy"] == pytest.approx(labels.mean())


def test_the_interval_is_wider_where_questions_are_few():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(float)
    scores = rng.normal(labels, 1.0)
    widths = []
    for groups in (np.arange(300), np.arange(300) // 60):
        # Every question shifts its own scores: steps of one are no independent draws.
        shifted = scores + np.random.default_rng(1).normal(0, 2, 300)[groups]
        interval = step_sets.auc_interval(shifted, labels, groups, 300)
        assert interval.low < interval.mean < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] > widths[0]
    alone = step_sets.auc_interval(np.ones(2), np.ones(2), np.zeros(2, int), 10)
    assert math.isnan(alone.low)


def test_the_interval_of_first_errors():
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 3, 500)
    guess = np.where(rng.random(500) < 0.6, truth, 3)
    interval = step_sets.first_error_interval(guess, truth, 2000)
    assert interval.mean == processbench_score(guess, truth)["f1"]
    assert interval.low < interval.mean < interval.high
    # Half the width is near two standard errors of a share of 125 rows, about 0.08.
    assert 0.05 < interval.high - interval.low < 0.2
    sure = step_sets.first_error_interval([-1, 0], [-1, 0], 50)
    assert (sure.mean, sure.high) == (1.0, 1.0)


def test_first_errors_of_a_validation_set():
    data = step_sets.step_set("dev", "prm800k", RATED)
    scores = [np.array([0.9, 0.8]), np.array([0.9, 0.1]), np.array([0.7, 0.2, 0.1])]
    values, labels = step_sets.validation_first_errors(data.rows, scores)
    assert labels == [-1, 1, 1]
    assert [row.tolist() for row in values] == [[0.9, 0.8], [0.9, 0.1], [0.7, 0.2]]
    # An unlabelled step before the error, and an error without a score, say nothing.
    unknown = [
        from_labels("s", "abc", [NAN, 0.0, 1.0]),
        from_labels("t", "ab", [1.0, 0.0]),
    ]
    rows = step_sets.step_set("dev", "prm800k", unknown).rows
    values, labels = step_sets.validation_first_errors(rows, [np.ones(3), np.ones(1)])
    assert values == [] and labels == []


def test_categories_are_scored_as_the_benchmark_does():
    def row(category, name, labels):
        return from_labels(
            "q",
            "abcd"[: len(labels)],
            [float(v) for v in labels],
            category=category,
            problem_id=name,
        )

    data = step_sets.step_set(
        "bench",
        "prmbench",
        [
            row("circular", "1", [1, 0, 0]),
            row("circular", "1", [1, 0, 0]),  # an id counts once
            row("multi_solutions", "1", [1, 1]),
            row("correct", "1", [1, 1]),
        ],
    )
    assert data.categories == ("circular", "multi_solutions", "correct")
    scores = [np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.2]), np.array([0.1, 0.1])]
    report = step_sets.category_report(data, scores, 0.5)
    # circular: right 1/2 precision, 1 recall; wrong 1 precision, 1/2 recall.
    assert report["circular.score"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert report["multi_solutions.score"] == pytest.approx(2 / 3)
    # All: TP 2, FP 1, FN 1, TN 1, the originals apart.
    assert report["all.f1_correct"] == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert report["all.f1"] == pytest.approx(2 / (2 + 2))
    assert report["all.score"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert report["all.count"] == 5 and report["correct.accuracy"] == 0
