"""Batches of prepared data: every row once an epoch, resumed exactly, unseen by others.

Order and resumption are checked by the ids in the batches; what packing does to
a model, through the decoder.
"""

from __future__ import annotations

import grain
import jax
import numpy as np
import pytest
import tiny

from aprm_jax.data import prepared
from aprm_jax.data.bpe import train_bpe
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.loader import load_batches
from aprm_jax.data.prepared import PreparedRow
from aprm_jax.data.readers import read_problems
from aprm_jax.data.rows import StepBatch, TooLongError
from aprm_jax.data.steps import StepBuilder
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder

BUILDER = StepBuilder(tiny.tokenizer(), None, (48,))
COUNT = 50


def useful_share(batches) -> float:
    """Share of the token positions of some batches that hold a token."""
    used = sum(int(np.count_nonzero(batch.segment_ids)) for batch in batches)
    return used / sum(batch.segment_ids.size for batch in batches)


def _row(k: int) -> PreparedRow:
    name = " ".join(str(k))  # digits are words of their own here
    steps = [f"{name} + {j}" for j in range(1 + k % 4)]
    labels = [float((k + j) % 2) for j in range(len(steps))]
    row = BUILDER.solution(f"{name} - {name}", steps, labels)
    return PreparedRow(row, name, "tiny")


def _number(tokens: np.ndarray) -> int:
    """Which row some tokens are: `<bos> k - k <step> ...`."""
    words = BUILDER.decode(tokens[1:]).split(" - ")
    return int(words[0].replace(" ", ""))


def _rows_of(batch: StepBatch) -> list[tuple[int, tuple[int, ...]]]:
    """(number, tokens) of every row in a batch, in order."""
    found = []
    for tokens, segments in zip(batch.tokens, batch.segment_ids, strict=True):
        for segment in range(1, int(segments.max()) + 1):
            ids = tokens[segments == segment]
            found.append((_number(ids), tuple(ids.tolist())))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "prepared"
    rows = [_row(k) for k in range(COUNT)]
    prepared.write_prepared(
        path,
        {"train": rows, "dev": rows[:3]},
        lambda: {"builder": prepared.builder_settings(BUILDER)},
        rows_per_file=16,
    )
    return path


def _load(folder, **changes):
    fields = {"batch_size": 3, "length": 48, "seed": 5, "window": 16}
    split = changes.pop("split", "train")
    return load_batches(folder, split, BUILDER, **(fields | changes))


def _numbers(batches) -> list[int]:
    return [n for batch in batches for n, _ in _rows_of(batch)]


def _same(a: StepBatch, b: StepBatch) -> bool:
    return all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_an_epoch_has_every_row_once_with_its_steps_and_labels(folder):
    batches = list(_load(folder, epochs=1))
    found = sorted(row for batch in batches for row in _rows_of(batch))
    rows = [_row(k).row for k in range(COUNT)]
    assert found == [(k, tuple(row.tokens.tolist())) for k, row in enumerate(rows)]
    steps = sum(len(row.labels) for row in rows)
    assert sum(int(batch.step_mask.sum()) for batch in batches) == steps
    assert sum(int(batch.label_mask.sum()) for batch in batches) == steps
    assert {batch.tokens.shape for batch in batches} == {(3, 48)}
    assert len({batch.labels.shape for batch in batches}) == 1
    tokens = sum(len(row) for row in rows)
    positions = sum(batch.tokens.size for batch in batches)
    assert useful_share(batches) == pytest.approx(tokens / positions)


def test_the_order_is_the_seeds_and_changes_with_the_epoch(folder):
    once = _numbers(_load(folder, epochs=1))
    assert once == _numbers(_load(folder, epochs=1))
    assert once != _numbers(_load(folder, epochs=1, seed=6))
    # Here one window is one epoch.
    endless = iter(_load(folder, window=COUNT, batch_size=1))
    epochs: tuple[list[int], list[int]] = ([], [])
    while endless.get_state()["window"] < 2:
        epochs[endless.get_state()["window"]].extend(_numbers([next(endless)]))
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(COUNT))
    assert epochs[0] != epochs[1]
    both = _numbers(_load(folder, epochs=2))
    assert sorted(both) == sorted(once + once)


