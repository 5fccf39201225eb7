"""Overlap of questions: equal, nearly equal, and the known facts about PRM800K."""

from __future__ import annotations

import gzip
import json

import pytest

from aprm_jax.data import selection
from aprm_jax.data.contamination import ContaminationIndex
from aprm_jax.data.labelled import from_labels
from aprm_jax.data.readers import read_problems, read_steps

QUESTION = (
    "A train leaves the station at noon and travels 60 miles an hour for 3 hours "
    "before it stops. How far has it travelled?"
)


def _index(*questions: str, ngram: int = 5, share: float = 0.5) -> ContaminationIndex:
    index = ContaminationIndex(ngram, share)
    index.add("test", questions)
    return index


def test_equal_questions_are_found_whatever_their_layout():
    found = _index("What is $2 + 3$?").find("what is 2+3 ?")
    assert found is not None and found.equal and found.evaluation == "test"
    assert _index("What is $2 + 3$?").find("What is 2-3?") is None


def test_a_sentence_more_or_less_hides_nothing():
    longer = f"{QUESTION} Give your answer in miles, rounded to the nearest integer."
    for trained, tested in ((QUESTION, longer), (longer, QUESTION)):
        found = _index(tested).find(trained)
        assert found is not None and not found.equal and found.share == 1.0
    assert _index(QUESTION).find("How far has a bird flown in 3 hours?") is None


def test_signs_tell_questions_apart_and_hide_no_near_duplicate():
    assert _index("1+2*3?", ngram=6).find("(1+2)*3?") is None
    laid_out = QUESTION.replace("60 miles", "(60) miles").replace(" 3 ", " {3!} ")
    found = _index(QUESTION).find(laid_out)
    assert found is not None and not found.equal and found.share == 1.0


def test_the_share_is_counted_by_hand():
    # Words 1-8 and 1-5 + 3 others: 6 and 6 trigrams, 3 of them common.
    index = _index("a b c d e f g h", ngram=3, share=0.5)
    found = index.find("a b c d e x y z")
    assert found is not None and found.share == pytest.approx(3 / 6)
    assert (
        _index("a b c d e f g h", ngram=3, share=0.51).find("a b c d e x y z") is None
    )
    # The question with most in common is reported.
    index.add("other", ["a b c d e x y w"])
    found = index.find("a b c d e x y z")
    assert found is not None and found.evaluation == "other"


def test_short_and_empty_questions_can_only_be_equal():
    index = _index("2 + 2", "")
    assert index.find("2 + 2 + 2") is None
    assert index.find("…") is None and index.find("") is None


def _instructions(path) -> set[str]:
    with gzip.open(path, "rt") as file:
        return {json.loads(line)["instruction"] for line in file}


def test_prm800k_against_the_benchmarks(shared_data):
    """Train is clean of them; the test half is not."""
    phase1 = shared_data / "prm800k"
    train = _instructions(phase1 / "phase1_train_plus.jsonl.gz")
    test = {
        s.question for s in read_steps(str(phase1 / "phase1_test.jsonl.gz"), "prm800k")
    }
    equal = {}
    for name, questions in {
        "math500": [
            p.question
            for p in read_problems(
                str(shared_data / "math500/math500.jsonl"), "math500"
            )
        ],
        "processbench": [
            s.question
            for s in read_steps(
                str(shared_data / "processbench/math.json"), "processbench"
            )
        ],
        "gsm8k": [
            p.question
            for p in read_problems(str(shared_data / "gsm8k/test.jsonl"), "gsm8k")
        ],
    }.items():
        index = ContaminationIndex()
        index.add(name, questions)
        assert not any(hit is not None and hit.equal for hit in map(index.find, train))
        hits = [index.find(question) for question in test]
        equal[name] = sum(hit is not None and hit.equal for hit in hits)
    assert len(train) == 900
    # 98 of its 101 questions have a rated step.
    assert equal == {"math500": len(test), "processbench": 28, "gsm8k": 0}
    assert len(test) == 98


