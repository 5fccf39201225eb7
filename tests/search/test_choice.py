"""Choosing one of given candidates: each rule, ties, what is not scored, no steps."""

from __future__ import annotations

import numpy as np
import pytest

from aprm_jax.oracle.answers import grade
from aprm_jax.search.choice import Choice, choose, solution_scores

NAN = float("nan")
STEPS = [("a",), ("b",), ("c",), ("d",)]


def _choose(answers, scores, how, steps=STEPS):
    totals = np.log(np.array(scores, float))
    return choose(steps[: len(answers)], answers, totals, how, grade)


@pytest.mark.parametrize(
    ("answers", "scores", "best", "vote", "majority"),
    [
        # The best alone, two middling ones together, three that hardly convince.
        (["1", "2", "2", "3"], [0.9, 0.5, 0.6, 0.1], 0, 2, 2),
        (["1/2", "7", "0.5", "\\frac12"], [0.2, 0.5, 0.2, 0.2], 1, 0, 0),
        (["1", "2", "2", "2"], [0.9, 0.1, 0.2, 0.1], 0, 0, 2),
        # Ties go to the first.
        (["1", "2", "2", "1"], [0.5, 0.5, 0.5, 0.5], 0, 0, 0),
        (["3", "2", "2", "3"], [0.1, 0.2, 0.3, 0.4], 3, 3, 3),
        # Without an answer there is no vote, but a score.
        ([None, "2", "3", None], [0.9, 0.1, 0.2, 0.9], 0, 2, 1),
        # What is not scored does not win by a score; it may be of the majority.
        (["1", "2", "1", "3"], [NAN, 0.1, NAN, 0.2], 3, 3, 0),
    ],
)
def test_each_rule(answers, scores, best, vote, majority):
    for how, expected in (("best", best), ("vote", vote), ("majority", majority)):
        assert _choose(answers, scores, how) == Choice(expected, how)


@pytest.mark.parametrize("how", ["best", "vote"])
def test_where_nothing_is_scored_the_majority_stands_in_and_says_so(how):
    assert _choose(["1", "2", "2.0"], [NAN] * 3, how) == Choice(1, "majority")
    assert _choose([None, None], [NAN] * 2, how) == Choice(None, "")
    assert _choose([], [], how) == Choice(None, "")


@pytest.mark.parametrize("answers", [["0.333", "1/3", "7"], ["7", "1/3", "0.333"]])
def test_where_nothing_is_scored_the_most_exact_spelling_is_taken(answers):
    assert _choose(answers, [NAN] * 3, "majority") == Choice(1, "majority")
    # Of what is scored the best is.
    scores = [0.1 if a == "1/3" else 0.2 for a in answers]
    best = _choose(answers, scores, "majority").index
    assert best is not None and answers[best] == "0.333"


def test_a_vote_of_scores_without_answers_is_the_majoritys():
    assert _choose([None, "2"], [0.9, NAN], "vote") == Choice(1, "majority")


@pytest.mark.parametrize("how", ["best", "vote", "majority"])
def test_a_candidate_without_steps_never_wins(how):
    empty = [(), (), ("c",)]
    totals = solution_scores(empty, [np.zeros(0), np.zeros(0), np.array([-9.0])], "min")
    assert choose(empty, ["1", "1", "2"], totals, how, grade).index == 2
    none = choose([(), ()], ["1", "1"], np.array([NAN, NAN]), how, grade)
    assert none == Choice(None, "")


def test_scores_of_what_was_not_read_to_its_end_are_none():
    logs = [np.log([0.5, 0.25]), np.array([-0.1, NAN]), np.zeros(0)]
    steps = [("a", "b"), ("a", "b"), ()]
    expected = {"min": 0.25, "product": 0.125, "mean": 0.375, "last": 0.25}
    for how, value in expected.items():
        found = np.exp(solution_scores(steps, logs, how))
        np.testing.assert_allclose(found, [value, NAN, NAN])


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'first' is none of best, vote, majority"):
        _choose(["1"], [0.5], "first")
