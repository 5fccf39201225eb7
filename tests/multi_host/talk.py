"""What two hosts do with each other's help, and what each sees of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import numpy as np

from aprm_jax.config.groups import MeshConfig
from aprm_jax.training import hosts
from aprm_jax.training.checkpoints import Checkpointer
from aprm_jax.training.host_links import HostsError
from aprm_jax.training.mesh import (
    make_mesh,
    on_this_host,
    param_shardings,
    shard_batch,
)

ROWS = np.arange(8, dtype=np.int32).reshape(4, 2)


def run(environment: dict[str, str], folder: str) -> None:
    os.environ.update(environment)
    jax.config.update("jax_num_cpu_devices", 2)
    seen: dict[str, object] = {}
    try:
        with hosts.joined():
            talk(seen, Path(folder))
    except HostsError as error:
        seen["error"] = str(error)
    index = environment["JAX_PROCESS_ID"]
    (Path(folder) / f"{index}.json").write_text(json.dumps(seen))


def talk(seen: dict[str, object], folder: Path) -> None:
    index = jax.process_index()
    seen["count"], seen["leader"] = hosts.count(), hosts.leader()
    seen["exchanged"] = hosts.exchange("numbers", {"mine": index})
    seen["decided"] = hosts.from_leader("a file", lambda: f"of {index}")
    any_host = hosts.AnyHost()
    seen["asked"] = [any_host(15 * (index == 1 and step == 1)) for step in range(4)]

    mesh = make_mesh(MeshConfig(data=2, fsdp=2))
    placed = shard_batch(mesh, {"rows": ROWS})["rows"]
    seen["here"] = [shard.data.tolist() for shard in placed.addressable_shards]
    seen["doubled"] = hosts.fetch(jax.jit(lambda x: 2 * x)(placed)).tolist()
    kernel = {"backbone": {"head": {"kernel": np.ones((4, 4), np.float32)}}}
    weights = hosts.place(kernel, param_shardings(mesh, kernel))
    again(folder / "together", {"weights": weights, "rows": ROWS, "step": 7})
    if hosts.leader():
        with hosts.alone():
            mesh = make_mesh(on_this_host(MeshConfig(data=1, fsdp=4)))
            seen["alone"] = [hosts.count(), *mesh.devices.shape]
            placed = shard_batch(mesh, ROWS)
            again(folder / "alone", {"rows": placed, "step": 3})
    hosts.barrier("alone")
    hosts.barrier(f"host {index} goes its own way")


def again(folder: Path, tree: dict) -> None:
    """Saves and restores; nothing but the leader's own files is in the folder."""
    checkpointer = Checkpointer(folder, keep_last=1)
    for step in (1, 2):
        checkpointer.save(step, tree)
    found = checkpointer.restore(2, jax.tree.map(lambda x: 0 * x, tree))
    same = jax.tree.map(np.array_equal, hosts.fetch(found), hosts.fetch(tree))
    assert all(jax.tree.leaves(same)), found
    checkpointer.close()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["2"], names