@pytest.mark.parametrize("stop", range(7))
def test_a_restored_iterator_goes_on_with_the_same_bits(folder, stop):
    dataset = _load(folder)
    iterator = iter(dataset)
    assert isinstance(iterator, grain.DatasetIterator)
    for _ in range(stop):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(6)]
    fresh = iter(_load(folder))  # as another process would open it
    fresh.set_state(state)
    assert all(_same(next(fresh), batch) for batch in expected)
    iterator.set_state(state)  # and back
    assert _same(next(iterator), expected[0])


def test_the_end_stays_the_end(folder):
    iterator = iter(_load(folder, epochs=1))
    count = len(list(iterator))
    state = iterator.get_state()
    with pytest.raises(StopIteration):
        next(iterator)
    assert iterator.get_state() == state and count > 3
    fresh = iter(_load(folder, epochs=1))
    fresh.set_state(state)
    with pytest.raises(StopIteration):
        next(fresh)


def test_what_does_not_fit_is_said_before_anything_is_read(folder, tmp_path):
    longest = max(len(_row(k).row) for k in range(COUNT))
    with pytest.raises(TooLongError, match=f"a row has {longest} tokens, and a packed"):
        _load(folder, length=longest - 1)
    with pytest.raises(TooLongError, match="steps does not fit 2"):
        next(iter(_load(folder, max_steps=2)))
    with pytest.raises(DataError, match="no split 'test', only train, dev"):
        _load(folder, split="test")
    with pytest.raises(DataError, match="not a prepared data set"):
        _load(tmp_path)


def test_no_step_knows_of_its_neighbours(folder):
    """Loss and verdicts of packed batches are those of each row alone."""
    config = tiny.decoder(len(tiny.WORDS))
    decoder = Decoder(config)
    params = heads.init_prm(jax.random.key(0), tiny.backbone(config), 16, "two_class")

    @jax.jit
    def read(batch):
        logprobs = heads.token_logprobs(decoder, params["backbone"], batch)
        return logprobs, heads.step_logits(decoder, params, batch, "two_class")

    alone = BUILDER.collate([_row(k).row for k in range(COUNT)], length=48)
    alone_logprobs, alone_logits = (np.asarray(x) for x in read(alone))
    packed = next(iter(_load(folder)))
    logprobs, logits = (np.asarray(x) for x in read(packed))
    compared = 0
    assert packed.segment_ids.max() > 1  # there are neighbours
    for b in range(len(packed.tokens)):
        segments, step_ids = packed.segment_ids[b], packed.step_ids[b]
        for segment in range(1, int(segments.max()) + 1):
            where = np.flatnonzero(segments == segment)
            k = _number(packed.tokens[b][where])
            scored = step_ids[where] >= 0
            np.testing.assert_allclose(
                logprobs[b, where][scored],
                alone_logprobs[k, : len(where)][scored],
                atol=1e-4,
            )
            first, last = step_ids[where][scored].min(), step_ids[where].max()
            np.testing.assert_allclose(
                logits[b, first : last + 1],
                alone_logits[k, : last - first + 1],
                atol=1e-4,
            )
            assert (
                packed.labels[b, first : last + 1].tolist()
                == alone.labels[k, : last - first + 1].tolist()
            )
            compared += 1
    assert compared >= 4


def test_packing_fills_rows_of_gsm8k(shared_data, tmp_path):
    """More than 95 % of the positions hold a token, here on a part of it."""
    problems = read_problems(str(shared_data / "gsm8k/test.jsonl"), "gsm8k")[:300]
    tokenizer = train_bpe((t for p in problems for t in (p.question, *p.steps)), 1024)
    builder = StepBuilder(tokenizer, None, (512,))
    rows = [builder.solution(p.question, p.steps) for p in problems]
    kept = [PreparedRow(row, "", "gsm8k") for row in rows if len(row) <= 512]
    folder = tmp_path / "prepared"
    prepared.write_prepared(
        folder,
        {"train": kept},
        lambda: {"builder": prepared.builder_settings(builder)},
    )
    batches = list(
        load_batches(
            folder, "train", builder, batch_size=1, length=512, seed=0, epochs=1
        )
    )
    assert useful_share(batches) > 0.95
    used = sum(int((batch.segment_ids > 0).sum()) for batch in batches)
    assert used == sum(len(item.row) for item in kept)
