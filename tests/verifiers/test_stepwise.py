"""Verifiers that read step by step say what they say of whole solutions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tiny_game
from tiny_game import DECODER, DOMAIN

from aprm_jax.oracle.verdict import correct, incorrect, undecidable
from aprm_jax.verifiers import stepwise
from aprm_jax.verifiers.combined import CombinedVerifier
from aprm_jax.verifiers.models import prm_verifier
from aprm_jax.verifiers.protocol import Scale, StepVerifier
from aprm_jax.verifiers.score_file import ScoreFileVerifier
from aprm_jax.verifiers.stated import OracleVerifier
from aprm_jax.verifiers.stepwise import (
    JudgedRows,
    OracleSteps,
    UncachedVerifier,
    by_steps,
)

RIGHT = ("1 + 2 + 3 + 1", ("3 + 3 + 1", "6 + 1", "7"))
WRONG = ("1 + 2 + 3 + 1", ("3 + 3 + 1", "5 + 1", "6"))


def _one_by_one(verifier: StepVerifier, solutions) -> list[list[float]]:
    rows, scores = verifier.begin([(question, ()) for question, _ in solutions])
    assert np.isnan(scores).all()  # of the bare question nothing is said
    out: list[list[float]] = [[] for _ in solutions]
    for k in range(3):
        steps = [s[k] for _, s in solutions]
        rows, scores = verifier.read(rows, range(len(solutions)), steps)
        for row, score in zip(out, scores, strict=True):
            row.append(float(score))
    return out


def test_a_models_scores_are_those_of_whole_solutions():
    builder = tiny_game.builder()
    params = tiny_game.prm()
    model = prm_verifier(DECODER, "token", params, builder, max_steps=8)
    verifier = UncachedVerifier.of(model)
    np.testing.assert_allclose(
        _one_by_one(verifier, [RIGHT, WRONG]), model.score([RIGHT, WRONG]), atol=1e-5
    )
    # A branch that is entered later: its path, and the score of its last step.
    rows, scores = verifier.begin([RIGHT, (RIGHT[0], RIGHT[1][:1])])
    np.testing.assert_allclose(
        scores, [model.score([RIGHT])[0][k] for k in (2, 0)], atol=1e-5
    )
    assert rows.prefilled[0] == len(builder.solution(*RIGHT))
    assert verifier.flops_per_token > 0 and rows.num_bytes == 0


def test_the_oracle_is_asked_once_about_a_step_and_never_after_an_error():
    asked: list[tuple[tuple[str, ...], str]] = []

    class Counting:
        def judge(self, question, prefix, original, candidate):
            asked.append((tuple(prefix), candidate))
            return DOMAIN.oracle.judge(question, prefix, original, candidate)

    verifier = OracleSteps(Counting())
    whole = OracleVerifier(DOMAIN.oracle).score([RIGHT, WRONG])
    assert _one_by_one(verifier, [RIGHT, WRONG]) == [list(x) for x in whole]
    assert len(asked) == len(set(asked)) == 4  # the first step is both's
    rows, scores = verifier.begin([WRONG, (RIGHT[0], ())])
    assert rows.oracle_calls == (2, 0)
    assert scores[0] == whole[1][2] and math.isnan(scores[1])
    # A branch that a tree search enters again was judged when it was drawn.
    rows, scores = verifier.begin([WRONG, RIGHT], rows)
    assert rows.oracle_calls == (0, 2)
    assert scores.tolist() == [whole[1][2], whole[0][2]]


class _Fixed:
    """A `Verifier` that says each step's number; remembers what it was asked."""

    scale = Scale.LOG_ODDS

    def __init__(self):
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def score(self, solutions):
        self.asked.extend(solutions)
        return [np.arange(len(steps), dtype=float) for _, steps in solutions]


def test_a_branch_that_is_entered_again_is_not_scored_again():
    """By a verifier without a cache, which samples, say, to score a step."""

    fixed = _Fixed()
    verifier, asked = by_steps(fixed), fixed.asked
    _one_by_one(verifier, [RIGHT, WRONG])
    assert len(asked) == len(set(asked)) == 5  # the first step is both's
    asked.clear()
    rows, scores = verifier.begin([RIGHT, ("1 + 1", ())])
    assert scores[0] == 2.0 and math.isnan(scores[1])
    rows, scores = verifier.begin([("1 + 1", ()), RIGHT], rows)
    assert math.isnan(scores[0]) and scores[1] == 2.0
    rows, scores = verifier.read(rows, [0, 0], ["2", "2"])
    assert scores.tolist() == [0.0, 0.0]
    assert asked == [RIGHT, ("1 + 1", ("2",))]


def test_what_is_remembered_of_steps_is_bounded(monkeypatch):
    verifiers = [OracleSteps(DOMAIN.oracle), by_steps(_Fixed())]
    expected = [_one_by_one(v, [RIGHT, WRONG]) for v in verifiers]
    monkeypatch.setattr(stepwise, "_MOST_KNOWN", 1)
    assert [_one_by_one(v, [RIGHT, WRONG]) for v in verifiers] == expected
    for verifier in verifiers:
        rows, _ = verifier.begin([(RIGHT[0], ())])
        for step in RIGHT[1]:
            rows, _ = verifier.read(rows, [0], [step])
            held = rows.verdicts if isinstance(rows, JudgedRows) else rows.known
            assert len(held) == 1


def test_a_file_of_scores_cannot_search():
    """No step that is written now is in it: all would be unread, and nothing win."""
    file = ScoreFileVerifier(Path("mine.jsonl"), {})
    for verifier in (file, CombinedVerifier([OracleVerifier(DOMAIN.oracle), file])):
        with pytest.raises(ValueError, match=r"mine\.jsonl has scores of whole"):
            by_steps(verifier)


def test_an_undecidable_step_is_neither_right_nor_wrong():
    class Scripted:
        def judge(self, question, prefix, original, candidate):
            kinds = {"?": undecidable, "no": incorrect}
            kind = kinds.get(candidate)
            return kind("kind", "") if kind else correct("")

    verifier = OracleSteps(Scripted())
    scores = _one_by_one(verifier, [("q", ("yes", "?", "no")), ("q", ("?", "no", "a"))])
    assert scores[0][1] == scores[1][0] == 0.0
    assert scores[0][0] > 20 and max(scores[0][2], scores[1][1], scores[1][2]) < -20


@pytest.mark.parametrize("how", ["mean", "min", "product"])
def test_several_verifiers_read_step_by_step_as_whole(how):
    rows = tiny_game.builder()
    one = prm_verifier(DECODER, "token", tiny_game.prm(), rows, max_steps=8)
    combined = CombinedVerifier([one, OracleVerifier(DOMAIN.oracle)], how)
    verifier = by_steps(combined)
    assert verifier.scale is combined.scale
    np.testing.assert_allclose(
        _one_by_one(verifier, [RIGHT, WRONG]),
        combined.score([RIGHT, WRONG]),
        atol=1e-4,
        rtol=1e-4,
    )
    begun, _ = verifier.begin([RIGHT, WRONG])
    alone, _ = by_steps(one).begin([RIGHT, WRONG])
    assert begun.prefilled == alone.prefilled and begun.oracle_calls == (3, 1)
    spent = np.array(alone.attention) + one.flops_per_token * np.array(alone.prefilled)
    np.testing.assert_allclose(begun.attention, spent)
    assert begun.num_bytes == alone.num_bytes
