"""Sets of labelled solutions, and which of their rows a threshold is chosen on."""

import dataclasses
import math

import numpy as np
import pytest

from aprm_jax.data.labelled import from_first_error, from_labels, from_ratings
from aprm_jax.evals import step_sets
from aprm_jax.verifiers.models import padded

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
    scores = padded(
        [np.array([3.0, 1.0]), np.array([3.0, 2.0]), np.array([5.0])], data.sizes
    )
    found = step_sets.judged(data.rows, scores)
    np.testing.assert_array_equal(found.scores, [3.0, 1.0, 2.0, 5.0, NAN])
    assert found.labels.tolist() == [1.0, 1.0, 0.0, 1.0, 0.0]  # neutral is not wrong
    assert found.groups.tolist() == [0, 0, 0, 1, 1]
    strict = step_sets.step_set("test", "prm800k", RATED, neutral="incorrect")
    assert strict.first_errors == [-1, 1, 0]


def test_a_benchmark_keeps_its_rows():
    rows = [from_first_error("q", "abc", 1), from_first_error("q", "abc", -1)]
    data = step_sets.step_set("gsm8k", "processbench", [*rows, rows[0]])
    assert data.kind == "first_error" and len(data.rows) == 3
    assert data.first_errors == [1, -1, 1]
    np.testing.assert_array_equal(data.rows[0].labels, (1.0, 0.0, NAN))


def test_a_set_is_of_a_split_only_if_all_of_it_is():
    rows = [from_first_error("q", "ab", -1, split="gsm8k")] * 2
    made = step_sets.step_set("x", "processbench", rows)
    assert (made.reader, made.origin) == ("processbench", "gsm8k")
    other = dataclasses.replace(rows[0], split="math")
    assert step_sets.step_set("x", "processbench", [*rows, other]).origin == ""


def finished(steps, ratings, whole):
    return from_ratings("q", steps, ratings, problem_id="q", finished=whole)


def test_a_threshold_is_chosen_on_whole_solutions_and_first_errors():
    rated = [
        finished(("a",), (1,), False),
        finished(("a", "b"), (None, 1), True),
        finished(("a", "c"), (None, -1), False),
        finished(("a", "d"), (None, 1), False),  # right so far, and not at its end
        from_ratings("r", ("d", "e"), (0, -1), problem_id="r"),
    ]
    data = step_sets.step_set("dev", "prm800k", rated)
    scores = [np.array([0.9, k / 10]) for k in range(len(data.rows))]
    values, labels = step_sets.first_error_rows(data.rows, scores)
    kept = {
        data.rows[round(10 * v[1])].steps: k
        for v, k in zip(values, labels, strict=True)
    }
    assert kept == {("a", "b"): -1, ("a", "c"): 1, ("d", "e"): 1}
    # An unlabelled step before the error says nothing.
    unknown = [from_labels("s", "abc", [NAN, 0.0, 1.0])]
    rows = step_sets.step_set("dev", "prm800k", unknown).rows
    assert step_sets.first_error_rows(rows, [np.ones(3)]) == ([], [])
    # What stands behind the error is no part of the row.
    behind = [from_labels("s", "abc", [1.0, 0.0, 1.0])]
    rows = step_sets.step_set("dev", "prm800k", behind).rows
    [values], labels = step_sets.first_error_rows(rows, [np.ones(3)])
    assert len(values) == 2 and labels == [1]


@pytest.mark.parametrize(
    ("last", "whole"),
    [
        ("# Answer\n\n12", True),
        ("So \\boxed{12}.", True),
        ("#### 12", True),
        ("The answer is 12.", True),
        ("Next, we add 12 and 13.", False),
        ("Right.", False),
        ("So x is 12, and y follows from it.", False),
    ],
)
def test_where_the_data_does_not_say_an_answer_ends_a_solution(last, whole):
    labelled = from_labels("q", ("a", last), (1.0, 1.0))
    [row] = step_sets.step_set("dev", "step_format", [labelled]).rows
    assert step_sets.looks_whole(row) is whole
    for known in (True, False):
        said = dataclasses.replace(row, finished=known)
        assert step_sets.looks_whole(said) is known
