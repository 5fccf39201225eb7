"""Where activations live: rows over the axes of the batch, widths over tensor.

Left to itself the compiler may follow the parameters instead, which fsdp splits along
the model's width: every device then computes all rows, with a share of each, and adds
them up in every layer. Said once a block, it gathers a layer's weights instead.

Nothing is said where no mesh is active (`training.mesh.on_mesh`) or it has one device.
"""

from __future__ import annotations

import math

import jax
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")


def active_mesh() -> jax.sharding.AbstractMesh | None:
    """The mesh that a function is traced for; None where there is no more to say."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or mesh.size == 1 or not mesh.are_all_axes_auto:
        return None
    return mesh


def by_rows(x: jax.Array, *, split: int | None = None) -> jax.Array:
    """`x`, its axis 0 over data and fsdp and the axis `split` over tensor.

    An axis that its share of the mesh does not divide stays whole.
    """
    mesh = active_mesh()
    if mesh is None:
        return x
    axes: list[str | tuple[str, ...] | None] = [None] * x.ndim
    if x.shape[0] % math.prod(mesh.shape[axis] for axis in ROW_AXES) == 0:
        axes[0] = ROW_AXES
    if split is not None and x.shape[split] % mesh.shape["tensor"] == 0:
        axes[split] = "tensor"
    if not any(axes):
        return x
    return jax.lax.with_sharding_constraint(x, P(*axes))
