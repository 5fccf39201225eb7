import numpy as np
import pytest

from aprm_jax.data.arithmetic import ArithmeticDomain
from aprm_jax.evals import outcome
from aprm_jax.oracle.verdict import Label


@pytest.fixture(scope="module")
def located():
    domain = ArithmeticDomain(seed=0)
    problems = domain.problems("dev", 20)
    return domain, problems, outcome.located_errors(domain, problems, seed=3)


def test_every_solution_is_there_once_without_an_error(located):
    _, problems, rows = located
    clean = [(question, steps) for question, steps, label in rows if label == -1]
    assert clean == [(p.question, p.steps) for p in problems]


def test_a_located_error_is_the_only_step_that_was_changed_and_is_wrong(located):
    domain, problems, rows = located
    right = {p.question: p.steps for p in problems}
    wrong = [row for row in rows if row[2] >= 0]
    assert len(wrong) > len(problems) / 2
    for question, steps, k in wrong:
        changed = [i for i, s in enumerate(steps) if s != right[question][i]]
        assert changed == [k]
        verdict = domain.oracle.judge(question, steps[:k], right[question][k], steps[k])
        assert verdict.label == Label.INCORRECT


def test_the_corruptions_are_those_of_their_seed(located):
    domain, problems, rows = located
    assert outcome.located_errors(domain, problems, seed=3) == rows
    assert outcome.located_errors(domain, problems, seed=4) != rows


def test_outcome_auc_over_all_and_within_writers():
    scores = [np.array([0.9, s]) for s in (0.8, 0.7, 0.2, 0.1)]
    right = [True, False, True, False]
    found = outcome.outcome_report(scores, right, ["a", "a", "b", "b"])
    # Of the four pairs (right, wrong) the pair (0.2, 0.7) alone is out of order.
    assert found["auc"] == 0.75
    assert found["auc_within"] == 1.0
    assert found["count"] == 4 and found["correct_share"] == 0.5


def test_solutions_without_a_step_are_counted_and_left_out():
    scores = [np.array([]), np.array([0.6]), np.array([0.4])]
    found = outcome.outcome_report(scores, [True, True, False], ["a"] * 3)
    assert (found["auc"], found["count"], found["left_out"]) == (1.0, 2.0, 1.0)


def test_first_errors_at_a_threshold_and_in_hindsight():
    scores = [np.array([0.9, 0.4]), np.array([0.6, 0.7]), np.array([0.3])]
    labels = [1, -1, 4]  # the last one's error lies behind what was scored
    found = outcome.first_error_report(scores, labels, threshold=0.65)
    assert found["error_accuracy"] == 0.5 and found["correct_accuracy"] == 0.0
    assert found["f1"] == 0.0
    # A threshold between 0.4 and 0.6 finds the first and passes the second.
    assert found["oracle_threshold_f1"] == pytest.approx(2 / 3)
