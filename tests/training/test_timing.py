import itertools

import jax.numpy as jnp
import pytest

from aprm_jax.training import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by one second whenever it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))


def test_phases_add_up_and_pop_resets(clock):
    timer = timing.PhaseTimer()
    for _ in range(3):
        with timer("sample"):
            pass
    with timer("update") as phase:
        phase.wait({"x": jnp.ones(3), "host": 1})
    assert timer.pop() == {"time/sample": 3.0, "time/update": 1.0}
    assert timer.pop() == {}


def test_an_inner_phase_is_taken_off_the_outer(clock):
    timer = timing.PhaseTimer()
    with timer("outer"):  # starts at 0, ends at 5
        with timer("inner"):  # 1 to 2
            pass
        with timer("inner"):  # 3 to 4
            pass
    assert timer.pop() == {"time/outer": 3.0, "time/inner": 2.0}


def test_a_phase_that_fails_is_counted(clock):
    timer = timing.PhaseTimer()
    with pytest.raises(KeyError), timer("sample"):
        raise KeyError
    with timer("verify"):
        pass
    assert timer.pop() == {"time/sample": 1.0, "time/verify": 1.0}
