"""One host, and what is said of several that cannot meet; tests/multi_host has them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from aprm_jax.config.groups import MeshConfig
from aprm_jax.training import hosts
from aprm_jax.training.host_links import HostsError
from aprm_jax.training.mesh import make_mesh

NAMES = (hosts.COORDINATOR, hosts.COUNT, hosts.INDEX)


@pytest.fixture
def environment(monkeypatch):
    """environment(**values): these, and nothing else that names hosts."""

    def set_to(**values):
        others = ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES")
        for name in (*NAMES, *others):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("10.0.0.1:1234", "", "0"), "JAX_NUM_PROCESSES=''"),
        (("10.0.0.1:1234", "two", "0"), "JAX_NUM_PROCESSES='two'"),
        (("10.0.0.1:1234", "2", ""), "JAX_PROCESS_ID=''"),
        (("", "2", "1"), "JAX_COORDINATOR_ADDRESS=''"),
        (("10.0.0.1:1234", "2", "2"), "must be less than JAX_NUM_PROCESSES=2"),
    ],
)
def test_half_a_description_of_the_hosts_is_told(environment, values, said):
    environment(**dict(zip(NAMES, values, strict=True)))
    with pytest.raises(HostsError, match=said), hosts.joined():
        pass


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, False),
        (dict(zip(NAMES, ("10.0.0.1:1234", "1", "0"), strict=True)), None),
    ],
)
def test_one_host_starts_nothing(environment, values, wanted):
    environment(**values)
    with hosts.joined(wanted):
        assert not jax.distributed.is_initialized()
        assert hosts.count() == 1 and hosts.leader()


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"])
def test_several_are_looked_for_where_the_environment_has_them(environment, name):
    environment(**{name: "2" if name.startswith("SLURM") else "a,b"})
    assert hosts._place(None) == {}


def test_with_one_host_all_of_it_is_the_identity():
    assert hosts.exchange("here", [1, "a", None]) == [[1, "a", None]]
    assert hosts.from_leader("here", lambda: {"step": 3}) == {"step": 3}
    hosts.barrier("here")
    hosts.check_same("the config", "a")
    any_host = hosts.AnyHost()
    assert [any_host(0), any_host(15), any_host(0)] == [0, 15, 0]
    mesh = make_mesh(MeshConfig())
    tree = {"rows": np.arange(8.0, dtype=np.float32), "step": 3}
    placed = hosts.place(tree["rows"], NamedSharding(mesh, P("data")))
    assert placed.sharding.spec == P("data")
    found = hosts.fetch({"rows": placed, "step": 3})
    np.testing.assert_array_equal(found["rows"], tree["rows"])
    assert found["step"] == 3
