"""Batches made ahead are those that would be made in time."""

from __future__ import annotations

import threading

import pytest

from aprm_jax.training.ahead import Ahead


def test_the_next_batch_is_made_while_this_one_is_used():
    made, second = [], threading.Event()

    def make(step: int) -> str:
        made.append(step)
        if step == 1:
            second.set()
        return f"batch {step}"

    ahead = Ahead(make, last=3, host_idle=True)
    assert ahead(0) == "batch 0"
    assert second.wait(60)  # nobody has asked for it
    assert [ahead(1), ahead(2)] == ["batch 1", "batch 2"]
    assert made == [0, 1, 2]  # each once, and none behind the last


def test_a_step_that_was_not_foreseen_is_made_on_the_spot():
    ahead = Ahead(lambda step: step, last=100, host_idle=True)
    assert [ahead(step) for step in (4, 5, 50, 6, 7)] == [4, 5, 50, 6, 7]


def test_an_error_shows_at_its_own_step():
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("row 7")
        return step

    ahead = Ahead(make, last=9, host_idle=True)
    assert ahead(0) == 0
    with pytest.raises(ValueError, match="row 7"):
        ahead(1)


def test_nothing_is_made_ahead_where_the_devices_are_the_cores():
    made = []
    ahead = Ahead(lambda step: made.append(step), last=9)  # tests run on a CPU
    ahead(3)
    ahead(4)
    assert made == [3, 4]
