"""Records: whatever a verifier is called, nothing is lost or taken apart."""

import json
import math

from aprm_jax.evals.intervals import Interval
from aprm_jax.evals.records import (
    Record,
    Results,
    by_name,
    from_text,
    records,
    to_text,
)

NAME = "../runs/v1.2/aprm"  # a model of another run, dots and all


def some() -> list[Record]:
    return [
        *records("steps", "test", NAME, {"auc": Interval(0.75, 0.5, 0.875)}),
        *records("kinds", "test", NAME, {"auc": 0.5}, part="sign.error"),
        *records("solver", "v1.2", "", {"greedy": math.nan}),
    ]


def test_what_is_written_is_read_again():
    text = to_text(some(), {"seconds": {"aprm": 1.5}})
    assert json.loads(text)["seconds"] == {"aprm": 1.5}
    assert sum("{" in line for line in text.splitlines()) == 1 + 1 + 3  # a line each
    assert repr(from_text(text)) == repr(some())


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
