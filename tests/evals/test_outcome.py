"""The outcome from the least step score, on hand-made cases."""

import numpy as np

from aprm_jax.evals.outcome import minimum_scores, outcome_records
from aprm_jax.evals.records import Results


def measured(scores, right, writers, questions=None):
    questions = questions or [f"{i}?" for i in range(len(right))]
    results = Results(outcome_records("v", scores, right, writers, questions))
    return lambda metric, part="": results.value("outcome", "", "v", metric, part)


def test_auc_over_all_and_within_writers():
    scores = [np.array([0.9, s]) for s in (0.8, 0.7, 0.2, 0.1)]
    right = [True, False, True, False]
    found = measured(scores, right, ["a", "a", "b.c", "b.c"])
    # Of the four pairs (right, wrong) the pair (0.2, 0.7) alone is out of order.
    assert found("auc") == 0.75
    assert found("auc_within") == found("auc", "a") == found("auc", "b.c") == 1.0
    assert found("count") == 4 and found("correct_share") == 0.5


def test_solutions_that_are_not_scored_whole_are_misses_and_counted():
    scores = [np.array([np.nan]), np.array([0.6]), np.array([0.4])]
    found = measured(scores, [True, True, False], ["a"] * 3)
    assert (found("auc"), found("count"), found("unscored")) == (0.5, 3.0, 1.0)
    # A wrong one of which the beginning alone was read: it is not caught.
    scores = [np.array([0.1, np.nan]), np.array([0.6]), np.array([])]
    found = measured(scores, [False, True, True], ["a"] * 3)
    assert (found("auc"), found("unscored")) == (0.0, 2.0)


def test_the_best_of_the_solutions_of_one_question_is_chosen():
    scores = [np.array([s]) for s in (0.9, 0.2, 0.5, 0.5, 0.8)] + [np.array([np.nan])]
    right = [True, False, True, False, False, True]
    questions = ["a", "a", "b", "b", "alone", "c"]
    found = measured(scores, right, list("uvuvuu"), questions)
    # Of "a" the right one, of "b" either, as they tie; nobody chooses of the others.
    assert found("chosen") == 0.75 and found("questions") == 2
    assert (found("any_right"), found("one_right")) == (1.0, 0.5)
    # What is not scored is never the best.
    found = measured(scores[4:], right[4:], list("uv"), ["c", "c"])
    assert (found("chosen"), found("any_right")) == (0.0, 1.0)


def test_minimum_scores():
    rows = [np.array([0.3, 0.1], np.float32), np.array([], np.float32)]
    rows.append(np.array([0.3, np.nan], np.float32))
    expected = [float(np.float32(0.1)), np.nan, np.nan]
    np.testing.assert_allclose(minimum_scores(rows), expected)


def test_a_writer_of_right_ones_alone_leaves_the_others_auc():
    scores = [np.array([s]) for s in (0.1, 0.9, 0.5)]
    found = measured(scores, [False, True, True], ["a", "a", "b"])
    assert np.isnan(found("auc", "b"))
    assert found("auc_within") == found("auc", "a") == 1.0
    found = measured(scores[2:], [True], ["b"])
    assert np.isnan(found("auc_within"))


def test_nobody_has_chosen_among_what_nobody_read():
    unread = [np.array([np.nan])] * 4
    found = measured(unread, [True, True, True, False], ["a"] * 4, ["q"] * 4)
    assert (found("chosen"), found("one_right")) == (0.0, 0.75)
