"""Attention against a plain softmax that XLA differentiates."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoder import SMALL, make_params

from aprm_jax.models import attention
from aprm_jax.models.attention import WholeRows, attend, compiled_for, kernel_of
from aprm_jax.models.cpu_kernels import MOST_BLOCKS, SMALLEST_BLOCK
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.placement import AXES
from aprm_jax.models.positions import causal_mask

HEADS, KV_HEADS, SIZE = SMALL.num_heads, SMALL.num_kv_heads, SMALL.head_dim


def plainly(query, key, value, mask, cap):
    """The textbook's, with a KV head copied to each of its query heads."""
    copies = HEADS // KV_HEADS
    key, value = (jnp.repeat(a, copies, axis=1) for a in (key, value))
    scores = jnp.einsum("bnth,bnsh->bnts", query, key) / np.sqrt(SIZE)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    scores = jnp.where(mask[:, None], scores, -jnp.inf)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores, -1), value)


def drawn(length, targets=None, dtype=np.float32):
    rng = np.random.default_rng(length)
    shapes = ((2, HEADS, targets or length, SIZE), *((2, KV_HEADS, length, SIZE),) * 2)
    return tuple(jnp.asarray(2 * rng.normal(size=s), dtype) for s in shapes)


def packed(length, window=None):
    """Two segments in one row, one in the other."""
    segments = np.ones((2, length), np.int32)
    segments[0, length // 3 :] = 2
    return causal_mask(jnp.asarray(segments), window)


def value_and_grads(fn, arrays, mask):
    wanted = np.random.default_rng(1).normal(size=arrays[0].shape)

    def loss(*arrays):
        out = fn(*arrays, mask)
        return jnp.sum(out.astype(jnp.float32) * wanted), out

    # jit: what XLA makes of it is what a run gets.
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize(
    ("length", "window"),
    [
        (SMALLEST_BLOCK - 7, None),  # one block
        (SMALLEST_BLOCK + 1, None),  # a last block of one query
        (MOST_BLOCKS * SMALLEST_BLOCK + 5, None),  # larger blocks, a ragged last one
        (2 * SMALLEST_BLOCK, 9),
    ],
)
def test_value_and_gradients_are_the_textbooks(length, window, cap):
    config = dataclasses.replace(SMALL, attention_softcap=cap)
    mask = packed(length, window)
    arrays = drawn(length)
    ours = value_and_grads(lambda *a: attend(*a, config), arrays, mask)
    theirs = value_and_grads(lambda *a: plainly(*a, cap), arrays, mask)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
        ours,
        theirs,
    )


