"""When a policy has left what it learned, on curves made by hand."""

from __future__ import annotations

import importlib
import sys

import command
import pytest

from aprm_jax.config import read_config_file, validate

sys.path.insert(0, str(command.REPOSITORY / "benchmarks"))
table = importlib.import_module("rl")


def fall(*parts: tuple[float, int]) -> int | None:
    """Of a curve that holds each value for so many rounds."""
    return table.time_to_fall(
        {"oracle": [v for value, n in parts for v in [value] * n]}
    )


def test_a_fall_is_one_that_stays():
    assert fall((0.5, 20), (0.7, 20)) is None
    assert fall((0.7, 20), (0.5, 20), (0.7, 20)) is None  # it came back
    assert fall((0.7, 20), (0.66, 20)) is None  # less than five points
    # The mean of ten rounds is more than five points below from the third on.
    assert fall((0.5, 10), (0.7, 20), (0.5, 20)) == 33
    assert fall((0.9, 3), (0.5, 20)) == 12  # from 0.62, the first mean of ten


def test_rounds_without_a_sample_count_for_nothing():
    curve = [0.5] * 20 + [None] * 5 + [0.5] * 10
    assert table.time_to_fall({"oracle": curve}) is None
    assert table.smoothed(curve)[-1] == pytest.approx(0.5)
    assert table.time_to_fall({"oracle": [None] * 20}) is None


def test_the_turns_of_an_arm_are_those_that_go_on_from_each_other():
    path = command.REPOSITORY / "configs/rl_pav.py"
    config = validate(read_config_file(path, "runlocal"))
    assert table._turns(config, "rl_pav") == ["rl_pav"]
    first = "rl_pav_refreshed_1"
    for arm in ("rl_pav_refreshed", "rl_pav_restarted"):
        assert table._turns(config, f"{arm}_2") == [first, f"{arm}_2"]
