"""What a solver learns from: the same steps however they are laid into rows."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_game
import tiny_run

from aprm_jax.data.rows import StepBatch, StepRow, pack
from aprm_jax.jobs import sft
from aprm_jax.jobs.context import Context
from aprm_jax.models import heads
from aprm_jax.training.masked import masked_mean

SIZE, LENGTH = 32, 128


def _context(window: int) -> Context:
    return Context(tiny_run.config(builder__window=window), Path("nowhere"), "solver")


def _solutions(context: Context, step: int) -> list[StepRow]:
    problems = [context.domain.corpus(i) for i in range(step * SIZE, (step + 1) * SIZE)]
    return [context.builder.solution(p.question, p.steps) for p in problems]


def _batch(context: Context, rows: list[StepRow]) -> StepBatch:
    packed = pack(sorted(rows, key=len, reverse=True), LENGTH)
    return context.builder.collate(packed, length=LENGTH, max_steps=8 * SIZE)


def _loss(batch: StepBatch) -> float:
    backbone = tiny_game.generator()["backbone"]
    logprobs = heads.token_logprobs(tiny_game.DECODER, backbone, batch)
    return float(-masked_mean(logprobs, jnp.asarray(batch.step_ids) >= 0))


@pytest.mark.parametrize("window", [1, 0])
def test_the_loss_is_that_of_whole_solutions(window):
    context = _context(window)
    rows = sft._solution_rows(context, context.domain.corpus, 3, SIZE)
    whole = _solutions(context, 3)
    assert (len(rows) > len(whole)) == (window == 1)
    losses = [_loss(_batch(context, part)) for part in (rows, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_steps_fill_rows_better_than_solutions_do():
    context, used = _context(1), []
    for draw in (
        lambda k: sft._solution_rows(context, context.domain.corpus, k, SIZE),
        None,
    ):
        rows = [draw(k) if draw else _solutions(context, k) for k in range(4)]
        batches = [_batch(context, part) for part in rows]
        tokens = sum(np.count_nonzero(batch.segment_ids) for batch in batches)
        used.append(tokens / sum(batch.tokens.size for batch in batches))
    assert used[0] > 0.92 and used[0] > used[1] + 0.03
