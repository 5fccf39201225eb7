"""Many hosts as one run: who leads, what they agree on, and arrays across them.

Each host is a process that runs the same command. All of them make the same batches
from the same seed and hand their devices the rows that are theirs, so no data travel.
The first, the leader, writes the files, and decides what a file system or a clock
would tell each of them differently. With one host all of this comes to nothing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aprm_jax.training.host_links import HostsError, Link

COORDINATOR, COUNT, INDEX = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
_link: Link | None = None
_alone = False


@contextlib.contextmanager
def joined(wanted: bool | None = None) -> Iterator[None]:
    """Joins the other hosts of the run for the time of the block, if there are any.

    To be called before JAX has any device. If the block raises on one host, all end
    within a minute, with its message; if a host is lost, they do too.

    Args:
      wanted: True asks JAX to find the others (SLURM, TPU, Kubernetes, Open MPI), False
        looks for none. By default they are looked for where the environment names a
        coordinator, or has several tasks of one SLURM step or several TPU workers.

    Raises:
      HostsError: the others cannot be found or reached, or one was lost; the message
        says which and what to do.
    """
    global _link
    place = _place(wanted)
    if place is None:
        yield
        return
    # Or JAX takes SIGTERM for itself; a stop is agreed on by the training loop.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _link = Link.to_others(place)
    try:
        with _link.guarded():
            yield
            barrier("the end")
    finally:
        _link = None


def _place(wanted: bool | None) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is told; None for a run on one host."""
    if wanted is False:
        return None
    known = {name: os.environ.get(name, "") for name in (COORDINATOR, COUNT, INDEX)}
    if any(known.values()):
        missing = [name for name, value in known.items() if not value]
        numbers = [known[COUNT], known[INDEX]]
        if missing or not all(number.isdecimal() for number in numbers):
            raise HostsError(
                f"{COORDINATOR}=HOST:PORT of the first host, {COUNT} and {INDEX} (0 "
                "for the first) go together, the last two as numbers; there are "
                + ", ".join(f"{name}={value!r}" for name, value in known.items())
            )
        count, index = map(int, numbers)
        if not index < count:
            raise HostsError(f"{INDEX}={index} must be less than {COUNT}={count}")
        place = {
            "coordinator_address": known[COORDINATOR],
            "num_processes": count,
            "process_id": index,
            "cluster_detection_method": "deactivate",  # all of it is said
        }
        return place if count > 1 else None
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return {} if wanted or tasks != "1" or len(workers) > 1 else None


def count() -> int:
    """The number of hosts that compute together now."""
    return _link.count if _link is not None and not _alone else 1


def index() -> int:
    """The number of this host among those that compute together; the leader's is 0."""
    return _link.index if _link is not None and not _alone else 0


def leader() -> bool:
    """Whether this host writes files and decides; true where there is one host."""
    return _link is None or _link.index == 0


def devices() -> list[jax.Device]:
    """Those of all hosts that compute together."""
    return jax.local_devices() if count() == 1 else jax.devices()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While it lasts this host computes by itself, on its own devices."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def barrier(what: str, patience: float | None = None) -> None:
    """Waits until all hosts are here.

    Args:
      what: names the place, the same on all.
      patience: seconds; None for as long as all are alive.

    Raises:
      HostsError: they are elsewhere, or not here in time.
    """
    exchange(what, None, patience)


def exchange(what: str, value: Any, patience: float | None = None) -> list[Any]:
    """What each host gives, by host; JSON values.

    Args:
      what: names the place, the same on all.
      value: this host's.
      patience: see `barrier`.

    Raises:
      HostsError: see `barrier`.
    """
    if count() == 1:
        return [json.loads(json.dumps(value))]
    assert _link is not None
    return _link.exchange(what, value, patience)


def from_leader(what: str, decide: Callable[[], Any]) -> Any:
    """What the leader decides, a JSON value; the others wait for it.

    Args:
      what: names the place, the same on all.
      decide: called by the leader alone.
    """
    if count() == 1:
        return json.loads(json.dumps(decide()))
    assert _link is not None
    return _link.from_leader(what, decide)


def check_same(what: str, value: str) -> None:
    """All hosts were given the same.

    Raises:
      HostsError: they were not.
    """
    given = exchange(what, value)
    if len(set(given)) > 1:
        each = "; ".join(f"host {i}: {one}" for i, one in enumerate(given))
        raise HostsError(f"the hosts differ in {what}: {each}. Give all the same")


def place(tree: Any, shardings: Any) -> Any:
    """`jax.device_put` of what every host has the whole of, or that is placed already.

    Args:
      tree: arrays, the same on all hosts; each puts what its devices hold.
      shardings: of the leaves, or one of all; None leaves them where they are.
    """
    if count() == 1 or shardings is None:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda leaf: _placed(leaf, shardings), tree)
    return jax.tree.map(_placed, tree, shardings)


def _placed(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        return jax.jit(_same, out_shardings=sharding)(leaf)
    host = np.asarray(leaf)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _same(x: jax.Array) -> jax.Array:
    return x


def fetch(tree: Any) -> Any:
    """`jax.device_get` of arrays whose parts may be on other hosts; call it on all."""
    if count() == 1:
        return jax.device_get(tree)

    def whole(leaf: Any) -> Any:
        here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        if here or leaf.is_fully_replicated:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))


class AnyHost:
    """What any host asks for, known to all at the same step: the one after.

    One step late, so that no host waits for the others' devices.
    """

    def __init__(self) -> None:
        self._asked: jax.Array | None = None

    def __call__(self, number: int) -> int:
        """The greatest number of those that hosts gave in the step before.

        With one host it is `number`.
        """
        if count() == 1:
            return number
        before, sharding = self._asked, _over_all_devices()
        one = np.full(1, number, np.int32)
        shape = (sharding.mesh.size,)
        each = jax.make_array_from_callback(shape, sharding, lambda index: one)
        self._asked = _greatest(sharding.mesh)(each)
        return 0 if before is None else int(before)


@functools.cache
def _over_all_devices() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()), ("all",)), P("all"))


@functools.cache
def _greatest(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jax.numpy.max, out_shardings=NamedSharding(mesh, P()))
