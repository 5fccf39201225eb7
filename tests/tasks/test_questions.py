"""Anybody's own questions: what rows may look like, and what becomes of a few."""

from __future__ import annotations

import csv
import json
import logging

import pytest

from aprm_jax.data.drawing import held_out
from aprm_jax.data.jsonl import DataError, RowError
from aprm_jax.data.labelled import question_id
from aprm_jax.data.readers import read_problems, sources
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.tasks.protocols import Domain
from aprm_jax.tasks.questions import QuestionsDomain


def _parse(row: dict):
    [problem] = sources()["questions"].parse(row)
    return problem.question, problem.steps, problem.answer


@pytest.mark.parametrize(
    ("row", "steps", "answer"),
    [
        ({"question": "Q", "answer": 7}, (), "7"),
        ({"question": "Q", "answer": 7.0}, (), "7"),
        ({"question": " Q ", "answer": " x^2 "}, (), "x^2"),
        ({"problem": "Q", "final_answer": "[0, 1]"}, (), "[0, 1]"),
        ({"question": "Q", "answer": "7", "solution": None}, (), "7"),
        ({"question": "Q", "answer": 7, "solution": "a\r\n\nb"}, ("a", "b"), "7"),
        ({"question": "Q", "answer": 7, "solution": ["a", " b "]}, ("a", "b"), "7"),
        ({"question": "Q", "answer": 7, "steps": '["a", "b"]'}, ("a", "b"), "7"),
        ({"question": "Q", "answer": "a\nb\n#### 7"}, ("a", "b"), "7"),
        ({"question": "Q", "answer": "#### 7"}, (), "7"),
        ({"question": "Q", "solution": "a\n#### 7"}, ("a",), "7"),
        ({"question": "Q", "solution": "so \\boxed{7}"}, ("so \\boxed{7}",), "7"),
        # The line of the answer is no part of the last step, however steps are cut.
        (
            {"question": "Q", "solution": "Step 1: a\nStep 2: b\n#### 7", "answer": 7},
            ("a", "b"),
            "7",
        ),
        ({"question": "Q", "answer": "Step 1: a\nStep 2: b\n#### 7"}, ("a", "b"), "7"),
        ({"question": "Q", "solution": ["a", "b\n#### 7"]}, ("a", "b"), "7"),
        ({"question": "Q", "solution": ["a", "#### 7"], "answer": 7}, ("a",), "7"),
        # A solution beside an answer of GSM8K's form.
        (
            {"question": "Q", "solution": "It is seven", "answer": "3+4=7\n#### 7"},
            ("It is seven",),
            "7",
        ),
        (
            {"question": "Q", "solution": "a\n#### 1,000", "answer": 1000},
            ("a",),
            "1000",
        ),
        ({"question": "Q", "solution": "a\n#### 0.5", "answer": "1/2"}, ("a",), "1/2"),
        # Text that begins with a bracket is no list.
        (
            {"question": "Q", "solution": "[2, 5] is it", "answer": 7},
            ("[2, 5] is it",),
            "7",
        ),
        (
            {"question": "Q", "solution": "[asy]\nx;\n\ny;\n[/asy]\nSo 7", "answer": 7},
            ("[asy]\nx;\ny;\n[/asy]", "So 7"),
            "7",
        ),
        (
            {
                "prompt": [{"role": "user", "content": "Q"}],
                "answer": 7,
                "solution": "Step 1: a\nStep 2: b",
            },
            ("a", "b"),
            "7",
        ),
    ],
)
def test_rows(row, steps, answer):
    assert _parse(row) == ("Q", steps, answer)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": 7}, r"field 'question' is missing \(present: answer\)"),
        ({"question": "Q", "id": 1}, r"no field answer or .*\(present: id, question\)"),
        ({"question": "Q", "answer": None}, "no field answer"),
        ({"question": "Q", "answer": " "}, "'answer' is empty"),
        ({"question": "Q", "answer": True}, "a number or text, not bool"),
        ({"question": "Q", "answer": ["7"]}, "a number or text, not list"),
        ({"question": "Q", "answer": float("nan")}, "not a number"),
        ({"question": "  ", "answer": 7}, "'question' is empty"),
        ({"question": "Q", "answer": 7, "solution": ["a", 3]}, "item 1 is no text"),
        ({"question": "Q", "answer": 7, "solution": '["a", 3]'}, "item 1 is no text"),
        ({"question": "Q", "answer": 7, "solution": '["a", "b"'}, "must be a list"),
        (
            {"question": "Q", "answer": 7, "solution": "3+4=8\n#### 8"},
            "ends in '#### 8', but the answer is '7'",
        ),
        (
            {"question": "Q", "answer": "a\n#### 7", "solution": "b\n#### 8"},
            "ends in '#### 8', but the answer is '7'",
        ),
        (
            {"prompt": "Q", "completions": ["a"], "labels": [1]},
            r"the reader is step_format.*own_data\.py:labels",
        ),
    ],
)
def test_rows_that_are_no_questions_are_refused(row, message):
    with pytest.raises(RowError, match=message):
        _parse(row)


