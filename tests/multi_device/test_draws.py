"""A seed means the same problems, batches and draws, whatever the machine has."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def on_one(run_with_devices) -> dict:
    return json.loads(run_with_devices("draws.py", 1, n=1))


@pytest.mark.parametrize("devices", [2, 4])
def test_a_seed_means_the_same_on_any_number_of_devices(
    run_with_devices, on_one, devices
):
    found = json.loads(run_with_devices("draws.py", devices, n=devices))
    assert found == on_one


def test_samples_are_drawn_alike_on_a_mesh_of_their_own(run_with_devices):
    assert run_with_devices("sample_layout.py").split() == ["2"]
