"""The small protocols: every domain offers them, and each of them does on its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aprm_jax.evals import selection
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Label
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.tasks.protocols import Corruptor, Domain, Grader, Problems, StepOracle
from aprm_jax.tasks.questions import QuestionsDomain
from aprm_jax.tasks.word_corruption import WordCorruptor


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions with answers in LaTeX, and no solution to any of them."""
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    rows = [
        {
            "question": f"What is {k} over {k + 1}?",
            "answer": rf"\frac{{{k}}}{{{k + 1}}}",
        }
        for k in range(1, 41)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return QuestionsDomain(
        train=str(path), dev_count=5, vocab_size=300, oracle=TextOracle()
    )


def test_domains_offer_the_four_protocols(questions):
    for domain in (ArithmeticDomain(seed=0), questions):
        assert isinstance(domain, Domain)
        for protocol in (Problems, Grader, Corruptor):
            assert isinstance(domain, protocol)
        assert isinstance(domain.oracle, StepOracle)
    assert isinstance(AnswerGrader(), Grader)
    assert not isinstance(AnswerGrader(), Corruptor)
    assert isinstance(WordCorruptor(), Corruptor)
    assert not isinstance(WordCorruptor(), Grader)


def test_the_grader_reads_marked_and_boxed_answers():
    grader = AnswerGrader()
    marked = ["half of 3", "#### 1,080"]
    boxed = ["half of 3", r"so it is \boxed{\frac{3}{2}}."]
    assert [grader.is_final(step) for step in marked] == [False, True]
    assert [grader.is_final(step) for step in boxed] == [False, True]
    assert grader.answer(marked) == "1,080"
    assert grader.answer(boxed) == r"\frac{3}{2}"
    assert grader.answer(["half of 3"]) is None
    assert grader.answer(["####"]) is None
    assert grader.same_answer("1,080", "1080")
    assert grader.same_answer(r"\frac{3}{2}", "1.5")
    assert not grader.same_answer("1.4", "1.5")
    assert not grader.same_answer(None, "1.5")


def test_search_needs_no_reference_steps(questions):
    problem = questions.problems("test", 1)[0]
    assert problem.steps == (f"#### {problem.answer}",)
    numbers = [int(x) for x in problem.question.rstrip("?").split() if x.isdigit()]
    decimal = numbers[0] / numbers[1]

    def solution(answer: str, finished: bool = True) -> Solution:
        steps = ("Divide one by the other.", answer)
        return Solution(problem.question, steps, finished)

    row = [
        solution("#### 7"),
        solution("#### 7"),
        solution(rf"\boxed{{{numbers[0]}/{numbers[1]}}}"),
        solution(f"#### {problem.answer}"),
        solution(rf"\boxed{{\frac{{{2 * numbers[0]}}}{{{2 * numbers[1]}}}}}"),
        solution(f"It is {decimal}", finished=False),
    ]
    scored = {"prm": [[np.log([0.5, 0.1 * (k + 1)]) for k in range(len(row))]]}
    rows = selection.table(questions, [problem], [row], scored, ["min"], [1, 5])
    np.testing.assert_allclose(rows["", "sample"], 3 / 6)
    # Three spellings of one answer outvote two of the same wrong one.
    np.testing.assert_array_equal(rows["", "majority@5"], 1.0)
    np.testing.assert_array_equal(rows["", "majority@1"], 0.0)
    np.testing.assert_allclose(rows["prm", "min@1"], 3 / 6)


def test_the_text_oracle_judges_any_domain_of_text(questions, tmp_path):
    path = tmp_path / "steps.jsonl"
    rows = [
        {
            "prompt": f"Add {k} and 2.",
            "completions": [f"{k} + 2 = {k + 2}"],
            "labels": [1],
        }
        for k in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = LabelledDomain(
        train=f"step_format:{path}", dev_count=3, vocab_size=300, oracle=TextOracle()
    )
    for domain in (questions, labelled):
        right = domain.oracle.judge("Add 3 and 2.", (), "3 + 2 = 5", "2 + 3 = 5")
        wrong = domain.oracle.judge("Add 3 and 2.", (), "3 + 2 = 5", "3 + 2 = 6")
        assert right.label == Label.CORRECT
        assert wrong.label == Label.INCORRECT
        assert wrong.kind in domain.kinds
