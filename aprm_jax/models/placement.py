"""Where activations live: rows over the axes of the batch, widths over tensor.

Left to itself the compiler may follow the parameters instead, which fsdp splits along
the model's width: every device then computes all rows, with a share of each, and adds
them up in every layer. Said once a block, it gathers a layer's weights instead.

Nothing is said where no mesh is active (`training.mesh.on_mesh`) or it has one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.sharding import PartitionSpec as P

Rows = TypeVar("Rows")
Whole = TypeVar("Whole")
Out = TypeVar("Out")

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")


def active_mesh() -> jax.sharding.AbstractMesh | None:
    """The mesh that a function is traced for; None where there is no more to say."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or mesh.size == 1 or not mesh.are_all_axes_auto:
        return None
    return mesh


def row_shards() -> int:
    """Among how many devices the rows of a batch are dealt out."""
    mesh = active_mesh()
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in ROW_AXES)


def on_own_rows(
    function: Callable[[Whole, Rows], Out], whole: Whole, rows: Rows
) -> Out:
    """`function(whole, rows)`, run by every device on the rows that it has.

    For a loop over parts of rows: the compiler would gather `whole` at every turn, and
    add up its gradients over the devices as often. Here both are done once, around it.
    What tensor splits stays the compiler's affair.

    Args:
      function: computes each row alone, and gives arrays with the rows in front.
      whole: arrays that all rows need, parameters for instance.
      rows: arrays with rows in front.
    """
    shards = row_shards()
    if shards == 1 or any(x.shape[0] % shards for x in jax.tree.leaves(rows)):
        return function(whole, rows)
    own = P(ROW_AXES)
    mapped = jax.shard_map(
        function,
        in_specs=(P(), own),
        out_specs=own,
        axis_names=set(ROW_AXES),
        check_vma=False,
    )
    return mapped(whole, rows)


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
