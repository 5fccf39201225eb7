"""Attention over whole rows, by the kernel that suits the platform.

| kernel | runs on | what it cannot do |
|---|---|---|
| `einsum` | anything (`cpu_kernels`) | – |
| `dot_product_attention` | anything: `jax.nn`'s, left to the compiler | soft caps |
| `splash` | TPUs: Pallas, in blocks; none that is not seen is computed | heads that are no multiple of 64 numbers |
| `cudnn` | GPUs: cuDNN's flash attention | float32, soft caps, heads of more than 256 numbers or no multiple of 8; GPUs before Ampere, and for heads of more than 128 before Hopper |

`auto` is the platform's own where it can do the model, else `einsum`. What follows a
cache has few queries, and goes by `einsum` always.

Axes: B batch, T tokens, N heads, K KV heads, H head size.
"""  # noqa: E501

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int32

from aprm_jax.models import cpu_kernels
from aprm_jax.models.architecture import DecoderConfig, attention_refusal
from aprm_jax.models.placement import ROW_AXES, active_mesh, row_shards

# Of splash: rows and columns of a block, the largest that divides a row; a row is
# padded to a multiple of the least.
BLOCKS = (512, 384, 256, 128)
INTERPRETED = False  # tests run a TPU's kernel on a CPU
_OWN = {"tpu": "splash", "gpu": "cudnn"}
_compiled_for: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "compiled_for", default=None
)


@flax.struct.dataclass
class WholeRows:
    """Of rows whose queries are all their tokens: what kernels read in a mask's place.

    Attributes:
      segment_ids: a token sees those of its segment up to itself; None where rows
        branch, and the mask alone says what is seen.
      local: whether a layer has the config's window; None where all layers agree.
    """

    segment_ids: Int32[Array, "B T"] | None
    local: Bool[Array, ""] | None = None


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """What is traced within is for another platform: "tpu", "gpu" or "cpu"."""
    token = _compiled_for.set(platform)
    try:
        yield
    finally:
        _compiled_for.reset(token)


def platform() -> str:
    """What is traced is compiled for it."""
    return _compiled_for.get() or jax.default_backend()


def kernel_of(config: DecoderConfig) -> str:
    """The kernel that attention over whole rows is computed by.

    It is `einsum` in place of splash where several devices run a program that says
    nothing of their mesh, the drawing of first parameters for one.

    Raises:
      ValueError: the config names one that does not run on the platform.
    """
    own = _OWN.get(platform(), "einsum")
    name = config.attention
    if name == "auto":
        able = not attention_refusal(config, own) and _gpu_is_able(config, own)
        name = own if able else "einsum"
    if name in _OWN.values() and name != own:
        raise ValueError(
            f"attention={name!r} does not run on this platform, {platform()}: take "
            f"'auto', which is {own!r} here, or 'einsum'"
        )
    return "einsum" if name == "splash" and _undivided() else name


def _gpu_is_able(config: DecoderConfig, own: str) -> bool:
    """Whether cuDNN's kernel runs on this GPU: Ampere, for large heads Hopper."""
    if own != "cudnn" or _compiled_for.get() is not None:
        return True
    found = getattr(jax.local_devices()[0], "compute_capability", "0")
    return float(found) >= (9.0 if config.head_dim > 128 else 8.0)


def _undivided() -> bool:
    """Whether several devices may run what is traced without being told their mesh.

    No compiler divides a kernel among them.
    """
    told = _compiled_for.get() is not None or active_mesh() is not None
    return not told and jax.device_count() > 1


def attend(
    query: Float[Array, "B N T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    config: DecoderConfig,
    rows: WholeRows | None = None,
) -> Float[Array, "B N T H"]:
    """Grouped-query attention with a float32 softmax; a square mask is causal.

    Args:
      query: of T tokens.
      key: of S tokens.
      value: likewise.
      mask: what each query sees.
      config: scale, soft cap, and the kernel.
      rows: whole rows, T = S; None for what follows a cache.
    """
    scale = (config.query_scalar or config.head_dim) ** -0.5
    kernel = kernel_of(config)
    if rows is not None and kernel in _OWN.values():
        function = _splash if kernel == "splash" else _cudnn
        return function(query * scale, key, value, mask, config, rows)
    if kernel == "dot_product_attention":
        return _by_jax(query, key, value, mask, scale, None)
    cap = config.attention_softcap
    return cpu_kernels.attention(query * scale, key, value, mask, cap)


def _by_jax(query, key, value, mask, scale: float, implementation: Any) -> Array:
    query, key, value = (jnp.swapaxes(a, 1, 2) for a in (query, key, value))
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask[:, None],
        scale=scale,
        implementation=implementation,
    )
    return jnp.swapaxes(out, 1, 2)


