"""The replay buffer: a ring, bounded, never changed in place."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny_game

from aprm_jax.game.replay import ReplayBuffer

BUILDER = tiny_game.builder(line_stride=16)


def _row(number: int, label: float = 0.0):
    return BUILDER.step("1 + 2 + 3", (), " ".join(str(number)), label)


def _steps(buffer: ReplayBuffer) -> list[str]:
    rows = buffer.sample(np.random.default_rng(0), 99)
    return sorted(BUILDER.decode(row.tokens[row.step_ids >= 0]) for row in rows)


def test_rows_survive_the_round_trip():
    """Positions as well, which strided lines make more than a count."""
    rows = [_row(7, 0.0), BUILDER.step("( 1 + 2 ) * 3", (), "3 * 3", 1.0), _row(12345)]
    assert any(np.any(np.diff(row.positions) > 1) for row in rows)
    buffer = ReplayBuffer.empty(4, 40).add(rows)
    found = buffer.sample(np.random.default_rng(1), 3)
    assert buffer.size == len(found) == 3
    by_ids = {row.tokens.tobytes(): row for row in found}
    for row in rows:
        jax.tree.map(
            np.testing.assert_array_equal,
            vars(by_ids[row.tokens.tobytes()]),
            vars(row),
        )
        assert vars(row).keys() == vars(found[0]).keys()
        assert row.ends is None is found[0].ends  # no row of the game branches
        arrays = {name: v for name, v in vars(row).items() if v is not None}
        for name, value in arrays.items():
            assert getattr(found[0], name).dtype == value.dtype, name


def test_what_follows_a_step_in_its_row_stays_outside_of_it():
    """As with layouts whose chat template goes on behind the token that is read."""
    row = _row(7)
    behind = np.concatenate([row.step_ids[:-1], [-1]]).astype(np.int32)
    row = dataclasses.replace(row, step_ids=behind)
    assert (behind >= 0).any() and behind[-1] == -1
    [found] = ReplayBuffer.empty(2, 40).add([row]).sample(np.random.default_rng(0), 1)
    np.testing.assert_array_equal(found.step_ids, behind)


def test_the_oldest_rows_go_first():
    buffer = ReplayBuffer.empty(4, 40)
    for number in range(6):
        buffer = buffer.add([_row(number)])
        held = range(max(0, number - 3), number + 1)
        assert _steps(buffer) == [str(n) for n in held]
        assert buffer.size == len(held) and int(buffer.added) == number + 1
    # In one call the same, longer than the buffer included.
    at_once = ReplayBuffer.empty(4, 40).add([_row(n) for n in range(6)])
    assert _steps(at_once) == _steps(buffer) == ["2", "3", "4", "5"]
    np.testing.assert_array_equal(at_once.tokens, buffer.tokens)


def test_a_shorter_row_leaves_nothing_of_the_longer_one():
    buffer = ReplayBuffer.empty(1, 40).add([_row(12345)]).add([_row(6)])
    assert _steps(buffer) == ["6"]
    n = int(buffer.lengths[0])
    assert not buffer.tokens[0, n:].any()


def test_adding_and_sampling_leave_the_old_buffer_alone():
    old = ReplayBuffer.empty(3, 40).add([_row(1), _row(2)])
    before = jax.tree.map(np.copy, old)
    new = old.add([_row(3, 1.0), _row(4, 1.0)])
    row = new.sample(np.random.default_rng(0), 1)[0]
    row.tokens[:] = 0
    row.labels[:] = 9
    jax.tree.map(np.testing.assert_array_equal, old, before)
    assert _steps(old) == ["1", "2"] and _steps(new) == ["2", "3", "4"]
    assert new.labels.tolist() == [1.0, 0.0, 1.0]


def test_samples_are_distinct_uniform_and_given_by_the_generator():
    buffer = ReplayBuffer.empty(8, 40).add([_row(n) for n in range(5)])
    rng = np.random.default_rng(0)
    draws = [buffer.sample(rng, 2) for _ in range(500)]
    words = [[BUILDER.decode(r.tokens[r.step_ids >= 0]) for r in d] for d in draws]
    assert all(len(set(pair)) == 2 for pair in words)
    counts = [sum(str(n) in pair for pair in words) for n in range(5)]
    assert min(counts) > 150 and max(counts) < 250  # 200 +- 11 each
    assert _steps(buffer) == _steps(buffer) == ["0", "1", "2", "3", "4"]
    assert ReplayBuffer.empty(3, 40).sample(rng, 2) == []


def test_a_row_without_room_is_refused():
    with pytest.raises(ValueError, match="room for 5"):
        ReplayBuffer.empty(2, 5).add([_row(1)])
