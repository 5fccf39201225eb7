"""The rows that R believes most: wrong, decided, distinct; the rest as it came."""

from __future__ import annotations

import numpy as np
import pytest

from aprm_jax.data.rows import StepRow
from aprm_jax.verifiers.hard import hard_rows, hardest


def _row(token: int, label: float) -> StepRow:
    ids = np.array([1, token], np.int32)
    segment = np.ones(2, np.int32)
    return StepRow(ids, ids, segment, segment, np.array([label], np.float32))


def test_the_most_believed_wrong_ones_come_first_and_once():
    rows = [
        _row(2, 0.0),
        None,  # undecidable, whatever stands for its score
        _row(3, 1.0),  # right
        _row(4, 0.0),
        _row(5, 0.0),
        _row(4, 0.0),  # the same again
        _row(6, 0.25),  # most completions from it fail
    ]
    log_odds = np.array([-3.0, 99.0, 50.0, 30.0, 40.0, 30.0, 2.0], np.float32)
    assert hardest(rows, log_odds, 3) == [4, 3, 6]
    assert hardest(rows, log_odds, 9) == [4, 3, 6, 0]
    assert hardest(rows, log_odds, 0) == []
    assert hardest([None, rows[2]], log_odds[:2], 2) == []


def test_log_odds_order_what_probabilities_have_rounded_to_one():
    rows = [_row(2, 0.0), _row(3, 0.0)]
    assert hardest(rows, np.array([40.0, 41.0], np.float32), 1) == [1]


@pytest.mark.parametrize(
    "share, chosen", [(0.0, [0, 1, 2, 3]), (0.5, [5, 4, 0, 1]), (1.0, [5, 4, 3, 2])]
)
def test_a_share_is_the_hardest_and_the_rest_as_drawn(share, chosen):
    rows = [_row(k, 0.0) for k in range(6)]
    kept = hard_rows(rows, np.arange(6, dtype=np.float32), 4, share)
    assert [int(row.tokens[1]) for row in kept] == chosen


def test_fewer_distinct_ones_than_asked_for_are_filled_up():
    rows = [_row(7, 0.0)] * 3 + [_row(8, 0.0)]
    kept = hard_rows(rows, np.array([5.0, 5.0, 5.0, 1.0]), 4, 1.0)
    assert [int(row.tokens[1]) for row in kept] == [7, 8, 7, 7]
