"""Scores of other PRMs: three ways to name a solution, and everything that is wrong."""

import json

import numpy as np
import pytest

from aprm_jax.data.jsonl import DataError
from aprm_jax.evals.scores_file import read_scores

IDS, SIZES = ["a-0", "a-1", "a-2"], [2, 1, 0]
GOOD = [[0.25, 1], [0.5], []]


def write(tmp_path, rows):
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "rows",
    [
        [{"scores": s} for s in GOOD],
        [{"index": k, "scores": GOOD[k]} for k in (2, 0, 1)],
        [{"id": IDS[k], "scores": GOOD[k], "model": "x"} for k in (1, 2, 0)],
    ],
)
def test_rows_come_in_the_sets_order(tmp_path, rows):
    got = read_scores(write(tmp_path, rows), IDS, SIZES)
    assert [row.tolist() for row in got] == GOOD
    assert all(row.dtype == np.float64 for row in got)


def test_null_is_a_step_without_a_score(tmp_path):
    rows = [{"scores": [0.25, None]}, {"scores": [None]}, {"scores": []}]
    got = read_scores(write(tmp_path, rows), IDS, SIZES)
    np.testing.assert_array_equal(got[0], [0.25, np.nan])
    np.testing.assert_array_equal(got[1], [np.nan])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"scores": s} for s in GOOD[:2]], "1 of 3 solutions have no scores.*'a-2'"),
        ([{"scores": s} for s in [*GOOD, []]], "row 4: solution 3 of a set of 3"),
        ([{"id": "b-0", "scores": []}], "row 1: id 'b-0'"),
        ([{"index": -1, "scores": []}], "row 1: solution -1"),
        ([{"index": 2, "scores": []}] * 2, "row 2: solution 'a-2' stands there twice"),
        ([{"index": 0, "scores": [0.5]}], "row 1: 1 scores, but .*'a-0' has 2 steps"),
        ([{"index": 2, "scores": []}, {"scores": [1]}], "index, neither"),
        ([{"index": True, "scores": []}], "line 1.*truth value"),
        ([{"scores": [0.5, 1.5]}], "line 1.*score 1 must be a probability"),
        ([{"scores": [float("nan")]}], "line 1.*score 0 must be a probability"),
        ([{"scores": [0.5, "1"]}], "line 1.*score 1 must be a number"),
        ([{"scores": [True]}], "line 1.*not bool"),
        ([{"score": [1]}], "line 1.*'scores' must be a list"),
    ],
)
def test_what_does_not_match_is_named(tmp_path, rows, message):
    path = write(tmp_path, rows)
    with pytest.raises(DataError, match=message) as caught:
        read_scores(path, IDS, SIZES)
    assert str(path) in str(caught.value)
