"""What pressure does to a verifier: the peak, the fall, and who wins wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from aprm_jax.evals import pressure
from aprm_jax.evals.records import Results


def _curve(*means: float) -> list[np.ndarray]:
    """Accuracy of four problems with these means."""
    return [mean + np.array([0.1, -0.1, 0.0, 0.0]) for mean in means]


def test_peak_and_fall_are_of_the_curve():
    sizes = (8, 64, 512)
    curves = {"r": _curve(0.5, 0.7, 0.64), "s": _curve(0.5, 0.6, 0.7)}
    rows = {
        (name, f"min@{n}"): curve
        for name, of_sizes in curves.items()
        for n, curve in zip(sizes, of_sizes, strict=True)
    }
    found = Results(
        pressure.pressure_records("test", rows, ("r", "s"), ("min",), sizes, 200, "x")
    )
    fall = found.find(pressure.SET, "test", "r", "min.fall", "x")
    assert fall is not None and fall.value == pytest.approx(0.06)
    assert fall.low == pytest.approx(0.06) == fall.high  # the same for every problem
    assert found.value(pressure.SET, "test", "r", "min.peak", "x") == 64
    assert found.value(pressure.SET, "test", "s", "min.peak", "x") == 512
    assert found.value(pressure.SET, "test", "s", "min.fall", "x") == 0.0


def test_wrong_winners_are_the_first_of_the_best_that_are_wrong():
    none = -np.inf
    totals = np.array(
        [
            [-1.0, -0.5, -0.5],  # the second wins: wrong
            [-1.0, -0.5, -0.2],  # the third: right
            [none, none, none],  # nobody finished
            [none, -9.0, none],  # the only one
        ]
    )
    correct = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]], bool)
    assert pressure.wrong_winners(totals, correct) == [(0, 1), (3, 1)]


def test_winners_are_counted_by_kind():
    kinds = ["copied", "wrong_result", "copied", pressure.UNEXPLAINED]
    found = Results(pressure.winner_records("test", "r", kinds, 8))
    assert found.value(pressure.WINNERS, "test", "r", "wrong") == 0.5
    counts = {
        kind: found.value(pressure.WINNERS, "test", "r", "count", kind)
        for kind in found.parts(pressure.WINNERS, "test")
    }
    assert counts == {"copied": 2, "wrong_result": 1, pressure.UNEXPLAINED: 1}
    foreign = Results(pressure.winner_records("test", "r", kinds, 8, "other"))
    assert foreign.value(pressure.WINNERS, "test, other", "r", "wrong") == 0.5


def test_a_verifier_that_only_ever_rose_has_surely_not_fallen():
    curves = zip((2, 8), _curve(0.25, 0.5), strict=True)
    rows = {("r", f"min@{n}"): curve for n, curve in curves}
    found = pressure.pressure_records("test", rows, ["r"], ["min"], (2, 8), 200)
    fall = Results(found).find(pressure.SET, "test", "r", "min.fall")
    assert fall is not None and (fall.value, fall.low, fall.high) == (0.0, 0.0, 0.0)


def test_a_kind_that_others_were_fooled_by_is_counted_as_none():
    one = pressure.winner_records("test", "r", ["sign", "sign", "carry"], 8)
    other = pressure.winner_records("test", "s", ["carry"], 8)
    elsewhere = pressure.winner_records("longer", "s", ["copied"], 8)
    found = pressure.zero_counts(other, [*one, *other, *elsewhere])
    assert [(r.split, r.verifier, r.part, r.value) for r in found] == [
        ("test", "s", "sign", 0.0)
    ]
    assert not pressure.zero_counts(one, other)
