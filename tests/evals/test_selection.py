"""Which of several solutions is chosen, on two problems made by hand."""

from __future__ import annotations

import functools
import inspect
import itertools

import numpy as np
import pytest
from tiny_game import DOMAIN

from aprm_jax.data.problem import Problem
from aprm_jax.evals import selection
from aprm_jax.search.select import groups
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.graders import AnswerGrader

PROBLEMS = [
    Problem("1 + 2 + 3", ("3 + 3", "6"), "6"),
    Problem("4 + 4", ("8",), "8"),
]


def _solution(question: str, *steps: str, finished: bool = True) -> Solution:
    return Solution(question, steps, finished)


SOLUTIONS = [
    [
        _solution("1 + 2 + 3", "3 + 3", "6"),
        _solution("1 + 2 + 3", "5"),
        _solution("1 + 2 + 3", "5 + 0", "5"),
        # The right answer's text, but the step never closed.
        _solution("1 + 2 + 3", "6", finished=False),
    ],
    [
        _solution("4 + 4", "7"),
        _solution("4 + 4", "8"),
        _solution("4 + 4", "9", finished=False),
        _solution("4 + 4", "9 + 1", finished=False),
    ],
]
# Log-probabilities of the steps; the unfinished ones look best.
SCORES = [
    [[-0.1, -0.9], [-0.5], [-0.2, -0.7], [-0.01]],
    [[-0.3], [-0.2], [-0.01], [-0.01]],
]


def _best_of_n(scores, solutions, correct, how, n):
    totals = selection.solution_scores(scores, solutions, how)
    return selection.expected_best_of_n(totals, correct, n)


def test_an_unfinished_solution_is_not_right():
    correct = selection.correctness(DOMAIN, PROBLEMS, SOLUTIONS)
    assert correct.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
    ]


def test_majority_counts_answers_and_leaves_out_the_unfinished():
    vote = [selection.majority(DOMAIN, PROBLEMS, SOLUTIONS, n) for n in (1, 3, 4)]
    assert [v.tolist() for v in vote] == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    # 5, 5, 6 and an abstention; 7 and 8 tie, and the first wins.
    more = [[*SOLUTIONS[0], SOLUTIONS[0][0], SOLUTIONS[0][0]]]
    assert selection.majority(DOMAIN, PROBLEMS[:1], more, 6).tolist() == [1.0]


def test_a_weighted_majority_sums_the_probabilities_of_equal_answers():
    correct = selection.correctness(DOMAIN, PROBLEMS, SOLUTIONS)
    totals = selection.solution_scores(SCORES, SOLUTIONS, "min")
    # 6 (exp -0.9) against 5 (exp -0.5, then exp -0.7 too); 7 against 8.
    answers = [["6", "5", "5", None], ["7", "8", None, None]]

    def vote(answers, totals, correct, n):
        alike = functools.partial(groups, same=DOMAIN.same_answer)
        return selection.weighted_majority(answers, totals, correct, n, alike)

    assert vote(answers, totals, correct, 1).tolist() == [1.0, 0.0]
    assert vote(answers, totals, correct, 4).tolist() == [0.0, 1.0]
    rows = selection.table(
        DOMAIN, PROBLEMS, SOLUTIONS, {"prm": SCORES}, ("min",), (1, 4)
    )
    assert rows["prm", "vote_min@4"].tolist() == [0.0, 1.0]
    # Two of 0.4 outweigh the best; what is not read to its end has no vote.
    totals = np.log([[0.6, 0.4, 0.4, 1e-9]])
    answers = [["6", "5", "5", "6"]]
    assert vote(answers, totals, correct[:1], 4).tolist() == [0.0]
    totals[0, 2] = -np.inf
    assert vote(answers, totals, correct[:1], 4).tolist() == [1.0]


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_a_vote_is_right_by_its_most_exact_spelling_whatever_comes_first(order):
    """1/3 is right where 0.333 is asked for, but not the other way round."""
    grader, spelt = AnswerGrader(), ["0.333", "1/3", "1/3", "7"]
    problem = Problem("What is a third?", ("#### 1/3",), "1/3")
    row = [_solution(problem.question, f"#### {spelt[k]}") for k in order]
    scores = [[[-0.1 - 0.1 * (spelt[k] == "7")] for k in order]]
    rows = selection.table(grader, [problem], [row], {"v": scores}, ("min",), (4,))
    assert rows["", "majority@4"].tolist() == [1.0]
    assert rows["v", "vote_min@4"].tolist() == [1.0]


def test_the_first_samples_vote_as_if_there_were_no_others():
    """Whoever speaks for an answer among four is not asked among two."""
    grader = AnswerGrader()
    problem = Problem("What is a third?", ("#### 1/3",), "1/3")
    row = [_solution(problem.question, f"#### {a}") for a in ("0.333", "7", "1/3")]
    scores = [[[-0.1], [-0.2], [-0.3]]]
    rows = selection.table(grader, [problem], [row], {"v": scores}, ("min",), (2, 3))
    assert [rows["", f"majority@{n}"].item() for n in (2, 3)] == [0.0, 1.0]
    assert [rows["v", f"vote_min@{n}"].item() for n in (2, 3)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # Highest score: 5 (-0.5) beats 5 (-0.7) and 6 (-0.9); 8 (-0.2) beats 7.
        ("min", [0.0, 1.0]),
        ("last", [0.0, 1.0]),
        ("product", [0.0, 1.0]),
    ],
)
def test_best_of_all_takes_the_highest_score_of_the_finished(how, expected):
    correct = selection.correctness(DOMAIN, PROBLEMS, SOLUTIONS)
    got = _best_of_n(SCORES, SOLUTIONS, correct, how, 4)
    assert got.tolist() == expected
    better = [[[-0.1, -0.3], *SCORES[0][1:]], SCORES[1]]
    got = _best_of_n(better, SOLUTIONS, correct, how, 4)
    assert got.tolist() == [1.0, 1.0]


