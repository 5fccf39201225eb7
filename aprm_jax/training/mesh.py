"""The device mesh (data, fsdp, tensor) and where each array lives on it."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aprm_jax.config.errors import UserError
from aprm_jax.config.groups import MeshConfig
from aprm_jax.models.placement import AXES, ROW_AXES
from aprm_jax.training import hosts

# Each holds a copy of the model, and fewer rows keep it less busy.
MOST_CPU_DEVICES = 8

# Path suffix → how the *last* axes of the array are split; axes before them (the stack
# of layers) are not. The first match wins; what nothing matches is replicated.
# Kernels: columns over tensor into a block, rows over tensor out of it (Megatron,
# https://arxiv.org/abs/1909.08053), the other axis over fsdp.
RULES: tuple[tuple[str, P], ...] = (
    (r"embed/embedding$", P("tensor", "fsdp")),  # [V, D]
    # Inside a backbone only: a PRM's own head is small, and replicated.
    # (A bare backbone: `backbone_shardings`.)
    (r"backbone/head/kernel$", P("fsdp", "tensor")),  # [D, V]
    (r"attention/(q|k|v)/kernel$", P("fsdp", "tensor", None)),  # [L, D, N, H]
    (r"attention/o/kernel$", P("tensor", None, "fsdp")),  # [L, N, H, D]
    (r"mlp/(gate|up)/kernel$", P("fsdp", "tensor")),  # [L, D, F]
    (r"mlp/down/kernel$", P("tensor", "fsdp")),  # [L, F, D]
)


class MeshError(UserError, ValueError):
    """The mesh does not fit the devices, or a batch does not fit the mesh."""


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices`, axes data, fsdp, tensor.

    Args:
      cfg: devices along each axis; one of them may be -1, which takes the rest.
      devices: by default all of them.

    Raises:
      MeshError: the product of the axes is not the number of devices.
    """
    devices = list(hosts.devices() if devices is None else devices)
    sizes = [getattr(cfg, axis) for axis in AXES]
    wanted = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise MeshError(
            f"mesh: {wanted}. Each axis is at least 1; one may be -1 (the rest)."
        )
    fixed = math.prod(size for size in sizes if size != -1)
    sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        kind = devices[0].platform if devices else "no"
        raise MeshError(
            f"mesh: {wanted} does not match the {len(devices)} {kind} device(s) here: "
            f"the product of data, fsdp and tensor must be {len(devices)}. "
            "Set mesh.data=-1 to give the data axis what the others leave."
        )
    return jax.make_mesh(
        tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def to_sample(mesh: Mesh, tensor: int) -> Mesh:
    """The same devices for drawing samples, `tensor` of them to a copy of the weights.

    Raises:
      MeshError: it does not divide them.
    """
    if tensor == 0:
        return mesh
    if mesh.size % tensor:
        raise MeshError(
            f"mesh.sample_tensor={tensor} does not divide the {mesh.size} devices"
        )
    devices = list(mesh.devices.flat)
    return make_mesh(MeshConfig(mesh.size // tensor, 1, tensor), devices)


def on_this_host(cfg: MeshConfig) -> MeshConfig:
    """As much of a mesh over several hosts as this one's devices have room for."""
    left = len(jax.local_devices())
    sizes = {}
    for axis in ("tensor", "fsdp"):
        wanted = getattr(cfg, axis)
        sizes[axis] = math.gcd(wanted, left) if wanted > 0 else 1
        left //= sizes[axis]
    return MeshConfig(data=-1, **sizes)


def split_cpu(cfg: MeshConfig, sizes: Sequence[int]) -> int:
    """Makes a device of each core, so that each computes its own rows of a batch.

    One device shares out every single product over the cores, which for small models
    costs more than adding up gradients once a step. To be called before JAX has any
    device; what the environment says of CPU devices stands, and so does a mesh that
    asks for fewer. Accelerators are left as they are. Of several hosts each makes its
    share of the devices.

    Args:
      cfg: the mesh that is wanted.
      sizes: rows of the batches; the number of devices divides all of them.

    Returns:
      The number of CPU devices asked for: what `cfg` fixes times a power of two.
    """
    settings: Any = jax.config  # its options are attributes that no stub lists
    chosen = settings.jax_num_cpu_devices
    if chosen > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return chosen
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    axes = [getattr(cfg, axis) for axis in AXES]
    fixed = -(-math.prod(size for size in axes if size > 0) // hosts.count())
    if fixed > cores:
        return chosen  # `make_mesh` says so
    count = fixed
    if -1 in axes:
        while 2 * count <= min(cores, MOST_CPU_DEVICES) and not any(
            size % (2 * count * hosts.count()) for size in sizes
        ):
            count *= 2
    jax.config.update("jax_num_cpu_devices", count)
    return count


def param_shardings(mesh: Mesh, tree: Any) -> Any:
    """A NamedSharding for each leaf, from the table above.

    Matches on the end of the path, so that parameters, the trees around them and the
    optimiser's moments all get the same answer. An axis that its mesh axis does not
    divide is replicated: models of any size run on any mesh.

    Args:
      mesh: from `make_mesh`.
      tree: arrays, ShapeDtypeStructs or scalars.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(mesh, path, np.shape(leaf))), tree
    )


def backbone_shardings(mesh: Mesh, params: Any) -> Any:
    """The same of a backbone by itself, as the sampler has it: it lies as in a model.

    Its language head, by its path alone, would be taken for a PRM's.
    """
    return param_shardings(mesh, {"backbone": params})["backbone"]


def on_mesh(mesh: Mesh | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, in which decoders place their activations: see `models.placement`.

    For what is compiled: the mesh must be that of its arguments. Without a mesh, or on
    one device, it is `function` itself.
    """
    if mesh is None or mesh.size == 1:
        return function

    @functools.wraps(function)
    def placed(*args: Any, **kwargs: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return placed


def pin(mesh: Mesh | None, tree: Any) -> Any:
    """Inside a compiled update: keeps a state where the table puts it.

    Left alone, the compiler moves small arrays as it likes, and the next step, which
    meets them elsewhere, compiles again. Without a mesh nothing is pinned.
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, param_shardings(mesh, tree))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 over data and fsdp: every device group sees its own rows."""
    return NamedSharding(mesh, P(ROW_AXES))


def batch_shards(mesh: Mesh) -> int:
    """The number by which every batch must be divisible."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Puts the arrays of a batch on the mesh, rows split over data and fsdp.

    Of several hosts each has all of the batch, and puts the rows of its devices.

    Raises:
      MeshError: the rows cannot be dealt out evenly.
    """
    shards = batch_shards(mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        rows = np.shape(leaf)[:1]
        if not rows or rows[0] % shards:
            raise MeshError(
                f"batch{jax.tree_util.keystr(path)} has shape {np.shape(leaf)}: its "
                f"rows must be a multiple of data × fsdp = {shards}."
            )
    return hosts.place(batch, batch_sharding(mesh))


def mesh_of(params: Any) -> Any:
    """The mesh that parameters are on; None where they are on none of ours."""
    sharding = getattr(next(iter(jax.tree.leaves(params)), None), "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.axis_names != AXES:
        return None
    return sharding.mesh


def shard_beside(params: Any, batch: Any) -> Any:
    """A batch, its rows split over the mesh that `params` are on.

    Left as it is, every device would compute all rows. Nothing is done where the
    parameters are on no mesh, or the rows cannot be dealt out evenly.
    """
    mesh = mesh_of(params)
    if mesh is None or any(
        np.shape(leaf)[0] % batch_shards(mesh) for leaf in jax.tree.leaves(batch)
    ):
        return batch
    return shard_batch(mesh, batch)


def init_sharded(mesh: Mesh, init_fn: Callable[..., Any], *args: Any) -> Any:
    """init_fn(*args), each array made where it will live, never whole on one device."""
    shapes = jax.eval_shape(init_fn, *args)
    return jax.jit(init_fn, out_shardings=param_shardings(mesh, shapes))(*args)


def _spec(mesh: Mesh, path: Sequence[Any], shape: tuple[int, ...]) -> P:
    name = path_name(path)
    for pattern, spec in RULES:
        if re.search(rf"(^|/){pattern}", name) and len(shape) >= len(spec):
            leading = len(shape) - len(spec)
            axes = (None,) * leading + tuple(spec)
            return P(
                *(
                    axis if axis is not None and size % mesh.shape[axis] == 0 else None
                    for axis, size in zip(axes, shape, strict=True)
                )
            )
    return P()


def path_name(path: Sequence[Any]) -> str:
    """A pytree path as "a/b/0/c"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")
