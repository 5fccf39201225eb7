"""Collectives of the updates on eight devices: of weights, none of the batch."""

from __future__ import annotations

import json


def told(run, mesh, *steps, who="placed"):
    lines = run("placement.py", json.dumps(mesh), who, *steps).splitlines()
    assert len(lines) == len(steps)
    return [json.loads(line) for line in lines]


def test_fsdp_gathers_weights_and_no_activations(run_with_devices):
    for row in told(run_with_devices, (1, 8, 1), "sft", "prm"):
        assert row["weights"] and not row["rows"], row


def test_left_to_itself_the_compiler_moves_activations(run_with_devices):
    [row] = told(run_with_devices, (1, 8, 1), "prm", who="left")
    assert row["rows"], row


def test_tensor_parallel_activations_cross_that_axis_alone(run_with_devices):
    [row] = told(run_with_devices, (2, 2, 2), "prm")
    assert row["axes"] == ["tensor"], row
