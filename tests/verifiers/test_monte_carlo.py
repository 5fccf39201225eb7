"""Labels of a solver's own samples, for solvers whose every word is known."""

from __future__ import annotations

import jax
import pytest
import tiny_game
from scripted import ScriptedSampler
from tiny_game import DOMAIN

from aprm_jax.data.problem import Problem
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.monte_carlo import (
    LabelledStep,
    monte_carlo_labels,
    oracle_labels,
    outcome_labels,
)

QUESTION = "1 + 2 + 3 + 1"
PROBLEM = Problem(QUESTION, ("3 + 3 + 1", "6 + 1", "7"), "7")
BUILDER = tiny_game.builder()


def _solution(*steps: str, question: str = QUESTION) -> Solution:
    return Solution(question, steps, DOMAIN.is_final(steps[-1]))


def _summary(labels: list[LabelledStep]) -> list[tuple]:
    for row in labels:
        assert row.question == QUESTION
    return [(row.prefix, row.step, row.label) for row in labels]


def test_the_oracle_labels_up_to_the_first_error():
    right = _solution("3 + 3 + 1", "6 + 1", "7")
    assert _summary(oracle_labels([right], DOMAIN.oracle)) == [
        ((), "3 + 3 + 1", 1.0),
        (("3 + 3 + 1",), "6 + 1", 1.0),
        (("3 + 3 + 1", "6 + 1"), "7", 1.0),
    ]
    # Nothing is said of what follows an error, though its own arithmetic is right.
    wrong = oracle_labels([_solution("3 + 3 + 1", "5 + 1", "6")], DOMAIN.oracle)
    assert _summary(wrong) == [
        ((), "3 + 3 + 1", 1.0),
        (("3 + 3 + 1",), "5 + 1", 0.0),
    ]
    assert wrong[-1].kind == "wrong_result"


def test_the_final_answer_alone_decides_the_label_of_an_outcome():
    lucky = _solution("9 + 9", "7")  # wrong on the way
    unlucky = _solution("3 + 3 + 1", "6 + 1", "8")  # right up to the end
    silent = _solution("3 + 3 + 1", "6 + 1")
    found = outcome_labels([lucky, unlucky, silent], [PROBLEM], DOMAIN)
    assert _summary(found) == [
        (("9 + 9",), "7", 1.0),
        (("3 + 3 + 1", "6 + 1"), "8", 0.0),
        (("3 + 3 + 1",), "6 + 1", 0.0),
    ]


def test_an_undecidable_step_ends_the_labels_without_one():
    leap = _solution("3 + 3 + 1", "7")
    assert _summary(oracle_labels([leap], DOMAIN.oracle)) == [((), "3 + 3 + 1", 1.0)]
    assert oracle_labels([], DOMAIN.oracle) == []


def _label(solutions, reply, *, soft, completions=4, max_steps=5):
    sampler = ScriptedSampler(BUILDER, reply)
    labels = monte_carlo_labels(
        solutions,
        [PROBLEM],
        LocalSolver(sampler, None, DOMAIN, BUILDER),
        DOMAIN,
        jax.random.key(0),
        completions=completions,
        soft=soft,
        max_steps=max_steps,
    )
    assert all(row.kind == "monte_carlo" for row in labels)
    return labels, sampler


def _one_in_four(line: str, asked: int) -> str:
    """From "3 + 3 + 1" one of four arrives; from "6 + 1" three of four."""
    share = {"3 + 3 + 1": 1, "6 + 1": 3}.get(line, 0)
    return "7" if asked % 4 < share else "8"


@pytest.mark.parametrize("soft", [True, False])
def test_a_label_is_the_share_of_completions_that_arrive(soft):
    solution = _solution("3 + 3 + 1", "6 + 1", "7")
    labels, _ = _label([solution], _one_in_four, soft=soft)
    expected = [0.25, 0.75, 1.0] if soft else [1.0, 1.0, 1.0]
    assert [row.label for row in labels] == expected
    assert [row.step for row in labels] == list(solution.steps)
    assert [row.prefix for row in labels] == [solution.steps[:k] for k in range(3)]


def test_nothing_is_said_after_a_step_from_which_no_completion_arrives():
    lost = _solution("3 + 3 + 1", "5 + 1", "6 + 1", "7")
    labels, _ = _label([lost], _one_in_four, soft=True)
    assert _summary(labels) == [
        ((), "3 + 3 + 1", 0.25),
        (("3 + 3 + 1",), "5 + 1", 0.0),
    ]


def test_a_concluding_step_is_judged_by_its_answer_alone():
    labels, sampler = _label([_solution("8")], _one_in_four, soft=True)
    assert _summary(labels) == [((), "8", 0.0)]
    labels, sampler = _label([_solution("7")], _one_in_four, soft=True)
    assert _summary(labels) == [((), "7", 1.0)]
    assert sampler.requests == []


def test_equal_prefixes_are_completed_once():
    solutions = [
        _solution("3 + 3 + 1", "6 + 1", "7"),
        _solution("3 + 3 + 1", "6 + 1", "8"),
        _solution("3 + 3 + 1", "3 + 4", "7"),
    ]
    labels, sampler = _label(solutions, _one_in_four, soft=True)
    assert sorted(sampler.requests[0]) == ["3 + 3 + 1"] * 4 + ["3 + 4"] * 4 + (
        ["6 + 1"] * 4
    )
    # In the order of the solutions, equal steps with equal labels; "3 + 4" never
    # arrives, so nothing more is said of the last solution.
    assert [row.label for row in labels] == [
        0.25,
        0.75,
        1.0,
        0.25,
        0.75,
        0.0,
        0.25,
        0.0,
    ]


def test_completions_that_do_not_finish_have_not_arrived():
    solution = _solution("3 + 3 + 1", "7")
    labels, _ = _label([solution], lambda line, asked: "7...", soft=True)
    assert [row.label for row in labels] == [0.0]
    # Nor have those that run out of steps.
    labels, _ = _label([solution], lambda line, asked: "3 + 4", soft=True, max_steps=3)
    assert [row.label for row in labels] == [0.0]
