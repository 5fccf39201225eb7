"""Solutions of any number are scored in order, and one batch of them is held."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from aprm_jax.data.solutions import GivenSolution
from aprm_jax.verifiers.protocol import Scale, logit
from aprm_jax.verifiers.stream import batches, score_stream, scored_row


class Counting:
    """P(correct) is 1 / (1 + the step's number of its solution's line)."""

    scale = Scale.LOG_ODDS

    def __init__(self):
        self.asked = []

    def score(self, solutions):
        self.asked.append(len(solutions))
        return [
            logit([1 / (1 + int(question) + k) for k in range(len(steps))])
            for question, steps in solutions
        ]


@pytest.mark.parametrize("count", [1000, 10_000])
def test_as_many_rows_are_held_as_a_batch_has(count):
    alive: weakref.WeakSet[GivenSolution] = weakref.WeakSet()
    most = 0

    def rows():
        nonlocal most
        for line in range(1, count + 1):
            row = GivenSolution(line, str(line), ("a",) * (line % 3))
            alive.add(row)
            most = max(most, len(alive))
            yield row

    verifier, seen = Counting(), 0
    for seen, (solution, found) in enumerate(score_stream(rows(), verifier, 64), 1):
        assert solution.line == seen and len(found) == seen % 3
        np.testing.assert_allclose(found[:1], [1 / (1 + seen)][: len(found)])
    assert seen == count and sum(verifier.asked) == count
    # The batch that is out, the one that grows, and the row in the caller's hands.
    assert most <= 2 * 64 + 2


def test_a_batch_has_no_more_text_than_there_is_room_for():
    long = "x" * (1 << 21)
    rows = [GivenSolution(k, long, ()) for k in range(5)]
    assert [len(batch) for batch in batches(rows, 64)] == [2, 2, 1]
    huge = [GivenSolution(1, long * 4, ()), GivenSolution(2, "", ())]
    assert [len(batch) for batch in batches(huge, 64)] == [1, 1]


def test_what_is_written_of_a_solution():
    named = GivenSolution(3, "q", ("a", "b"), "n-3")
    written = scored_row(named, np.array([0.25, np.nan]))
    assert written == {
        "line": 3,
        "id": "n-3",
        "key": named.key,
        "scores": [0.25, None],
    }
    assert "id" not in scored_row(GivenSolution(1, "q", ()), np.zeros(0))
