"""A device to each core of a CPU, where batches allow."""

import os

import jax

from aprm_jax.config.groups import MeshConfig
from aprm_jax.training.mesh import make_mesh, split_cpu

os.environ["XLA_FLAGS"] = ""  # or what it says stands
os.sched_getaffinity = lambda pid: range(6)
asked = []
jax.config.update = lambda name, value: asked.append((name, value))
for sizes, cfg, count in (
    ((16, 64), MeshConfig(), 4),  # a power of two
    ((16, 6), MeshConfig(), 2),
    ((3,), MeshConfig(), 1),
    ((16,), MeshConfig(fsdp=2), 4),
    ((16,), MeshConfig(data=1), 1),
    ((16,), MeshConfig(data=3), 3),
    ((16,), MeshConfig(data=7), None),  # which `make_mesh` refuses
):
    asked.clear()
    split_cpu(cfg, sizes)
    wanted = [] if count is None else [("jax_num_cpu_devices", count)]
    assert asked == wanted, (sizes, cfg, asked)
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=5"
asked.clear()
split_cpu(MeshConfig(), (16,))
assert not asked
del jax.config.update
os.environ["XLA_FLAGS"] = ""
split_cpu(MeshConfig(), (16,))
assert make_mesh(MeshConfig()).shape["data"] == 4
