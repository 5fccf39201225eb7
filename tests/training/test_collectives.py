"""Collectives are counted as often as their loops turn, by the axes that they cross."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aprm_jax.training.collectives import by_axes, collectives
from aprm_jax.training.forecast import product_flops
from aprm_jax.training.hlo import estimated_cycles

TEXT = """
HloModule step, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%fused (p: f32[1,4]) -> f32[8,4] {
  %p = f32[1,4]{1,0} parameter(0)
  ROOT %g = f32[8,4]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

%body.1 (arg: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %arg = (s32[], f32[8,4]{1,0}) parameter(0)
  %f = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%fused
  %r = f32[2,4]{1,0} reduce-scatter(%f), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %f)
}

%cond.1 (arg: (s32[], f32[8,4])) -> pred[] {
  %arg = (s32[], f32[8,4]{1,0}) parameter(0)
  %n = s32[] constant(5)
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

%inner (arg: (s32[])) -> (s32[]) {
  %q = (f32[2]{0}, f32[2]{0}) collective-permute-start(%y), source_target_pairs={{0,4},{4,0}}
  ROOT %t2 = (s32[]) tuple(%i)
}

%until (arg: (s32[])) -> pred[] {
  ROOT %c2 = pred[] parameter(0)
}

ENTRY %main.9 (p0: f32[8,4]) -> f32[8,4] {
  %p0 = f32[8,4]{1,0} parameter(0)
  %w = (s32[], f32[8,4]{1,0}) while(%t0), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"5"}}
  %w2 = (s32[]) while(%t1), condition=%until, body=%inner
  %ar = (bf16[4]{0}, f32[2]{0}) all-reduce(%u, %v), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %gs = (f32[4]{0}, f32[8]{0}) all-gather-start(%z), replica_groups=[4,2]<=[8]
  %gd = f32[8]{0} all-gather-done(%gs)
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%w), index=1
}
"""  # noqa: E501


MESH = jax.sharding.AbstractMesh((2, 4), ("data", "fsdp"))


@pytest.mark.parametrize("known", [True, False])
def test_every_collective_of_a_program(known):
    text = TEXT if known else TEXT.replace(', backend_config={"known', ', x={"un')
    found = collectives(text, MESH, unknown_trips=7)
    told = [(c.kind, c.bytes, c.times, c.devices, c.axes) for c in found]
    assert told == [
        ("all-gather", 128, 5, 8, ("data", "fsdp")),
        ("reduce-scatter", 4 * 32, 5, 4, ("fsdp",)),
        ("collective-permute", 8, 7, 2, ("data",)),
        ("all-reduce", 16, 1, 2, ("data",)),
        ("all-gather", 32, 1, 2, ("fsdp",)),
    ]
    wire = by_axes(found)
    assert wire["data+fsdp"] == {"all-gather": 5 * 128 * 7 / 8}
    assert wire["fsdp"] == {"reduce-scatter": 5 * 128 * 3 / 4, "all-gather": 16.0}
    assert wire["data"] == {"collective-permute": 56.0, "all-reduce": 16.0}


# As libtpu 0.0.42 writes a program: groups along the axes of a mesh of its own, layouts
# within types, notes of several lines, a gather that three fusions hide in products.
TPU_TEXT = """
%start (p: f32[1,4]) -> f32[4,4] {
  %p = f32[1,4]{1,0:T(8,128)S(1)} parameter(0)
  %g.1 = f32[4,4]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %c.1 = (f32[1,4]{1,0:T(8,128)}, f32[4,4]{1,0:T(8,128)}, u32[]{:S(2)}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}

%goes_on (p: f32[1,4]) -> f32[4,4] {
  %g.2 = f32[4,4]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %t.1 = (f32[1,4]{1,0:T(8,128)}, f32[4,4]{1,0:T(8,128)}) tuple(%p, %g.2)
}

%done (p: f32[1,4]) -> f32[4,4] {
  %g.3 = f32[4,4]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %c.2 = f32[4,4]{1,0:T(8,128)} custom-call(%p, %g.3), custom_call_target="AsyncCollectiveDone"
}

%cond (arg: (s32[], f32[4,4])) -> pred[] {
  %n = s32[]{:T(128)} constant(6)
  ROOT %c = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%body (arg: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %k = f32[4,4]{1,0:T(8,128)} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"note":"1"
}}
  %f.1 = (f32[1,4]{1,0:T(8,128)}, f32[4,4]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%x), kind=kCustom, calls=%start
  %f.2 = (f32[1,4]{1,0:T(8,128)}, f32[4,4]{1,0:T(8,128)}) fusion(%y), kind=kOutput, calls=%goes_on
  %f.3 = f32[4,4]{1,0:T(8,128)} fusion(%z), kind=kCustom, calls=%done
  %a = (f32[4]{0:T(128)S(1)}, f32[2]{0:T(128)}) all-reduce(%u, %v), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, to_apply=%add
  ROOT %t = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}) tuple(%i, %f.3)
}