def test_the_aggregation_changes_the_choice():
    correct = selection.correctness(DOMAIN, PROBLEMS, SOLUTIONS)
    scores = [[[-0.6, -0.1], [-0.5], [-3.0, -3.0], [0.0]], SCORES[1]]
    by_min = _best_of_n(scores, SOLUTIONS, correct, "min", 4)
    by_last = _best_of_n(scores, SOLUTIONS, correct, "last", 4)
    assert by_min.tolist() == [0.0, 1.0] and by_last.tolist() == [1.0, 1.0]


def test_a_solution_that_was_not_read_to_its_end_comes_last():
    """Else the verifier takes what it could not read: fewer steps, a higher least."""
    correct = selection.correctness(DOMAIN, PROBLEMS, SOLUTIONS)
    cut = [[[-0.0, float("nan")], *SCORES[0][1:]], SCORES[1]]
    whole = [[[-0.0, -0.1], *SCORES[0][1:]], SCORES[1]]
    for how in ("min", "product", "mean", "last"):
        assert _best_of_n(whole, SOLUTIONS, correct, how, 4)[0] == 1.0
        assert _best_of_n(cut, SOLUTIONS, correct, how, 4)[0] == 0.0


def test_what_no_verifier_read_to_its_end_never_wins():
    """Right as they are: neither the best of N nor a vote may credit the verifier."""
    nan = float("nan")
    right = [_solution("4 + 4", "8"), _solution("4 + 4", "7 + 1", "8")]
    scores = [[[nan], [-0.1, nan]], [[-0.5], [nan, -0.1]]]
    rows = selection.table(
        DOMAIN, [PROBLEMS[1]] * 2, [right] * 2, {"v": scores}, ("min", "last"), (1, 2)
    )
    for how in ("min", "last"):
        assert rows["v", f"{how}@1"].tolist() == [0.0, 0.5]
        assert rows["v", f"{how}@2"].tolist() == [0.0, 1.0]
        assert rows["v", f"vote_{how}@1"].tolist() == [0.0, 1.0]
        assert rows["v", f"vote_{how}@2"].tolist() == [0.0, 1.0]
        got = _best_of_n(scores, [right] * 2, np.ones((2, 2), bool), how, 2)
        assert got.tolist() == [0.0, 1.0]


def test_a_solution_that_is_certainly_wrong_was_read():
    """A probability of 0 is the verifier's word: it wins against what is unread."""
    certain = [[[-np.inf]], [[-np.inf]]]
    row = [[_solution("4 + 4", "8")], [_solution("4 + 4", "7")]]
    problems = [PROBLEMS[1]] * 2
    rows = selection.table(DOMAIN, problems, row, {"v": certain}, ("min",), (1,))
    assert rows["v", "min@1"].tolist() == rows["v", "vote_min@1"].tolist() == [1, 0]


def test_a_subset_without_a_finished_solution_is_chosen_from_all_the_same():
    """n = 2 of the second problem: of six pairs three hold the right one."""
    correct = selection.correctness(DOMAIN, PROBLEMS, SOLUTIONS)
    got = _best_of_n(SCORES, SOLUTIONS, correct, "min", 2)
    assert got[1] == pytest.approx(3 / 6)
    # First problem: (6, unfinished) alone is won by the right one.
    assert got[0] == pytest.approx(1 / 6)


def test_every_row_of_the_table():
    names = list(inspect.signature(selection.table).parameters)
    assert names[:6] == [
        "grader",
        "problems",
        "solutions",
        "scored",
        "aggregations",
        "sizes",
    ]
    rows = selection.table(
        DOMAIN, PROBLEMS, SOLUTIONS, {"aprm": SCORES}, ("min", "last"), (1, 4)
    )
    verifier = {("aprm", f"{how}@{n}") for how in ("min", "last") for n in (1, 4)}
    alone = {("", f"{how}@{n}") for how in ("majority", "pass") for n in (1, 4)}
    assert verifier | alone <= rows.keys()
    sample = rows["", "sample"]
    assert sample.tolist() == [0.25, 0.25]
    assert rows["", "pass@4"].tolist() == [1.0, 1.0]
    # One of one: whatever the verifier says, it is a random sample.
    np.testing.assert_allclose(rows["aprm", "min@1"], sample)
    np.testing.assert_allclose(rows["", "pass@1"], sample)


def test_records_name_the_method_in_fields_of_their_own():
    name = "../runs/v1.2/aprm"
    rows = {(name, "min@2"): np.array([1.0, 0.0]), ("", "greedy"): np.ones(2)}
    first, second = selection.solver_records("test", rows, 50)
    assert (first.verifier, first.metric, first.value) == (name, "min@2", 0.5)
    assert (second.verifier, second.metric, second.value) == ("", "greedy", 1.0)
    [other] = selection.difference_records(
        "test", rows[name, "min@2"], {("", "greedy"): rows["", "greedy"]}, 50
    )
    assert (other.set, other.metric, other.value) == ("difference", "greedy", -0.5)
