"""Records: whatever a verifier is called, nothing is lost or taken apart."""

import math

import pytest

from aprm_jax.evals.intervals import Interval
from aprm_jax.evals.records import (
    Record,
    Results,
    by_name,
    metric_records,
    read_results,
    write_results,
)
from aprm_jax.files import DamagedFileError

NAME = "../runs/v1.2/aprm"  # a model of another run, dots and all


def some() -> list[Record]:
    return [
        *metric_records("steps", "test", NAME, {"auc": Interval(0.75, 0.5, 0.875)}),
        *metric_records("kinds", "test", NAME, {"auc": 0.5}, part="sign.error"),
        *metric_records("solver", "v1.2", "", {"greedy": math.nan}),
    ]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, some(), {"seconds": {"aprm": 1.5}})
    found, more = read_results(path, "")
    assert (repr(found), more) == (repr(some()), {"seconds": {"aprm": 1.5}})
    lines = path.read_text().splitlines()
    assert sum("{" in line for line in lines) == 1 + 1 + 3  # a line each


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.75", "0.74"),
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: '{"records": []}',
    ],
)
def test_results_that_are_not_what_was_written_are_refused(tmp_path, damage):
    path = tmp_path / "results.json"
    write_results(path, some())
    path.write_text(damage(path.read_text()))
    with pytest.raises(DamagedFileError, match=r"results\.json .*Make it anew\."):
        read_results(path, "Make it anew.")


def test_results_are_found_by_their_fields():
    results = Results(some())
    found = results.find("steps", "test", NAME, "auc")
    assert found is not None and (found.low, found.high) == (0.5, 0.875)
    assert results.value("kinds", "test", NAME, "auc", "sign.error") == 0.5
    assert results.find("steps", "test", "aprm", "auc") is None
    assert math.isnan(results.value("kinds", "test", NAME, "auc"))
    assert results.parts("kinds", "test") == ["sign.error"]
    assert results.splits("solver") == ["v1.2"]


def test_the_flat_view_is_for_people():
    assert by_name(some()) == {
        f"steps.test.{NAME}.auc": 0.75,
        f"steps.test.{NAME}.auc.low": 0.5,
        f"steps.test.{NAME}.auc.high": 0.875,
        f"kinds.test.{NAME}.sign.error.auc": 0.5,
    }