BEFORE = (
    "Solve the following math problem step by step. The last line of your response "
    "should be of the form Answer: $Answer (without quotes) where $Answer is the "
    "answer to the problem."
)
AFTER = 'Remember to put your answer on its own line after "Answer:".'
SHORT = (
    "How many primes lie below 100?",
    "What is the sum of the angles of a heptagon in degrees?",
    "Find the largest prime factor of 9991.",
    "Compute the remainder of 7^100 on division by 13.",
    "How many ways are there to seat 5 people in a row?",
    "What is the area of a triangle with sides 13, 14 and 15?",
    "Evaluate the sum of the first 20 odd numbers.",
    "How many diagonals has a convex polygon of 12 sides?",
)
OTHERS = (
    "What is the units digit of 3^2024?",
    "A fair die is thrown twice. How likely is a sum of 9?",
    "Find the least common multiple of 84 and 120.",
)


def _asked(question: str) -> str:
    return f"{BEFORE}\n\n{question}\n\n{AFTER}"


def _found(index: ContaminationIndex, question: str):
    found = index.find(question)
    return found and (found.question, found.equal)


def test_an_instruction_of_the_evaluation_sets_is_no_overlap():
    index = ContaminationIndex()
    index.add("set", map(_asked, SHORT))
    for question in OTHERS:
        assert index.find(_asked(question)) is None
    # What is asked inside of it is found: equal, nearly so, or without it.
    copies = {
        _asked(SHORT[0]): (_asked(SHORT[0]), True),
        _asked(f"{SHORT[4]} Give an integer."): (_asked(SHORT[4]), False),
        SHORT[5]: (_asked(SHORT[5]), False),
    }
    assert {text: _found(index, text) for text in copies} == copies


def test_an_instruction_of_the_training_set_is_no_overlap():
    index = ContaminationIndex()
    index.add("set", [_asked(SHORT[4]), QUESTION])
    trained = [_asked(q) for q in (*SHORT[:4], *SHORT[5:], *OTHERS)]
    near = _asked(f"{SHORT[4]} Give an integer.")
    assert None not in map(index.find, trained)  # as long as nothing is known of them
    index.note_training([*trained, near, near])
    assert [index.find(text) for text in trained] == [None] * len(trained)
    assert _found(index, near) == (_asked(SHORT[4]), False)
    assert _found(index, _asked(QUESTION)) == (QUESTION, False)


def test_few_questions_or_a_small_share_make_no_instruction():
    index = ContaminationIndex()
    index.add("set", map(_asked, SHORT[:4]))  # four questions prove nothing
    assert index.find(_asked(OTHERS[0])) is not None
    # Near copies of one question are most of what a part of the training set asks.
    copies = [f"{QUESTION} Version {k}." for k in range(10)]
    index = ContaminationIndex()
    index.add("set", [QUESTION])
    index.note_training([*copies, *(f"How much is {k} + {k}?" for k in range(11))])
    assert all(index.find(copy) is not None for copy in copies)


def test_where_all_is_shared_all_counts():
    """Sets of variants: one that has nothing of its own is compared as it is."""
    index = ContaminationIndex(ngram=5)
    index.add("set", [QUESTION, *(f"{QUESTION} Version {k}." for k in range(6))])
    assert _found(index, f"So: {QUESTION}") == (QUESTION, False)
    assert _found(index, f"{QUESTION} version 3") == (f"{QUESTION} Version 3.", True)


def test_a_source_with_an_instruction_is_prepared_without_losses():
    dropped = selection.Dropped()
    rows = [
        from_labels(_asked(q), ["5"], [1.0], source="dapo")
        for q in (*OTHERS, *SHORT[:7])
    ]
    copy = from_labels(_asked(f"{SHORT[7]} Hm."), ["54"], [1.0], source="other")
    index = ContaminationIndex()
    index.add("set", [_asked(SHORT[7])])
    kept, found = selection.without_contamination(
        [*rows, copy], index, dropped, refuse=False
    )
    assert kept == rows and list(found) == [copy.question]
