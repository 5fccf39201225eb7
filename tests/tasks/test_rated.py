"""People's labels as an oracle, and a text oracle behind them."""

import json

import numpy as np
import pytest

from aprm_jax.data.labelled import from_labels, from_ratings
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.tasks.rated import RATED_WRONG, Mistake, RatedOracle

QUESTION = "Ann has 3 pens and buys 2 more. How many has she?"


def rated(*rows, cut=0.5):
    solutions = [from_labels(QUESTION, steps, labels) for steps, labels in rows]
    return RatedOracle(solutions, TextOracle(), cut)


def test_people_come_first():
    """Both steps are prose, of which a text oracle knows nothing."""
    oracle = rated((("She counts all.",), (1.0,)), (("She sells all.",), (0.0,)))
    text = TextOracle()
    for step, label, kind in (
        ("She sells  all.", Label.INCORRECT, RATED_WRONG),
        ("She counts\nall.", Label.CORRECT, "correct"),
    ):
        assert text.judge(QUESTION, (), None, step).label == Label.UNDECIDABLE
        verdict = oracle.judge(QUESTION, (), None, step)
        assert (verdict.label, verdict.kind) == (label, kind)


def test_what_nobody_labelled_is_the_text_oracles():
    oracle = rated((("She sells all.",), (0.0,)))
    assert oracle.judge(QUESTION, (), None, "3 + 2 = 6.").kind == "wrong_result"
    assert oracle.judge(QUESTION, (), None, "3 + 2 = 5.").label == Label.CORRECT
    # Elsewhere the same words may be right.
    for question, prefix in ((QUESTION, ("3 + 2 = 5.",)), ("Who sells?", ())):
        verdict = oracle.judge(question, prefix, None, "She sells all.")
        assert verdict.label == Label.UNDECIDABLE


def test_the_step_that_is_replaced_is_copied_whatever_people_say_of_it():
    oracle = rated((("She counts all.",), (1.0,)))
    verdict = oracle.judge(QUESTION, (), "She counts all.", "She counts  all.")
    assert (verdict.label, verdict.kind) == (Label.CORRECT, "copied")


def test_one_who_calls_a_step_wrong_is_enough():
    for order in (1, -1):
        rows = [(("She counts.",), (1.0,)), (("She  counts.",), (0.0,))][::order]
        verdict = rated(*rows).judge(QUESTION, (), None, "She counts.")
        assert verdict.label == Label.INCORRECT


@pytest.mark.parametrize(
    ("cut", "label"), [(0.5, Label.CORRECT), (0.7, Label.INCORRECT)]
)
def test_the_cut_says_what_is_wrong(cut, label):
    oracle = rated((("She counts.",), (0.6,)), cut=cut)
    assert oracle.judge(QUESTION, (), None, "She counts.").label == label


def test_a_step_without_a_label_or_behind_an_error_is_nobodys():
    oracle = rated((("a", "b"), (np.nan, 0.0)), (("x", "y"), (0.0, 0.0)))
    assert oracle.judge(QUESTION, (), None, "a").label == Label.UNDECIDABLE
    assert oracle.judge(QUESTION, ("a",), None, "b").label == Label.INCORRECT
    # The candidate is to follow right steps: what y is behind an error, nobody says.
    assert oracle.judge(QUESTION, ("x",), None, "y").label == Label.UNDECIDABLE


def test_mistakes_stand_beside_what_is_right_there():
    oracle = rated(
        (("good", "bad"), (1.0, 0.0)),
        (("fair",), (0.6,)),
        (("poor",), (0.0,)),
        (("worse",), (0.2,)),
    )
    assert list(oracle.mistakes()) == [
        Mistake(QUESTION, (), "good", "poor"),
        Mistake(QUESTION, (), "good", "worse"),
    ]  # and none of "bad": nobody said what is right in its place


def test_a_labelled_domain_with_an_oracle_can_be_played(tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [
        {"instruction": f"Add {q} and 2.", "responses": [], "next_response": step}
        | {"rating": rating}
        for q in range(20)
        for step, rating in ((f"{q} + 2 = {q + 2}", 1), ("I do not know.", -1))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {"train": f"prm800k:{path}", "dev_count": 5, "vocab_size": 270}
    bare, domain = LabelledDomain(**made), LabelledDomain(**made, oracle=TextOracle())
    assert bare.mistakes == () and len(domain.mistakes) == 15
    held = {row.question for row in bare.dev}
    assert not held & {m.question for m in domain.mistakes}
    mistake = domain.mistakes[0]
    assert (mistake.prefix, mistake.wrong) == ((), "I do not know.")
    rng = np.random.default_rng(0)
    where = mistake.question, mistake.prefix, mistake.right
    assert bare.corrupt(rng, *where) is None
    wrong = [domain.corrupt(rng, *where) for _ in range(4)]
    verdicts = [domain.oracle.judge(*where, step) for step in wrong]
    assert {v.label for v in verdicts} == {Label.INCORRECT}
    verdict = domain.oracle.judge(*where, mistake.wrong)
    assert verdict.kind == RATED_WRONG and verdict.kind in domain.kinds


def test_ratings_are_labels():
    oracle = RatedOracle(
        [from_ratings(QUESTION, ("fine", "so so"), (1, 0))], TextOracle(), 0.5
    )
    for prefix, step in (((), "fine"), (("fine",), "so so")):
        assert oracle.judge(QUESTION, prefix, None, step).label == Label.CORRECT
