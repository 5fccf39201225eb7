"""Rows of what was sampled: its own ids, its own contexts, its own probabilities."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_game
import tiny_rl
import tiny_solver

from aprm_jax.models.decoder import Decoder
from aprm_jax.policy.logprobs import read_replies
from aprm_jax.rl import trajectories
from aprm_jax.rl.trajectories import collated, row_length, trajectory

STARTS = [("2 + 3", ()), ("4 * 5", ()), ("7 - 1", ())]


def _sampled(builder, hostile):
    solver = tiny_solver.solver(builder, grader=tiny_solver.Digits(), hostile=hostile)
    key = jax.random.key(3)
    return solver, [s for row in solver.solve(STARTS, 4, key, max_steps=3) for s in row]


LAYOUTS = [(1, 16), (None, 0)]


def _drawn(builder, hostile):
    solver, solutions = _sampled(builder, hostile)
    rows = [t for s in solutions if (t := trajectory(builder, s)) is not None]
    assert len(rows) == len(solutions)
    return solver, solutions, rows


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize(("window", "stride"), LAYOUTS)
def test_a_trajectory_is_what_was_drawn(window, stride, hostile):
    builder = tiny_game.builder(window, (24, 48), stride)
    _, solutions, rows = _drawn(builder, hostile)
    for solution, row in zip(solutions, rows, strict=True):
        drawn = [i for ids in solution.tokens for i in ids]
        assert [i for s in row.segments for i in s.drawn] == drawn
        assert row.num_tokens == len(drawn)
        for k, ids in enumerate(solution.tokens):
            here = row.step_ids == k
            assert here.sum() == len(ids)
            np.testing.assert_array_equal(row.logprobs[here], solution.logprobs[k])
    segments = [len(row.segments) for row in rows]
    steps = [len(s.tokens) for s in solutions]
    if window == 1:
        assert segments == steps
    elif not hostile:  # one that goes on, nothing of it read twice
        assert set(segments) == {1}
    else:  # what is encoded otherwise than it was drawn begins a segment of its own
        assert 1 < max(segments) <= max(steps)


@pytest.mark.parametrize("branch", [True, False])
@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize(("window", "stride"), LAYOUTS)
def test_the_trainer_reads_what_the_sampler_drew(window, stride, hostile, branch):
    """Ids, contexts and positions all agree, or the log-probabilities would not."""
    builder = tiny_game.builder(window, (24, 48), stride)
    solver, _, rows = _drawn(builder, hostile)
    # Rows of different size, one of them for what is none; a solution twice.
    parts = [[None], rows[:4], [*rows[4:7], rows[4]], rows[7:9], rows[9:12]]
    batch = collated(builder, parts, 3, 6, branch)
    assert batch.columns.shape[:2] == (6, 4)
    decoder = Decoder(solver.sampler.config)
    read = jax.jit(lambda params, *b: read_replies(decoder, params, *b).logprobs)
    placed = jax.tree.map(jnp.asarray, (batch.rows, batch.columns))
    found = np.asarray(read({"backbone": solver.backbone}, *placed))
    mask = batch.columns >= 0
    assert mask.sum() == sum(t.num_tokens for part in parts for t in part if t)
    np.testing.assert_array_equal(mask, batch.step_ids >= 0)
    np.testing.assert_allclose(found[mask], batch.sampler_logprobs[mask], atol=1e-4)
    assert not batch.sampler_logprobs[~mask].any() and not found[~mask].any()
    # A context that several go on from stands there once, what was drawn twice too.
    row = batch.rows.tokens[2][batch.rows.segment_ids[2] > 0].tolist()
    segments = {s for t in parts[2] for s in t.segments}
    shared = {s.context for s in segments}
    contexts = sum(map(len, shared if branch else [s.context for s in segments]))
    assert len(row) == contexts + sum(len(s.drawn) for s in segments)
    np.testing.assert_array_equal(batch.columns[2, 0], batch.columns[2, 3])


@pytest.mark.parametrize("epochs", [1, 2])
def test_solutions_that_share_rows_teach_what_each_teaches_alone(epochs, monkeypatch):
    """Losses and gradients, to rounding."""
    where, found = tiny_rl.task(None), []
    for most in (4, 1):
        monkeypatch.setattr(trajectories, "MOST_SHARING", most)
        config = tiny_rl.config(
            rewards=("outcome", "step"), epochs=epochs, kl_weight=0.1, uniform="keep"
        )
        of = tiny_rl.rounds(config, where, verifier=tiny_rl.Says())
        assert of._slots.shape == (16 // most, most)
        state, metrics = tiny_rl.play(of, of.state, range(3))
        found.append((tiny_rl.leaves(state.policy.params), metrics))
    for shared, alone in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-5)
    for shared, alone in zip(found[0][1], found[1][1], strict=True):
        for name in ("policy/loss", "policy/grad_norm", "policy/kl_sequence"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5)
    assert found[0][1][2]["policy/grad_norm"] > 0


@pytest.mark.parametrize(
    ("groups", "size", "parts", "each"),
    [
        (2, 8, 1, [4, 4]),
        (2, 5, 1, [3, 2]),
        (1, 8, 4, [2, 2, 2, 2]),  # rather than rows of padding
        (1, 3, 2, [2, 1]),
        (1, 3, 5, [1, 1, 1]),
        (3, 1, 1, [1]),
    ],
)
def test_a_few_solutions_of_a_problem_share_a_row(groups, size, parts, each):
    rows = trajectories.together(groups, size, parts)
    assert list(map(len, rows)) == each * groups
    assert [i for row in rows for i in row] == list(range(groups * size))
    assert all(len({i // size for i in row}) == 1 for row in rows)


def test_a_solution_without_a_token_is_no_row():
    solution = tiny_rl.TASK.solver.solve(
        [("2 + 3", ())], 1, jax.random.key(0), max_steps=2
    )[0][0]
    nothing = dataclasses.replace(solution, steps=(), tokens=(), logprobs=())
    assert trajectory(tiny_rl.TASK.builder, nothing) is None


def test_rows_have_few_lengths():
    found = {row_length(n, 64) for n in range(1, 1025)}
    assert found == {64, 96, 128, 192, 256, 384, 512, 768, 1024}
    assert all(row_length(n, 16) >= n for n in range(1, 3000, 7))
