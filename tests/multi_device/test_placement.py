"""Collectives of the updates on eight devices: of weights, none of the batch."""

from __future__ import annotations

import json

import pytest


def told(run, mesh, *steps, who="placed"):
    lines = run("placement.py", json.dumps(mesh), who, *steps).splitlines()
    assert len(lines) == len(steps)
    return [json.loads(line) for line in lines]


def test_fsdp_gathers_weights_and_no_activations(run_with_devices):
    sft, prm = told(run_with_devices, (1, 8, 1), "sft", "prm")
    for row in (sft, prm):
        assert row["weights"] and not row["rows"], row
    assert sft["head"] == 1, sft  # not once a chunk of columns


@pytest.mark.parametrize("tied", [0, 1])
def test_logprobs_are_read_alike_on_every_mesh(run_with_devices, tied):
    assert run_with_devices("token_logprobs.py", tied).split() == ["3", "meshes"]


def test_left_to_itself_the_compiler_moves_activations(run_with_devices):
    [row] = told(run_with_devices, (1, 8, 1), "prm", who="left")
    assert row["rows"], row


def test_tensor_parallel_activations_cross_that_axis_alone(run_with_devices):
    [row] = told(run_with_devices, (2, 2, 2), "prm")
    assert row["axes"] == ["tensor"], row
