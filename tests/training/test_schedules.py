"""The learning rate: up from 0 in a line, down along a cosine to a tenth."""

from __future__ import annotations

import math

import pytest

from aprm_jax.training.schedules import warmup_cosine


def test_warm_up_and_cosine():
    schedule = warmup_cosine(2.0, 4, 24)
    for step in range(30):
        if step < 4:
            expected = 2.0 * step / 4
        else:
            share = 0.5 * (1 + math.cos(math.pi * min(step - 4, 20) / 20))
            expected = 0.2 + 1.8 * share
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-6)


def test_without_warm_up_the_first_rate_is_the_peak():
    rates = [float(warmup_cosine(2.0, 0, 10)(step)) for step in range(11)]
    assert rates[0] == pytest.approx(2.0) and rates[10] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_a_single_update_learns(warmup):
    assert float(warmup_cosine(2.0, warmup, 1)(0)) == pytest.approx(2.0)


@pytest.mark.parametrize("total", [2, 3, 5])
def test_a_warm_up_longer_than_the_run_still_ends_below_its_peak(total):
    rates = [float(warmup_cosine(1.0, 9, total)(step)) for step in range(total)]
    assert max(rates) > 0 and all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize(
    ("warmup", "total"), [(0, 0), (0, 1), (0, 10), (10, 5), (1, 1)]
)
def test_short_runs_have_a_finite_rate(warmup, total):
    schedule = warmup_cosine(1.0, warmup, total)
    rates = [float(schedule(step)) for step in range(max(warmup, total) + 3)]
    assert all(0.0 <= rate <= 1.0 for rate in rates)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