def _cudnn(query, key, value, mask, config: DecoderConfig, rows: WholeRows) -> Array:
    del config, rows
    width = query.shape[2]
    query, key, value = (_wider(a, 2, axis=2) for a in (query, key, value))
    mask = _padded_mask(mask, 2)  # even lengths alone
    out = _by_jax(query, key, value, mask, 1.0, "cudnn")
    return out[:, :, :width]


def _splash(query, key, value, mask, config: DecoderConfig, rows: WholeRows) -> Array:
    width, least = query.shape[2], BLOCKS[-1]
    query, key, value = (_wider(a, least, axis=2) for a in (query, key, value))
    cap = config.attention_softcap
    if rows.segment_ids is None:
        seen = _padded_mask(mask, least)
        branching = functools.partial(_branching, cap)
        return _on_mesh(branching, query, key, value, seen)[:, :, :width]
    # Padding is a segment of its own, so that every token sees itself.
    seen = _wider(rows.segment_ids, least, axis=1, fill=-1)

    def windowed(window: int | None) -> Callable[..., Array]:
        return functools.partial(_on_mesh, functools.partial(_packed, cap, window))

    if rows.local is not None:
        near, far = windowed(config.sliding_window), windowed(None)
        out = jax.lax.cond(rows.local, near, far, query, key, value, seen)
    else:
        out = windowed(config.sliding_window)(query, key, value, seen)
    return out[:, :, :width]


def _wider(x: Array, multiple: int, *, axis: int, fill: int = 0) -> Array:
    more = [(0, 0)] * x.ndim
    more[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, more, constant_values=fill)


def _padded_mask(mask: Array, multiple: int) -> Array:
    """A square mask, wider; every token sees itself, or it would divide by nothing."""
    for axis in (1, 2):
        mask = _wider(mask, multiple, axis=axis)
    return mask | jnp.eye(mask.shape[1], dtype=bool)[None]


def _packed(cap: float | None, window: int | None, query, key, value, ids) -> Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (query.shape[2],) * 2
    one = splash.CausalMask(shape)
    if window is not None:
        one = splash.LocalMask(shape, (window - 1, 0), 0)
    kernel = _kernel(splash.MultiHeadMask([one] * query.shape[1]), cap)
    return jax.vmap(kernel)(query, key, value, splash.SegmentIds(ids, ids))


def _branching(cap: float | None, query, key, value, mask) -> Array:
    def row(query, key, value, mask):
        kernel = _kernel(mask[None], cap)
        # A name in profiles depends on it alone, which cannot be while it is traced.
        named = kernel.fwd_mask_info._replace(is_dynamic_mask=None)
        kernel.fwd_mask_info = named
        return kernel(query, key, value)

    return jax.vmap(row)(query, key, value, mask)


def _kernel(mask: Any, cap: float | None) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    block = next(size for size in BLOCKS if mask.shape[-1] % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq")
    sizes: dict[str, Any] = {f"block_{name}": block for name in (*names, "kv_dq")}
    return splash.make_splash_mha(
        mask,
        block_sizes=splash.BlockSizes(**sizes),
        attn_logits_soft_cap=cap,
        head_shards=1,
        q_seq_shards=1,
        # What `remat="names"` keeps: without the sums beside it, it is computed again.
        residual_checkpoint_name="mixed",
        interpret=INTERPRETED,
    )


def _on_mesh(kernel: Callable[..., Array], query, key, value, seen) -> Array:
    """A kernel on each device's rows and heads: no compiler divides one up."""
    mesh = active_mesh()
    if mesh is None:
        return kernel(query, key, value, seen)
    dealt = query.shape[0] % row_shards() == 0
    split = not any(a.shape[1] % mesh.shape["tensor"] for a in (query, key))
    rows = ROW_AXES if dealt else None
    heads = P(rows, "tensor" if split else None)
    mapped = jax.shard_map(
        kernel,
        in_specs=(heads, heads, heads, P(rows)),
        out_specs=heads,
        check_vma=False,
    )
    return mapped(query, key, value, seen)
