"""What a verifier says is checked once, whoever asks it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_search

from aprm_jax.search.methods import BestOfN
from aprm_jax.verifiers.combined import CombinedVerifier
from aprm_jax.verifiers.pav import Pav
from aprm_jax.verifiers.protocol import (
    Scale,
    Scored,
    VerifierError,
    bare_scores,
    ends,
    scores_of,
)
from aprm_jax.verifiers.stepwise import by_steps

PAIRS = [("1 + 2", ("3",)), ("100 % 7", ("98 + 2", "2"))]


@dataclasses.dataclass(frozen=True)
class Mine:
    """Answers what it was given."""

    given: Any
    scale: Any = Scale.LOG_ODDS

    def score(self, solutions):
        return self.given

    def questions(self, questions):
        return self.given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "^Mine.score returned NoneType; right is one array a solution, with"),
        (3, "returned int; right is one array a solution"),
        ([[0.0]], r"returned 1 rows of scores for 2 solution\(s\); right is one array"),
        ([[0.0], [0.0]], r"^Mine.score: solution 1, of '100 % 7': 1 score\(s\) for 2 "),
        (
            [[0.0], [0.0] * 3],
            r"3 score\(s\) for 2 step\(s\); right is one a step, 2, N",
        ),
        (
            [0.0, [0.0] * 2],
            "solution 0, of '1 .* float is no array of numbers; right is",
        ),
        ([[0.0], None], "solution 1, .* NoneType is no array of numbers; right is one"),
        (
            [[0.0], np.zeros((2, 2))],
            r"an array of float64 and shape \(2, 2\) is no array of num",
        ),
        ([[0.0], [[0.0], []]], "solution 1, .* is no array of numbers; right is one a"),
        ([[0.0], ["a", "b"]], r"\['a', 'b'\] is no array of numbers"),
        (
            [[0.0], [0.0, None]],
            r"\[0.0, None\] is no array of numbers; .* NaN for a step",
        ),
    ],
)
def test_what_is_no_score_of_a_step_is_named(given, said):
    good = Mine([[0.0], [0.0, 0.0]])
    askers = [
        lambda v: Scored.by(v, PAIRS),
        lambda v: ends(v, PAIRS),
        lambda v: CombinedVerifier([good, v]).score(PAIRS),
        lambda v: Pav(v).score(PAIRS),
    ]
    for ask in askers:
        ask(good)
        with pytest.raises(VerifierError, match=said):
            ask(Mine(given))


def test_scores_are_on_their_scale():
    likely = Mine([[-0.5], [0.1, 0.9]], Scale.LOG_PROBABILITY)
    with pytest.raises(VerifierError, match=r"'100 % 7': score 0 is 0.1; a log-prob.*"):
        scores_of(likely, PAIRS)
    with pytest.raises(VerifierError, match="its scale is 'log_odds', and not one of"):
        scores_of(Mine([[0.0], [0.0, 0.0]], "log_odds"), PAIRS)


def test_what_was_not_read_and_what_is_certain_stay():
    rows = [np.array([np.nan]), np.array([-np.inf, np.inf])]
    found = scores_of(Mine(rows), PAIRS)
    assert all(a is b for a, b in zip(found, rows, strict=True))
    assert scores_of(Mine([[-np.inf], [0, 1e-7]], Scale.LOG_PROBABILITY), PAIRS)
    (row,) = scores_of(Mine(jnp.zeros((1, 2), jnp.bfloat16)), PAIRS[1:])
    assert row.dtype == np.float64
    assert len(scores_of(Mine([[]]), [("1", ())])[0]) == 0


def test_scores_of_bare_questions_are_one_each():
    with pytest.raises(
        VerifierError, match=r"^Mine.questions: 1 score\(s\) for 2 ques"
    ):
        bare_scores(Mine([0.0]), ["1", "2"])
    with pytest.raises(
        VerifierError, match=r"^Mine.questions: 2 score\(s\) for 1 ques"
    ):
        ends(Mine([0.0, 0.0]), [("1", ())])


@pytest.mark.parametrize("wrap", ["alone", "combined", "pav"])
@pytest.mark.parametrize("change", ["more", "none"])
def test_one_that_reads_step_by_step_is_checked_too(change, wrap):
    class Reads(tiny_search.FakeVerifier):
        def read(self, rows, parents, steps):
            read, scores = super().read(rows, parents, steps)
            return (read, [*scores, 0.0]) if change == "more" else None  # type: ignore

        def score(self, solutions):
            raise AssertionError

    made: Any = Reads()
    if wrap != "alone":
        made = by_steps(CombinedVerifier([made])) if wrap == "combined" else Pav(made)
    engine = tiny_search.engine(BestOfN(2), verifier=made)
    said = r"^Reads: . score\(s\) for . row\(s\)" if change == "more" else "^Reads retu"
    with pytest.raises(VerifierError, match=said):
        engine.search(["q"], 0)
