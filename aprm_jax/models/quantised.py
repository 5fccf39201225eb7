"""Weights as int8 with a float32 scale to each output channel, of models that are read.

A linear map W [in, out] is kept as q = round(W / s), with s [out] the largest |W| of
its column over 127: no weight is further from its own than s / 2. x W is (x q) s, and q
is exact in bfloat16 too. A channel of the embedding is a token, as of a tied head.
Beside `kernel` and `embedding` stand `kernel_scale` and `embedding_scale`; norms,
biases and heads of other kinds stay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int8

from aprm_jax.models import lora

Params = Any
SCALE = "_scale"  # behind the name of what it is of
_TABLES = {"embed/embedding": (1,), "head/kernel": (0,)}  # axes of inputs


def int8(model: Params) -> Params:
    """A model `{"backbone", heads ...}`, or its shapes under `eval_shape`, in int8."""
    return _replaced(model, _quantise)


def held(*models: Params) -> tuple[Params, ...]:
    """The same of arrays on devices, each made where its float one lies.

    Models that share a backbone's arrays still do. Theirs may be dropped then.
    """
    known: dict[int, tuple[Array, Any]] = {}

    def once(x: Array, inputs: tuple[int, ...]) -> tuple[Array, Array]:
        if id(x) not in known:
            # The array beside it keeps its number from being another's.
            known[id(x)] = x, _placed(x)(x, inputs)
        return known[id(x)][1]

    return tuple(_replaced(model, once) for model in models)


def scaled(
    out: Float[Array, "..."], scale: Float32[Array, "..."] | None
) -> Float[Array, "..."]:
    """A product with q, its last axes the channels of `scale`; without one, itself."""
    if scale is None:
        return out
    lead = (1,) * (out.ndim - scale.ndim)
    return (out.astype(jnp.float32) * scale.reshape(*lead, *scale.shape)).astype(
        out.dtype
    )


def cast(params: Mapping[str, Array], dtype: Any) -> dict[str, Array]:
    """A linear map as products read it; its scale stays in float32."""
    return {
        name: x if name.endswith(SCALE) else x.astype(dtype)
        for name, x in params.items()
    }


def _replaced(model: Params, make: Callable[..., tuple[Array, Array]]) -> Params:
    if "backbone" not in model:  # a judge, that is no model
        return model
    return {**model, "backbone": _walked(model["backbone"], "", make)}


def _walked(params: Params, prefix: str, make: Callable[..., Any]) -> Params:
    out: dict[str, Any] = {}
    for name, inner in params.items():
        path = f"{prefix}{name}"
        if isinstance(inner, Mapping):
            out[name] = _walked(inner, f"{path}/", make)
        elif (inputs := _TABLES.get(path) or lora.inputs_of(path)) is None:
            out[name] = inner
        else:
            out[name], out[f"{name}{SCALE}"] = make(inner, inputs)
    return out


def _quantise(
    x: Float[Array, "..."], inputs: tuple[int, ...]
) -> tuple[Int8[Array, "..."], Float32[Array, "..."]]:
    wide = x.astype(jnp.float32)
    most = jnp.max(jnp.abs(wide), axis=inputs, keepdims=True)
    scale = jnp.where(most > 0, most / 127.0, 1.0)
    return jnp.round(wide / scale).astype(jnp.int8), jnp.squeeze(scale, inputs)


def _placed(x: Array) -> Callable[..., tuple[Array, Array]]:
    """`_quantise`, compiled: weights lie where `x` does, their scale everywhere."""
    places = None
    if isinstance(x.sharding, NamedSharding):
        places = (x.sharding, NamedSharding(x.sharding.mesh, PartitionSpec()))
    return _compiled(places)


@functools.cache
def _compiled(places: Any) -> Callable[..., tuple[Array, Array]]:
    return jax.jit(_quantise, static_argnums=1, out_shardings=places)