@pytest.mark.parametrize("field", ["question", "answer"])
def test_columns_of_other_names_are_told_how_they_are_taken(tmp_path, field):
    names = {"question": "question", "answer": "answer", field: "theirs"}
    row = {names["question"]: "What is 3 + 4?", names["answer"]: 7}
    source = _file(tmp_path / "q.jsonl", [row, row, row])
    with pytest.raises(DataError, match=rf"theirs\).*\?rename=THEIRS:{field} behind"):
        read_problems(source, "questions")
    assert len(read_problems(f"{source}?rename=theirs:{field}", "questions")) == 3


def _questions(count: int) -> list[dict]:
    return [{"question": f"What is {k} + {k}?", "answer": 2 * k} for k in range(count)]


def _file(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _sizes(domain) -> tuple[int, int, int]:
    dev, test = (len(domain.problems(split, 9999)) for split in ("dev", "test"))
    return domain.num_train, dev, test


def test_few_questions_are_enough_and_no_split_shares_any(tmp_path):
    domain = QuestionsDomain(train=_file(tmp_path / "q.jsonl", _questions(40)))
    assert isinstance(domain, Domain) and _sizes(domain) == (23, 10, 7)
    train = {domain.train(k).question for k in range(23)}
    dev = {p.question for p in domain.problems("dev", 99)}
    test = {p.question for p in domain.problems("test", 99)}
    assert len(train | dev | test) == 40
    # A solution that there is not leaves the answer as the only step.
    p = domain.train(0)
    assert p.steps == (f"#### {p.answer}",) and domain.is_final(p.steps[-1])
    assert domain.answer(p.steps) == p.answer
    assert _sizes(QuestionsDomain(train=_file(tmp_path / "3", _questions(3))))[0] == 1
    with pytest.raises(DataError, match="1 question, too few to hold 1 out"):
        QuestionsDomain(train=_file(tmp_path / "2", _questions(2)))


def test_questions_of_the_test_are_in_no_other_split_and_counted(tmp_path, caplog):
    rows = _questions(144)
    retyped = [{**row, "question": f"  {row['question'].upper()}"} for row in rows[::2]]
    train = _file(tmp_path / "train.jsonl", rows)
    test = _file(tmp_path / "test.jsonl", retyped)
    log = logging.getLogger("aprm_jax")
    log.addHandler(caplog.handler)
    try:
        domain = QuestionsDomain(train=train, test=test)
    finally:
        log.removeHandler(caplog.handler)
    [said] = {r.getMessage() for r in caplog.records if r.levelname == "WARNING"}
    assert f"{train}: 72 of 144 problems are left out" in said and test in said
    assert _sizes(domain) == (54, 18, 72)  # a quarter of the 72 that are left
    split = {
        name: {question_id(p.question) for p in domain.problems(name, 999)}
        for name in ("dev", "test")
    }
    trained = {question_id(domain.train(k).question) for k in range(54)}
    assert len(trained | split["dev"] | split["test"]) == 54 + 18 + 72
    # Where nothing overlaps dev is what it has always been, and nobody is warned.
    caplog.clear()
    other = _file(tmp_path / "other.jsonl", [{"question": "What?", "answer": 1}])
    alone = QuestionsDomain(train=train, test=other, dev_count=20)
    assert [p.question for p in alone.problems("dev", 99)] == held_out(
        [row["question"] for row in rows], 20, train
    )
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("total", "count"), [(2, 1), (8, 2), (40, 10), (100, 20), (1000, 100), (9000, 500)]
)
def test_as_many_are_held_out_as_suit_the_data(total, count):
    assert len(held_out(map(str, range(total)), 0, "here")) == count


