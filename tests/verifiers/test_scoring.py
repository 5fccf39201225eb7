"""Scores of solutions: what the heads say of each, once, in the order asked for."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny_game
from tiny_game import DECODER, DOMAIN

from aprm_jax.data.rows import TooLongError
from aprm_jax.models import heads
from aprm_jax.verifiers.models import _fitting
from aprm_jax.verifiers.scoring import Scorer, likelihood_scorer, prm_scorer

PROBLEMS = [DOMAIN.train(i) for i in range(4)]
SOLUTIONS = [
    (PROBLEMS[2].question, PROBLEMS[2].steps),
    (PROBLEMS[0].question, PROBLEMS[0].steps),
    (PROBLEMS[1].question, ()),
    (PROBLEMS[0].question, PROBLEMS[0].steps),  # again
    (PROBLEMS[3].question, PROBLEMS[3].steps[:1]),
    (PROBLEMS[0].question, (*PROBLEMS[0].steps[:2], "9 + 9")),  # shares two steps
]
READ = jax.jit(heads.step_logits, static_argnums=(0, 3))
LOGPROBS = jax.jit(heads.token_logprobs, static_argnums=0)


def _counted(score):
    """The score, and the rows of every batch that it was asked for."""
    batches = []

    def counting(params, batch):
        batches.append(int((batch.segment_ids.max(axis=1) > 0).sum()))
        return score(params, batch)

    return counting, batches


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("head", heads.HEADS)
def test_scores_are_the_heads_and_come_in_order(window, head):
    builder = tiny_game.builder(window, (32, 64), line_stride=12)
    params = tiny_game.prm(head=head)
    score, rows = _counted(prm_scorer(DECODER, head))
    scorer = Scorer(score, builder, max_steps=5, batch_sizes=(2, 4))
    got = scorer.solutions(params, SOLUTIONS)
    assert [len(row) for row in got] == [len(steps) for _, steps in SOLUTIONS]
    alone = [
        builder.step(question, steps[:k], steps[k])
        for question, steps in SOLUTIONS
        for k in range(len(steps))
    ]
    batch = builder.collate(alone, length=64, batch_size=24)
    expected = READ(DECODER, params, batch, head)[: len(alone), 0]
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-4)
    assert all(row.dtype == np.float32 for row in got)
    np.testing.assert_array_equal(got[1], got[3])
    # Each thing is scored once: whole solutions, or steps with what they see.
    if window is None:
        seen = {solution for solution in SOLUTIONS if solution[1]}
    else:
        seen = {
            (tuple([question, *steps[:k]][-window:]), steps[k])
            for question, steps in SOLUTIONS
            for k in range(len(steps))
        }
    assert sum(rows) == len(seen) and max(rows) <= 4


def test_the_order_of_a_request_does_not_change_a_score():
    builder = tiny_game.builder()
    scorer = Scorer(
        prm_scorer(DECODER, "token"), builder, max_steps=5, batch_sizes=(4,)
    )
    params = tiny_game.prm()
    forward = scorer.solutions(params, SOLUTIONS)
    backward = scorer.solutions(params, SOLUTIONS[::-1])[::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one, other)
    assert scorer.solutions(params, []) == []


def test_rows_keep_their_keys():
    builder = tiny_game.builder(buckets=(16, 40))
    scorer = Scorer(
        prm_scorer(DECODER, "token"), builder, max_steps=1, batch_sizes=(2,)
    )
    points = tiny_game.POINTS
    rows = {
        i - 3: builder.step(p.question, p.prefix, p.step) for i, p in enumerate(points)
    }
    assert len({builder.bucket(len(row)) for row in rows.values()}) == 2
    got = scorer.rows(tiny_game.prm(), rows)
    batch = builder.collate(list(rows.values()), length=40)
    expected = READ(DECODER, tiny_game.prm(), batch, "token")
    assert got.keys() == rows.keys()
    np.testing.assert_allclose([got[key] for key in rows], expected, atol=1e-4)


@pytest.mark.parametrize("window", [None, 1])
def test_likelihood_is_the_least_token_of_each_step(window):
    builder = tiny_game.builder(window)
    params = {"backbone": tiny_game.generator()["backbone"]}
    question, steps = SOLUTIONS[0]
    scorer = Scorer(
        likelihood_scorer(DECODER), builder, max_steps=5, batch_sizes=(1, 4)
    )
    (got,) = scorer.solutions(params, [(question, steps)])
    row = builder.solution(question, steps)
    batch = builder.collate([row])
    logprobs = np.asarray(LOGPROBS(DECODER, params["backbone"], batch))[0, : len(row)]
    expected = [logprobs[row.step_ids == k].min() for k in range(len(steps))]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.all(got < 0)


@pytest.mark.parametrize(
    ("left", "length", "size"),
    [
        (3, 640, 4),
        (8, 640, 4),  # and 4 more, not 16
        (9, 640, 16),
        (20, 640, 16),
        (300, 640, 16),  # 128 would be too many tokens
        (3, 64, 4),
        (5, 64, 16),
        (20, 64, 16),
        (64, 64, 16),
        (65, 64, 128),
        (500, 64, 128),
        (20, 32, 128),  # as cheap as its launch
        (7, 1 << 15, 4),  # nothing smaller is compiled for
    ],
)
def test_a_batch_is_not_mostly_padding(left, length, size):
    sizes, builder = (4, 16, 128), tiny_game.builder()
    scorer = Scorer(_counted, builder, max_steps=1, batch_sizes=sizes)
    assert scorer._batch_size(left, length) == size


def test_a_solution_without_room_is_refused():
    builder = tiny_game.builder(None, (16,))
    scorer = Scorer(prm_scorer(DECODER, "token"), builder, max_steps=5)
    with pytest.raises(TooLongError, match="longest bucket"):
        scorer.solutions(tiny_game.prm(), SOLUTIONS[:1])


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("branch", [True, False])
def test_what_solutions_share_is_read_once_and_scores_the_same(window, branch):
    builder = tiny_game.builder(window, (32, 96), line_stride=12)
    params = tiny_game.prm(head="two_class")
    scores = (prm_scorer(DECODER, "two_class"), likelihood_scorer(DECODER))
    for score in scores:
        counted, rows = _counted(score)
        scorer = Scorer(counted, builder, max_steps=12, batch_sizes=(2, 4))
        got = scorer.trees(params, SOLUTIONS, branch=branch)
        if window is None and branch:
            assert sum(rows) == 3  # a row for each question that has steps
        expected = scorer.solutions(params, SOLUTIONS)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    # What does not fit is left out from there on, and nothing else is.
    short = Scorer(scores[0], tiny_game.builder(None, (24,)), max_steps=12)
    question, steps = SOLUTIONS[0]
    fits = short.trees(params, [(question, (steps[0], "9 " * 20, steps[0]))])
    assert [len(row) for row in fits] == [1]


def test_where_a_long_solution_stops_fitting_takes_few_layouts():
    """Each is as long as the solution: one a step would be a square of its length."""
    rows, laid = tiny_game.builder(window=None), []
    whole = rows._lay_out
    rows._lay_out = lambda *args: laid.append(args) or whole(*args)
    steps = ("1 + 2",) * 400
    [(_, fitting)] = _fitting(rows, [("1 + 2", steps)])
    assert len(laid) <= 2 + np.log2(len(steps))
    assert 0 < len(fitting) < 400
    assert rows.fits(whole("1 + 2", fitting, range(len(fitting)), [1.0] * len(fitting)))
    more = steps[: len(fitting) + 1]
    assert not rows.fits(whole("1 + 2", more, range(len(more)), [1.0] * len(more)))
