"""What a solver learns from: the same steps however they are laid into rows."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import tiny_game
from tiny_game import DECODER, DOMAIN

from aprm_jax.data.steps import StepBatch, pack
from aprm_jax.jobs import sft
from aprm_jax.models import heads
from aprm_jax.training.masked import masked_mean

SIZE, LENGTH = 12, 128


def _rows(window: int | None, step: int = 0, size: int = SIZE):
    builder = tiny_game.builder(window, (64, LENGTH))
    fields = types.SimpleNamespace(builder=types.SimpleNamespace(max_steps=8))
    context: Any = types.SimpleNamespace(builder=builder, domain=DOMAIN, config=fields)
    rows = sft._solution_rows(context, step, size)
    return builder, sorted(rows, key=len, reverse=True)


def _solutions(builder, step: int = 0, size: int = SIZE):
    problems = [DOMAIN.corpus(i) for i in range(step * size, (step + 1) * size)]
    return [builder.solution(p.question, p.steps) for p in problems]


def _batch(builder, rows) -> StepBatch:
    packed = pack(rows, LENGTH)
    return builder.collate(packed, length=LENGTH, max_steps=8 * SIZE)


def _loss(batch: StepBatch) -> float:
    params = tiny_game.generator()["backbone"]
    logprobs = heads.token_logprobs(DECODER, params, batch)
    return float(-masked_mean(logprobs, np.asarray(batch.step_ids) >= 0))


@pytest.mark.parametrize("window", [1, None])
def test_the_loss_is_that_of_whole_solutions(window):
    builder, rows = _rows(window, step=3)
    whole = _batch(builder, _solutions(builder, 3))
    assert _loss(_batch(builder, rows)) == pytest.approx(_loss(whole), rel=1e-5)


def test_steps_fill_rows_better_than_solutions_do():
    used = {}
    for name in ("steps", "solutions"):
        batches = []
        for step in range(20):
            builder, rows = _rows(1, step)
            rows = rows if name == "steps" else _solutions(builder, step)
            batches.append(_batch(builder, rows))
        tokens = sum(np.count_nonzero(b.segment_ids) for b in batches)
        used[name] = tokens / sum(b.tokens.size for b in batches)
    assert used["steps"] > 0.9 > used["solutions"]