def test_a_table_reads_as_lines_do_and_one_bad_row_of_forty_stops_nothing(tmp_path):
    rows = _questions(40)
    lines = _file(tmp_path / "q.jsonl", rows)
    with (tmp_path / "q.csv").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, ["question", "answer"])
        table.writeheader()
        table.writerows(rows)
    with (tmp_path / "q.csv").open("ab") as file:
        file.write("café?,3\r\n".encode("latin-1"))
    share = {"max_bad_share": 0.1}
    a = QuestionsDomain(train=lines, **share)
    b = QuestionsDomain(train=str(tmp_path / "q.csv"), **share)
    assert [a.train(k) for k in range(23)] == [b.train(k) for k in range(23)]
    with pytest.raises(DataError, match=r"save the file as UTF-8.*max_bad_share"):
        QuestionsDomain(train=str(tmp_path / "q.csv"))


def test_what_is_odd_in_the_rows_is_said(tmp_path, caplog):
    rows = _questions(40)
    rows += [rows[0], {**rows[1], "answer": 99}]
    with caplog.at_level(logging.INFO, "aprm_jax"):
        domain = QuestionsDomain(train=_file(tmp_path / "q.jsonl", rows))
    assert sum(_sizes(domain)) == 41
    for said in (
        "1 rows repeat",
        "1 questions are there with more than one",
        "41 questions have no solution",
    ):
        assert said in caplog.text


def test_answers_may_be_formulas_and_words(tmp_path):
    domain = QuestionsDomain(train=_file(tmp_path / "q.jsonl", _questions(8)))
    for given, expected in (("1/2", "0.5"), ("Paris", "paris"), ("x(x+1)", "x^2+x")):
        assert domain.same_answer(given, expected)
    assert not domain.same_answer("Rome", "Paris")
    assert not domain.same_answer(None, "7")


def test_any_reader_of_problems_will_do_and_a_test_set_stays_out(tmp_path):
    rows = [
        {"problem": f"Q{k}", "solution": f"a\n\n$\\boxed{{{k}}}$"} for k in range(20)
    ]
    train = f"math:{_file(tmp_path / 'train.jsonl', rows)}"
    test = f"math:{_file(tmp_path / 'test.jsonl', rows[:5])}"
    domain = QuestionsDomain(train=train, test=test, dev_count=4)
    held = {question_id(p.question) for p in domain.problems("test", 9)}
    trained = [domain.train(k) for k in range(domain.num_train)]
    assert len(held) == 5 and not held & {question_id(p.question) for p in trained}
    assert trained[0].steps[0] == "a" and domain.is_final(trained[0].steps[-1])


def test_labelled_questions_are_held_out_to_test_on(tmp_path):
    rows = [
        {"prompt": f"Q{k}", "completions": ["a", f"{k}"], "labels": ["+", k % 2]}
        for k in range(30)
    ]
    source = f"step_format:{_file(tmp_path / 'rows.jsonl', rows)}"
    domain = LabelledDomain(train=source, dev_count=0, vocab_size=270)
    assert (len(domain.labelled), len(domain.dev), len(domain.test)) == (18, 7, 5)
    held = {question_id(row.question) for row in (*domain.dev, *domain.test)}
    assert held == domain.held_out and len(held) == 12
    assert not held & {question_id(row.question) for row in domain.labelled}
    given = LabelledDomain(train=source, dev_count=7, vocab_size=270)
    assert given.dev == domain.dev and given.test == ()
