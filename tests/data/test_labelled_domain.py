"""Labelled solutions as a domain: what is held out, what a language model learns."""

import json

import numpy as np
import pytest

from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import from_labels, from_ratings, question_id
from aprm_jax.data.labelled_texts import read_labelled, right_texts
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.tasks.protocols import Domain


def write(tmp_path, questions=12):
    rows = []
    for q in range(questions):
        question = f"What is {q}  +\n{q}?"
        for prefix, step, rating in (
            ([], f"{q} + {q} =\n{2 * q}", 1),
            ([], "I do not know", -1),
            ([f"{q} + {q} =\n{2 * q}"], f"# Answer\n\n{2 * q}", 0),
            ([f"{q} + {q} =\n{2 * q}"], "# Answer\n\n-1", -1),
        ):
            row = {"instruction": question, "responses": prefix, "next_response": step}
            rows.append({**row, "rating": rating})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(path, **changes):
    return LabelledDomain(
        train=f"prm800k:{path}", **({"dev_count": 3, "vocab_size": 270} | changes)
    )


def test_questions_are_held_out_whole_whatever_the_order(tmp_path):
    path = write(tmp_path)
    domain = make(path)
    assert isinstance(domain, Domain)
    held = {row.problem_id for row in domain.dev}
    assert len(held) == 3 and len(domain.dev) == 12 and len(domain.labelled) == 36
    assert not held & {row.problem_id for row in domain.labelled}
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    assert {row.problem_id for row in make(path, seed=5).dev} == held
    with pytest.raises(DataError, match="too few to hold 12 out"):
        make(path, dev_count=12)


def test_questions_are_held_out_by_what_they_say_not_by_the_rows_id(tmp_path):
    rows = [
        {
            "prompt": f"{spelling} {q} + {q}?",
            "completions": [f"{n}"],
            "labels": [True],
            "problem_id": f"row-{q}-{n}",
        }
        for q in range(12)
        for n, spelling in enumerate(("What is", "what  IS", "What is"))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    domain = LabelledDomain(train=f"step_format:{path}", dev_count=4, vocab_size=270)
    assert len(domain.dev) == 12 and len(domain.labelled) == 24
    assert {question_id(row.question) for row in domain.dev} == domain.held_out
    assert not {question_id(row.question) for row in domain.labelled} & domain.held_out


def test_a_text_ends_before_a_step_below_the_cut():
    rows = [from_labels("q", ("a", "b", "c"), (0.6, 0.4, 0.3))]
    assert [p.steps for p in right_texts(rows)] == [("a",)]
    assert [p.steps for p in right_texts(rows, 0.4)] == [("a", "b")]
    assert right_texts(rows, 0.7) == ()


def test_texts_are_the_right_paths_each_once_an_epoch(tmp_path):
    domain = make(write(tmp_path))
    assert domain.num_train == 9
    texts = [domain.train(i) for i in range(9)]
    assert len({p.question for p in texts}) == 9
    for p in texts:
        # The text is the data's own, and the neutral answer is no wrong step.
        assert "  +\n" in p.question and len(p.steps) == 2
        assert p.steps[1].startswith("# Answer\n\n") and "-1" not in p.steps[1]
    assert {domain.train(9 + i) for i in range(9)} == set(texts)
    assert [domain.train(9 + i) for i in range(9)] != texts
    assert domain.corpus(4) == domain.train(4)
    assert len(domain.problems("dev", 10)) == 3
    with pytest.raises(ValueError, match="'test'"):
        domain.problems("test", 1)


def test_there_is_no_oracle(tmp_path):
    domain = make(write(tmp_path))
    verdict = domain.oracle.judge("q", (), None, "1 = 2")
    assert verdict.label == Label.UNDECIDABLE
    assert domain.corrupt(np.random.default_rng(0), "q", (), "1 = 1") is None
    assert domain.answer(("a",)) is None and not domain.is_final("# Answer 3")


def test_a_text_ends_before_a_last_step_of_which_nobody_knows_anything():
    nan = float("nan")

    def texts(*rows):
        found = right_texts([from_labels("q", steps, labels) for steps, labels in rows])
        return [p.steps for p in found]

    assert texts((("a", "b"), (1.0, nan))) == [("a",)]
    assert texts((("a",), (nan,))) == []
    # Its author, or a sampler, went on from the unknown step.
    assert texts((("a", "b", "c"), (1.0, nan, 0.0))) == [("a", "b")]
    # Another row says something of the step, or goes on behind it.
    assert texts((("a", "b"), (1.0, nan)), (("a", "b"), (nan, 1.0))) == [("a", "b")]
    longer = (("a", "b", "c"), (nan, nan, 1.0))
    assert texts((("a", "b"), (1.0, nan)), longer) == [("a", "b", "c")]


def test_right_texts_end_before_the_first_wrong_step():
    def rated(steps, *ratings):
        return from_ratings("q", steps, ratings)

    found = right_texts(
        [
            rated(("a", "b", "c"), 1, -1, 1),
            rated(("a", "b", "d"), None, None, 1),  # its b was called wrong elsewhere
            rated(("a", "e"), None, 0),
            rated(("x",), -1),
        ]
    )
    assert [p.steps for p in found] == [("a", "e")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("train.jsonl", "READER:SOURCE"),
        ("prm80k:train.jsonl", "'prm800k'"),
        ("prm800k:missing.jsonl", "no such file"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(source, message, tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        read_labelled(source)
