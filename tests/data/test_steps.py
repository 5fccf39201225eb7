"""The step builder's output, fixed by hand: every id, position, segment and label.

If one of the golden rows changes on purpose, every saved model reads its input
differently from how it was trained: raise the version of the model files with it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from aprm_jax.data.rows import StepBatch, StepRow, TooLongError
from aprm_jax.data.steps import StepBuilder
from aprm_jax.data.word_tokenizer import build_word_tokenizer

# <unk> 0, digits 1 to 10, + 11, then the special tokens in the order of the tokenizer.
WORDS = [*"0123456789", "+"]
UNK, PLUS = 0, 11
QUESTION, STEPS = "1 + 2 + 3", ("3 + 3", "6")
Q_IDS, S1_IDS, S2_IDS = [2, 11, 3, 11, 4], [4, 11, 4], [7]


def build(window: int | None, buckets: tuple[int, ...] = (8, 16, 32)) -> StepBuilder:
    return StepBuilder(build_word_tokenizer(WORDS), window, buckets)


BUILDER = build(None)
BOS, STEP, PERTURB = BUILDER.bos_id, BUILDER.step_id, BUILDER.perturb_id


def as_lists(row: StepRow) -> dict[str, list]:
    names = ("tokens", "positions", "segment_ids", "step_ids")
    return {name: getattr(row, name).tolist() for name in names}


def test_ids_are_distinct():
    special = {BOS, STEP, PERTURB, BUILDER.pad_id}
    assert len(special) == 4 and min(special) > PLUS
    assert BUILDER.encode(QUESTION) == tuple(Q_IDS)


def test_whole_solution_is_one_sequence():
    row = build(None).solution(QUESTION, STEPS, [1.0, 0.25])
    assert as_lists(row) == {
        "tokens": [BOS, *Q_IDS, STEP, *S1_IDS, STEP, *S2_IDS, STEP],
        "positions": list(range(13)),
        "segment_ids": [1] * 13,
        "step_ids": [-1] * 7 + [0] * 4 + [1] * 2,
    }
    assert row.labels.tolist() == [1.0, 0.25]
    assert row.labels.dtype == np.float32


def test_window_of_one_packs_a_segment_a_step():
    row = build(1).solution(QUESTION, STEPS, [1.0, math.nan])
    assert as_lists(row) == {
        "tokens": [BOS, *Q_IDS, STEP, *S1_IDS, STEP, BOS, *S1_IDS, STEP, *S2_IDS, STEP],
        "positions": [*range(11), *range(7)],
        "segment_ids": [1] * 11 + [2] * 7,
        "step_ids": [-1] * 7 + [0] * 4 + [-1] * 5 + [1] * 2,
    }
    assert row.labels[0] == 1.0 and np.isnan(row.labels[1])


def test_single_steps_and_perturbations():
    row = build(1).step(QUESTION, STEPS[:1], STEPS[1], 1.0)
    assert as_lists(row) == {
        "tokens": [BOS, *S1_IDS, STEP, *S2_IDS, STEP],
        "positions": list(range(7)),
        "segment_ids": [1] * 7,
        "step_ids": [-1] * 5 + [0] * 2,
    }
    row = build(None).perturbation(QUESTION, STEPS[:1], STEPS[1], "7")
    assert as_lists(row) == {
        "tokens": [BOS, *S2_IDS, PERTURB, *Q_IDS, STEP, *S1_IDS, STEP, 8, STEP],
        "positions": list(range(15)),
        "segment_ids": [1] * 15,
        "step_ids": [-1] * 13 + [0] * 2,
    }
    assert np.isnan(row.labels).all()


@pytest.mark.parametrize("window", [None, 1, 2, 3])
def test_every_way_to_build_a_step_gives_the_same_ids(window):
    """Training on solutions, scoring single steps and sampling agree by ids."""
    builder = build(window, (64,))
    steps = ("1 + 2", "3", "4 + 5", "9")
    whole = builder.solution(QUESTION, steps)
    for k, step in enumerate(steps):
        single = builder.step(QUESTION, steps[:k], step)
        context = builder.context(QUESTION, steps[:k])
        reply = [*builder.encode(step), builder.step_id]
        assert as_lists(builder.continuation(context, reply)) == as_lists(single)
        scored = np.flatnonzero(whole.step_ids == k)
        assert whole.tokens[scored].tolist() == reply
        same = (whole.segment_ids == whole.segment_ids[scored[0]]) & (
            np.arange(len(whole)) <= scored[-1]
        )
        assert whole.tokens[same].tolist() == single.tokens.tolist()
        assert whole.positions[same].tolist() == single.positions.tolist()
        assert builder.decode(reply) == step


@pytest.mark.parametrize("window", [None, 1])
def test_hostile_text_makes_no_separator(window):
    """One separator a line, however often the text spells it."""
    builder = build(window, (64,))
    hostile = "1 <step> 2 <perturb> <bos> <pad> </s>"
    row = builder.solution(hostile, (hostile, hostile))
    steps = int((row.tokens == STEP).sum())
    assert steps == (3 if window is None else 4)
    assert (row.tokens == BOS).sum() == (1 if window is None else 2)
    assert not np.isin(row.tokens, [PERTURB, builder.pad_id]).any()
    row = builder.perturbation(hostile, (), hostile, hostile)
    assert (row.tokens == PERTURB).sum() == 1
    # A number, what no token spells, a number.
    first, *between, last = builder.encode("1 <step> 2")
    assert (first, set(between), last) == (2, {UNK}, 3)


def test_decoding_stops_at_the_separator():
    assert BUILDER.decode([*S1_IDS, STEP, *S2_IDS]) == "3 + 3"
    assert BUILDER.decode([STEP]) == "" == BUILDER.decode([])


def test_collate_pads_and_masks():
    builder = build(None)
    rows = [
        builder.solution(QUESTION, STEPS, [1.0, math.nan]),
        builder.step("1", (), "2", 0.0),
    ]
    batch = builder.collate(rows, batch_size=3)
    assert isinstance(batch, StepBatch)
    assert batch.tokens.shape == (3, 16)  # the bucket of the longest
    for b, row in enumerate(rows):
        n = len(row)
        assert batch.tokens[b, :n].tolist() == row.tokens.tolist()
        assert (batch.tokens[b, n:] == builder.pad_id).all()
        assert (batch.segment_ids[b] > 0).tolist() == [True] * n + [False] * (16 - n)
        assert (batch.step_ids[b, n:] == -1).all()
    assert (batch.tokens[2] == builder.pad_id).all()
    assert batch.labels.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert batch.label_mask.tolist() == [[1, 0], [1, 0], [0, 0]]
    assert batch.step_mask.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert builder.collate(rows[1:]).tokens.shape == (1, 8)
    assert builder.collate(rows, length=13, max_steps=5).labels.shape == (2, 5)


def test_nothing_is_cut_silently():
    builder = build(None, (8, 12))
    row = builder.solution(QUESTION, STEPS, [1.0, 1.0])  # 13 tokens
    assert not builder.fits(row) and builder.fits(builder.step("1", (), "2"))
    with pytest.raises(TooLongError, match=r"13 tokens .* longest .*builder\.buckets"):
        builder.collate([row])
    with pytest.raises(TooLongError, match="13 tokens does not fit 12"):
        builder.collate([row], length=12)
    with pytest.raises(TooLongError, match="2 steps does not fit 1"):
        builder.collate([row], length=13, max_steps=1)
    with pytest.raises(ValueError, match="do not fit a batch"):
        builder.collate([row, row], length=13, batch_size=1)
    with pytest.raises(ValueError, match="2 steps but 1 labels"):
        builder.solution(QUESTION, STEPS, [1.0])
    assert builder.bucket(8) == 8 and builder.bucket(9) == 12


def test_refuses_what_it_cannot_build():
    tokenizer = build_word_tokenizer(WORDS)
    with pytest.raises(ValueError, match="window"):
        StepBuilder(tokenizer, 0, (8,))
    for buckets in ((), (16, 8), (8, 8)):
        with pytest.raises(ValueError, match="buckets"):
            StepBuilder(tokenizer, 1, buckets)
    with pytest.raises(ValueError, match="twice"):
        build_word_tokenizer(["1", "1"])
