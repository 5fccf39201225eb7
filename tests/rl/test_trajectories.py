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
from aprm_jax.policy.logprobs import read_policy
from aprm_jax.rl.trajectories import collated, row_length, trajectory

STARTS = [("2 + 3", ()), ("4 * 5", ()), ("7 - 1", ())]


def _sampled(builder, hostile):
    solver = tiny_solver.solver(builder, grader=tiny_solver.Digits(), hostile=hostile)
    key = jax.random.key(3)
    return solver, [s for row in solver.solve(STARTS, 4, key, max_steps=3) for s in row]


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(1, 16), (None, 0)])
def test_the_trainer_reads_what_the_sampler_drew(window, stride, hostile):
    """Ids, contexts and positions all agree, or the log-probabilities would not."""
    builder = tiny_game.builder(window, (24, 48), stride)
    solver, solutions = _sampled(builder, hostile)
    rows = [row for s in solutions if (row := trajectory(builder, s)) is not None]
    for solution, row in zip(solutions, rows, strict=True):
        for k, ids in enumerate(solution.tokens):
            of_step = row.row.step_ids == k
            assert tuple(row.row.tokens[of_step].tolist()) == ids
            np.testing.assert_array_equal(row.logprobs[of_step], solution.logprobs[k])
        assert row.num_tokens == sum(map(len, solution.tokens))
    segments = [int(row.row.segment_ids[-1]) for row in rows]
    steps = [len(s.tokens) for s in solutions]
    if window == 1:
        assert segments == steps
    elif not hostile:  # one row that goes on, nothing of it read twice
        assert set(segments) == {1}
    else:  # what is encoded otherwise than it was drawn begins a segment of its own
        assert 1 < max(segments) <= max(steps)
    batch, drawn = collated(builder, [None, *rows], 3, 16)
    decoder = Decoder(solver.sampler.config)
    read = jax.jit(lambda params, b: read_policy(decoder, params, b).logprobs)
    found = read({"backbone": solver.backbone}, jax.tree.map(jnp.asarray, batch))
    mask = np.asarray(batch.step_ids) >= 0
    mask[0] = False  # a row for what is none
    np.testing.assert_allclose(np.asarray(found)[mask], drawn[mask], atol=1e-4)
    assert not drawn[~mask].any()


def test_a_solution_without_a_token_is_no_row():
    solution = tiny_rl.TASK.solver.solve(
        [("2 + 3", ())], 1, jax.random.key(0), max_steps=2
    )[0][0]
    nothing = dataclasses.replace(solution, steps=(), tokens=(), logprobs=())
    assert trajectory(tiny_rl.TASK.builder, nothing) is None


def test_rows_have_few_lengths():
    found = {row_length(n) for n in range(1, 1025)}
    assert found == {64, 96, 128, 192, 256, 384, 512, 768, 1024}
    assert all(row_length(n) >= n for n in range(1, 3000, 7))
