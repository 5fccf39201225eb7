"""What a person reads while a job trains."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.config import jobs
from aprm_jax.training.console import Console, duration, ordinary, shares
from aprm_jax.training.metrics import MeanMetric


def lines(capsys, steps, shown=(), log_every=2, num_steps=None):
    """What is printed of (metrics, times) a step."""
    screen = Console(
        "game", 0, num_steps or len(steps), log_every=log_every, shown=shown
    )
    for index, (metrics, times) in enumerate(steps, 1):
        screen.update(index, metrics, times)
    screen.close()
    return capsys.readouterr().out.splitlines()


def test_the_metrics_that_are_asked_for_stand_in_their_order(capsys):
    step = {"a": 1.0, "z": jnp.float32(0.25), "m": np.float32(3), "nonfinite": 0}
    shown = (("fool rate", "z"), ("loss", "m"), ("not there", "q"))
    [line] = lines(capsys, [(step, {"time/step": 1.0})] * 2, shown)
    assert "| fool rate 0.25  loss 3 |" in line


def test_a_line_has_means_of_the_steps_since_the_last(capsys):
    values = [1.0, 3.0, float("nan"), 7.0]
    weights = [(1, 2), (5, 8), (0, 0), (1, 1)]
    steps = [
        (
            {"x": x, "mean": MeanMetric(jnp.float32(t), jnp.float32(w))},
            {"time/step": 1.0},
        )
        for x, (t, w) in zip(values, weights, strict=True)
    ]
    first, second = lines(capsys, steps)
    assert "x 2  mean 0.6" in first  # 6 of 10, no mean of means
    assert "x 7  mean 1" in second  # what was not counted counts nothing


def test_a_rate_is_a_sum_over_the_time_that_it_took(capsys):
    steps = [({"tokens": n}, {"time/step": 2.0}) for n in (100, 300)]
    [line] = lines(capsys, steps, (("tokens/s", "tokens"),))
    assert "tokens/s 100" in line


def test_the_time_left_is_that_of_steps_that_compile_nothing(capsys):
    times = [100.0, 1.0, 1.0, 60.0, 1.0, 1.0]  # another shape compiles later
    steps = [({}, {"time/step": t}) for t in times]
    last = lines(capsys, steps, log_every=6, num_steps=106)[-1]
    assert last.endswith("| 1m40s left")
    assert ordinary([5.0]) == 5.0
    assert ordinary([9.0, 1.0, 2.0, 3.0]) == 2.0


@pytest.mark.parametrize("seed", range(20))
def test_shares_of_a_steps_time_add_up_to_a_hundred(seed):
    rng = np.random.default_rng(seed)
    names = ["sample", "verify", "score", "update", "data"][: rng.integers(1, 6)]
    times = {f"time/{name}": float(rng.exponential()) for name in names}
    times["time/step"] = sum(times.values()) * float(rng.choice([1.0, 1.1, 2.0]))
    found = shares(times)
    assert sum(found.values()) == 100
    for name in names:
        exact = 100 * times[f"time/{name}"] / times["time/step"]
        assert abs(found.get(name, 0) - exact) < 1


def test_time_outside_of_phases_is_told(capsys):
    [line] = lines(
        capsys, [({}, {"time/update": 0.5, "time/step": 2.0})] * 2, log_every=2
    )
    assert "2 s/step: update 25% rest 75%" in line
    assert shares({"time/step": 1.0}) == {}


def test_jobs_show_what_they_are_run_for():
    shown = {name: [metric for _, metric in job.shown] for name, job in jobs().items()}
    assert shown["sft"] == ["loss", "tokens"]
    assert "prm/loss" in shown["prm"] and "prm/accuracy_correct" in shown["prm"]
    assert shown["aprm"][0] == "game/fool_rate"
    assert {"generator/reward", "prm/reward", "prm/loss"} <= set(shown["aprm"])
    assert re.search("accuracy", " ".join(shown["aprm"]))


def test_no_label_stands_twice_in_a_line():
    for name, job in jobs().items():
        labels = [label for label, _ in job.shown]
        assert len(set(labels)) == len(labels), name


def test_durations_as_a_person_says_them():
    assert [duration(s) for s in (45.0, 192.0, 7500.0)] == ["45s", "3m12s", "2h05m"]


def test_what_is_shown_is_computed_on_the_host(capsys):
    """Or it would wait for the step that is running, and nothing would overlap."""
    mean = MeanMetric.of([1.0, 2.0, 6.0])
    seen = jax.device_get({"flag": jnp.ones(()), "mean": mean})
    screen = Console("toy", 0, 2, log_every=2)
    with jax.transfer_guard("disallow"):
        screen.update(1, seen | {"plain": 3}, {"time/step": 1.0})
        screen.update(2, seen | {"plain": 5.0}, {"time/step": 1.0})
    assert "flag 1  mean 3  plain 4 | 1 s/step" in capsys.readouterr().out