def test_one_query_over_a_cache_sees_what_its_mask_says():
    arrays = drawn(90, targets=1)
    mask = jnp.asarray(np.random.default_rng(0).random((2, 1, 90)) < 0.4)
    ours, theirs = attend(*arrays, mask, SMALL), plainly(*arrays, mask, None)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_bfloat16_gradients_are_as_close_as_bfloat16_is():
    length = SMALLEST_BLOCK + 9
    mask = packed(length)
    exact = drawn(length)
    rounded = tuple(a.astype(jnp.bfloat16) for a in exact)
    _, grads = value_and_grads(lambda *a: attend(*a, SMALL), rounded, mask)
    again = tuple(a.astype(jnp.float32) for a in rounded)
    _, wanted = value_and_grads(lambda *a: plainly(*a, None), again, mask)
    for ours, theirs in zip(grads, wanted, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.linalg.norm(ours.astype(np.float32) - theirs)
        assert error < 1e-2 * np.linalg.norm(theirs)


WIDE = dataclasses.replace(SMALL, num_heads=4, num_kv_heads=2, head_dim=64)


def _rows_of(kind, length):
    """Segment ids, the last columns that see each token, and the mask of both."""
    ids = np.ones((2, length), np.int32)
    ids[0, length // 3 :], ids[1, -20:] = 2, 0
    if kind != "branching":
        return jnp.asarray(ids), None
    ends = np.full((2, length), length - 1, np.int32)
    ends[:, 40:70] = 69  # a branch, which what follows it does not see
    return jnp.asarray(ids), jnp.asarray(ends)


@pytest.mark.parametrize(
    ("kind", "length", "window", "cap"),
    [
        ("packed", 256, None, None),
        ("packed", 130, 9, 1.5),  # columns that fill the last block
        ("mixed", 130, 9, None),  # a scan over layers, of which some have a window
        ("branching", 130, None, 1.5),
    ],
)
def test_splash_is_the_reference(monkeypatch, kind, length, window, cap):
    monkeypatch.setattr(attention, "INTERPRETED", True)
    pattern = {"mixed": "gl"}.get(kind, "g" if window is None else "l")
    config = dataclasses.replace(
        WIDE,
        num_layers=2,
        layer_pattern=pattern,
        sliding_window=window,
        attention_softcap=cap,
    )
    ids, ends = _rows_of(kind, length)
    for local in [True, False] if kind == "mixed" else [window is not None]:
        mask = causal_mask(ids, window if local else None, ends)
        flag = jnp.asarray(local) if kind == "mixed" else None
        rows = WholeRows(None if kind == "branching" else ids, flag)
        rng = np.random.default_rng(length)
        arrays = tuple(
            jnp.asarray(rng.normal(size=(2, heads, length, 64)), jnp.float32)
            for heads in (4, 2, 2)
        )
        ours = value_and_grads(lambda *a: attend(*a, config), arrays, mask)
        with compiled_for("tpu"):
            assert kernel_of(config) == "splash"
            theirs = value_and_grads(
                lambda *a, rows=rows: attend(*a, config, rows), arrays, mask
            )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            theirs,
            ours,
        )


@pytest.mark.parametrize("remat", ["names", "full"])
def test_a_decoder_with_splash_has_the_same_gradients(monkeypatch, remat):
    monkeypatch.setattr(attention, "INTERPRETED", True)
    config = dataclasses.replace(
        WIDE, layer_pattern="gl", sliding_window=9, num_layers=2, remat=remat
    )
    params = make_params(config)
    ids, _ = _rows_of("packed", 50)
    tokens = jnp.arange(100, dtype=jnp.int32).reshape(2, 50) % config.vocab_size
    positions = jnp.tile(jnp.arange(50, dtype=jnp.int32)[None], (2, 1))

    def loss(params):
        args = {"params": params}, tokens, positions, ids
        return jnp.sum(Decoder(config).apply(*args) ** 2)

    ours = jax.jit(jax.grad(loss))(params)
    jax.clear_caches()
    with compiled_for("tpu"):
        traced = jax.jit(jax.grad(loss)).trace(params)
    assert "pallas_call" in str(traced.jaxpr)
    theirs = traced.lower().compile()(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
        theirs,
        ours,
    )


def test_each_platform_has_its_kernel_where_it_can_do_the_model():
    half = dataclasses.replace(WIDE, dtype="bfloat16")
    capped = dataclasses.replace(half, attention_softcap=9.0)
    narrow = dataclasses.replace(half, head_dim=16)
    found = {}
    for platform in ("cpu", "tpu", "gpu"):
        with compiled_for(platform):
            found[platform] = [kernel_of(c) for c in (WIDE, half, capped, narrow)]
    assert found == {
        "cpu": ["einsum"] * 4,
        "tpu": ["splash"] * 3 + ["einsum"],
        "gpu": ["einsum", "cudnn", "einsum", "cudnn"],
    }


@pytest.mark.parametrize(
    ("capability", "size", "kernel"),
    [("7.5", 64, "einsum"), ("8.0", 64, "cudnn"), ("8.9", 256, "einsum"),
     ("9.0", 256, "cudnn"), ("12.0", 64, "cudnn")],
)  # fmt: skip
def test_a_gpu_that_cudnn_has_no_kernel_for_computes_ours(
    monkeypatch, capability, size, kernel
):
    gpu = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert (
        kernel_of(dataclasses.replace(WIDE, dtype="bfloat16", head_dim=size)) == kernel
    )


def test_no_kernel_is_left_to_a_compiler_that_cannot_divide_it(monkeypatch):
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert kernel_of(WIDE) == "einsum"
    axes = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.AbstractMesh((1, 4, 1), AXES, axis_types=axes)
    with jax.sharding.use_abstract_mesh(mesh):
        assert kernel_of(WIDE) == "splash"
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert kernel_of(WIDE) == "splash"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention": "flash"}, "must be auto.*not 'flash'"),
        ({"attention": "splash", "head_dim": 16}, "multiple of 64, not 16"),
        ({"attention": "cudnn"}, "needs dtype='bfloat16', not 'float32'"),
        ({"attention": "cudnn", "head_dim": 260}, "up to 256, not 260"),
        ({"attention": "cudnn", "attention_softcap": 5.0}, "no soft cap"),
    ],
)
def test_a_kernel_that_cannot_do_a_model_says_why(fields, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(WIDE, **fields)


def test_a_kernel_of_another_platform_is_refused():
    config = dataclasses.replace(WIDE, attention="splash")
    with pytest.raises(ValueError, match="'splash' does not run on this platform, cpu"):
        kernel_of(config)
