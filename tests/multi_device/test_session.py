"""A sampling session over several devices: parents and children anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def on_one(run_with_devices) -> dict:
    return json.loads(run_with_devices("session.py", 1, 1, 1, n=1))


@pytest.mark.parametrize("mesh", [(4, 1, 1), (2, 2, 1), (2, 1, 2)])
def test_a_session_is_the_same_on_any_mesh(run_with_devices, on_one, mesh):
    found = json.loads(run_with_devices("session.py", *mesh, n=4))
    assert found["ids"] == on_one["ids"]
    assert found["merged"][0] == on_one["merged"][0]
    np.testing.assert_allclose(found["merged"][1], on_one["merged"][1], atol=1e-4)
    for mine, one in zip(found["found"], on_one["found"], strict=True):
        np.testing.assert_allclose(mine[0], one[0], atol=1e-4)
        for scores, expected in zip(mine[1], one[1], strict=True):
            np.testing.assert_allclose(scores, expected, atol=1e-4)