ENTRY %main (p0: f32[4,4]) -> f32[4,4] {
  %w = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}) while(%t0), condition=%cond, body=%body
  %s = f32[4]{0:T(128)} all-reduce(%q), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, to_apply=%add
  ROOT %out = f32[4,4]{1,0} get-tuple-element(%w), index=1
}
"""  # noqa: E501


CYCLES_TEXT = """
%branch.0 (p: f32[4]) -> f32[4] {
  ROOT %a = f32[4]{0:T(128)} fusion(%p), kind=kLoop, calls=%f, metadata={op_name="a"}, backend_config={"window_config":{"estimated_cycles":"7"}}
}

%branch.1 (p: f32[4]) -> f32[4] {
  ROOT %b = f32[4]{0:T(128)} copy(%p), backend_config={"window_config":{"estimated_cycles":"11"}}
}

%cond (arg: (s32[])) -> pred[] {
  %n = s32[]{:T(128)} constant(5)
  ROOT %c = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%body (arg: (s32[])) -> (s32[]) {
  %v = f32[4]{0:T(128)} conditional(%i, %x, %y), branch_computations={%branch.0, %branch.1}
  %k = f32[4]{0:T(128)} custom-call(%x), backend_config={"window_config":{"estimated_cycles":"9223372036854775807"}}
  ROOT %t = (s32[]{:T(128)}) fusion(%v), kind=kLoop, calls=%f, backend_config={"window_config":{"estimated_cycles":"100"}}
}

ENTRY %main (p0: f32[4]) -> f32[4] {
  %w = (s32[]{:T(128)}) while(%t0), condition=%cond, body=%body
  ROOT %out = f32[4]{0} fusion(%w), kind=kLoop, calls=%f, backend_config={"window_config":{"estimated_cycles":"1000"}}
}
"""  # noqa: E501


def test_a_compilers_estimates_are_added_up_as_often_as_they_run():
    assert estimated_cycles(CYCLES_TEXT) == 1000 + 5 * (100 + 11)
    assert estimated_cycles(TEXT) == 0


BRANCHES_TEXT = """
%left (p: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

%right (p: f32[8]) -> f32[8] {
  %b = f32[8]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %c = f32[8]{0} all-reduce(%b), replica_groups=[1,8]<=[8], to_apply=%add
}

ENTRY %main (p0: f32[8]) -> f32[8] {
  ROOT %v = f32[8]{0} conditional(%i, %x, %y), branch_computations={%left, %right}
}
"""


def test_of_two_branches_the_one_that_sends_most_counts():
    kinds = [one.kind for one in collectives(BRANCHES_TEXT, MESH)]
    assert kinds == ["all-gather", "all-reduce"]


def test_a_gather_hidden_behind_products_on_a_tpu_is_told_once_a_turn():
    found = collectives(TPU_TEXT, MESH)
    told = [(c.kind, c.bytes, c.times, c.devices, c.axes) for c in found]
    assert told == [
        ("all-gather", 64, 6, 4, ("fsdp",)),
        ("all-reduce", 24, 6, 8, ("data", "fsdp")),
        ("all-reduce", 16, 1, 2, ("data",)),
    ]


def test_products_are_counted_as_often_as_loops_turn():
    w = jnp.ones((3, 4, 4))

    def loss(w, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        x, _ = jax.lax.scan(jax.checkpoint(layer), x, w)
        return x.sum()

    x = jnp.ones((2, 4))
    one = 2 * 2 * 4 * 4
    forward = jax.jit(loss).trace(w, x).jaxpr
    assert product_flops(forward.jaxpr) == 3 * one
    backward = jax.jit(jax.grad(loss)).trace(w, x).jaxpr
    # Forward, computed again, and of both operands.
    assert product_flops(backward.jaxpr) in (3 * 4 * one, 3 * 4 * one - one)

    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ jnp.eye(4), x)

    loop = jax.jit(until).trace(x).jaxpr
    assert product_flops(loop.jaxpr, trips=11) == 11 * one
    assert np.isclose(product_flops(loop.jaxpr), one)


def test_products_of_a_part_of_the_mesh_are_counted_once():
    """Manual along two axes, whole along tensor: what it has eight devices compute."""
    auto = (jax.sharding.AxisType.Auto,) * 3
    axes = ("data", "fsdp", "tensor")
    mesh = jax.sharding.AbstractMesh((2, 4, 8), axes, axis_types=auto)
    rows = P(("data", "fsdp"))

    def product(x, w):
        return jax.shard_map(
            lambda x, w: x @ w,
            in_specs=(rows, P()),
            out_specs=rows,
            axis_names={"data", "fsdp"},
            check_vma=False,
        )(x, w)

    with jax.sharding.use_abstract_mesh(mesh):
        shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((16, 4), (4, 3)))
        traced = jax.jit(product).trace(*shapes)
    assert product_flops(traced.jaxpr.jaxpr) == 2 * 16 * 4 * 3
