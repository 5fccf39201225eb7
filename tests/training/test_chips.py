"""Topologies that can be planned for, and what is said of those that cannot."""

from __future__ import annotations

import importlib.util

import pytest

from aprm_jax.training.chips import CHIPS, Topology, TopologyError


@pytest.mark.parametrize(
    ("name", "kind", "size", "tpu"),
    [
        ("v5e:8x8", "v5e", 64, True),
        ("v6e:4x4", "v6e", 16, True),
        ("v5p:2x2x4", "v5p", 16, True),
        ("gpu:h100x8", "h100", 8, False),
        ("gpu:a100x1", "a100", 1, False),
    ],
)
def test_names(name, kind, size, tpu):
    topology = Topology.of(name)
    assert (topology.kind, topology.size, topology.is_tpu) == (kind, size, tpu)
    assert topology.chip is CHIPS[kind]


@pytest.mark.parametrize(
    "name",
    ["", "v4:2x2", "v5e:8", "v5e:8x", "v5e:2x2x2", "v5p:4x4", "v5e:0x4", "gpu:h100",
     "gpu:h100x0", "gpu:b17x8", "gpu:h100x100000", "v5e:8x8 ", "V5E:8x8"],
)  # fmt: skip
def test_other_names_are_told_what_there_is(name):
    with pytest.raises(TopologyError, match=r"plan.topology=.*v5e:4x4.*gpu:h100x8"):
        Topology.of(name)


def test_without_libtpu_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TopologyError, match=r"libtpu.*pip install 'aprm_jax\[tpu\]'"):
        Topology.of("v5e:8x8").prepare()
