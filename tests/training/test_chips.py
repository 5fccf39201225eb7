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
    ("name", "links"),
    [
        ("v5e:1x1", 0),
        ("v5e:2x4", 2),
        ("v5e:4x4", 2),
        ("v6e:8x8", 2),
        ("v5e:8x16", 3),
        ("v5e:16x16", 4),
        ("v5p:2x2x1", 2),
        ("v5p:2x2x4", 3),
        ("v5p:2x4x4", 3),
        ("v5p:4x4x4", 6),
        ("v5p:4x4x8", 6),
        ("gpu:h100x8", 1),
    ],
)
def test_links_of_a_chip_in_the_corner(name, links):
    assert Topology.of(name).links == links


# From the makers' pages, both ways and of all links: half of it is one way.
@pytest.mark.parametrize(
    ("name", "both"), [("v5e:16x16", 4e11), ("v6e:16x16", 8e11), ("v5p:8x8x8", 1.2e12)]
)
def test_all_links_of_a_torus_are_the_makers_figure(name, both):
    assert Topology.of(name).speed(range(4)) == both / 2


def test_a_slice_without_wrap_around_sends_with_the_links_of_its_corner():
    assert Topology.of("v5e:8x8").speed(range(64)) == 2 * 5e10


def test_gpus_on_several_nodes_are_bound_by_their_network_cards():
    speed = Topology.of("gpu:h100x16").speed
    assert speed(range(8)) == 4.5e11
    assert speed(range(16)) == 8 * 5e10
    assert speed((0, 4, 8, 12)) == 2 * 5e10
    assert speed((3, 11)) == 5e10
    assert Topology.of("gpu:a100x16").speed(range(16)) == 8 * 2.5e10


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


def test_a_run_has_the_share_of_a_gpu_that_jax_hands_out(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    gpu, tpu = Topology.of("gpu:h100x1"), Topology.of("v5e:4x4")
    assert (gpu.room, tpu.room) == (0.75 * 80e9, tpu.chip.memory)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    assert (gpu.room, tpu.room) == (0.93 * 80e9, tpu.chip.memory)


@pytest.mark.parametrize("said", ["most", "0", "-1", "1.5", "nan"])
def test_what_is_no_share_is_refused(monkeypatch, said):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", said)
    with pytest.raises(TopologyError, match="XLA_PYTHON_CLIENT_MEM_FRACTION="):
        _ = Topology.of("gpu:h100x1").share
