"""Packing rows: nothing is lost, and no row learns that it has neighbours."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_game
from tiny_game import DECODER, DOMAIN

from aprm_jax.data.rows import StepRow, TooLongError, one_of_few, pack
from aprm_jax.models import heads
from aprm_jax.models.positions import causal_mask


def _rows(window, line_stride: int = 0) -> tuple[list[StepRow], list[int]]:
    """Solutions of different lengths with labels that tell all steps apart."""
    builder = tiny_game.builder(window, line_stride=line_stride)
    rows, sizes, number = [], [], 0
    for index in range(9):
        problem = DOMAIN.train(index)
        labels = [number / 64 + k / 64 for k in range(len(problem.steps))]
        labels[-1] = math.nan if index % 3 == 0 else labels[-1]
        number += len(labels)
        rows.append(builder.solution(problem.question, problem.steps, labels))
        sizes.append(len(rows[-1]))
    return rows, sizes


def _steps(row: StepRow) -> list[tuple]:
    """Every step of a row as (label, its ids, its positions)."""
    return [
        (
            None if np.isnan(label) else float(label),
            tuple(row.tokens[row.step_ids == k].tolist()),
            tuple(row.positions[row.step_ids == k].tolist()),
        )
        for k, label in enumerate(row.labels)
    ]


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("line_stride", [0, 12])
def test_no_step_and_no_label_is_lost(window, line_stride):
    rows, sizes = _rows(window, line_stride)
    length = max(sizes) + min(sizes)
    packed = pack(rows, length)
    assert 1 < len(packed) < len(rows) and all(len(row) <= length for row in packed)

    def everything(many):
        return sorted(map(str, (step for row in many for step in _steps(row))))

    assert everything(packed) == everything(rows)
    assert sum(len(row) for row in packed) == sum(sizes)
    for row in packed:
        # Segments count from one without a gap; a step lies in one segment.
        assert np.unique(row.segment_ids).tolist() == [
            *range(1, row.segment_ids[-1] + 1)
        ]
        for k in range(len(row.labels)):
            assert len(np.unique(row.segment_ids[row.step_ids == k])) == 1


@pytest.mark.parametrize("window", [None, 1])
def test_packed_rows_do_not_see_each_other(window):
    """Log-probabilities and verdicts of packed steps are those of the rows alone."""
    rows, sizes = _rows(window)
    builder = tiny_game.builder(window, (256,))
    packed = pack(rows, 256)
    assert len(packed) <= 2 and max(sizes) < 128
    params = tiny_game.prm()

    @jax.jit
    def read(params, batch):
        return (
            heads.token_logprobs(DECODER, params["backbone"], batch),
            heads.step_logits(DECODER, params, batch, "token"),
        )

    alone_logprobs, alone_logits = read(params, builder.collate(rows))
    logprobs, logits = read(params, builder.collate(packed))
    expected = {}
    for b, row in enumerate(rows):
        for k, step in enumerate(_steps(row)):
            where = np.flatnonzero(row.step_ids == k)
            values = np.append(alone_logprobs[b, where], alone_logits[b, k])
            expected.setdefault(str(step), []).append(values)
    for b, row in enumerate(packed):
        for k, step in enumerate(_steps(row)):
            where = np.flatnonzero(row.step_ids == k)
            values = np.append(logprobs[b, where], logits[b, k])
            # Equal steps of different contexts: the nearest of them.
            gaps = [np.abs(values - v).max() for v in expected[str(step)]]
            assert min(gaps) < 1e-4
            expected[str(step)].pop(int(np.argmin(gaps)))
    assert not any(expected.values())


def test_first_fit_and_what_does_not_fit():
    builder = tiny_game.builder()
    row = builder.step("1", (), "2")  # <bos> 1 <step> 2 <step>
    assert [len(r) for r in pack([row] * 5, 12)] == [10, 10, 5]
    longer = builder.step("1 + 1", (), "2")
    assert [len(r) for r in pack([longer, longer, row], 12)] == [12, 7]
    assert pack([], 8) == []
    with pytest.raises(TooLongError, match="5 tokens does not fit 4"):
        pack([row], 4)


@pytest.mark.parametrize("multiple", [1, 2, 3, 8])
def test_batch_sizes_are_few_and_none_is_much_too_large(multiple):
    sizes = [one_of_few(count, multiple) for count in range(1, 1025)]
    for count, size in enumerate(sizes, 1):
        assert size % multiple == 0 and size >= count
        assert size - multiple < 1.5 * count
    assert sizes == sorted(sizes) and len(set(sizes)) <= 2 * 10
    if multiple == 1:
        assert sizes[2:14] == [3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16]


def test_replies_to_one_prompt_branch_off_it():
    """Each sees the prompt and itself, at the places of a row of its own."""
    builder = tiny_game.builder(line_stride=16)
    context = builder.context("2 + 3 * 3", ())
    replies = [builder.encode(text) for text in ("2 + 9", "5 * 3", "14")]
    row = builder.continuation(context, *replies)
    assert row.ends is not None and len(row.labels) == 3
    mask = np.asarray(
        causal_mask(
            jnp.asarray(row.segment_ids)[None], ends=jnp.asarray(row.ends)[None]
        )
    )[0]
    for k, ids in enumerate(replies):
        alone = builder.continuation(context, ids)
        assert alone.ends is None
        last = np.flatnonzero(row.step_ids == k)[-1]
        seen = np.flatnonzero(mask[last])
        assert row.tokens[seen].tolist() == alone.tokens.tolist() == [*context, *ids]
        assert row.positions[seen].tolist() == alone.positions.tolist()
        assert row.segment_ids[seen].tolist() == alone.segment_ids.tolist()
    assert (row.step_ids[: len(context)] == -1).all()
