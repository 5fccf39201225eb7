"""Low-rank adapters: one frozen base, and beside it a small tree for each player.

A targeted kernel, read as a matrix W [in, out], acts as W + (alpha / rank) A B with A
[in, r] and B [r, out] (Hu et al., arXiv:2106.09685). An adapter is a tree in the shape
of the backbone that holds `lora_a` [L, in, r] and `lora_b` [L, r, out] where the
backbone holds a `kernel`. Training adds (x A) B to x W and never forms A B: in bfloat16
a small A B would round away inside W. `merge` forms it, in float32, for whoever wants
one tree.

Kernels are matrices as PEFT sees Hugging Face's layers (its A is [r, in], its B
[out, r]), heads merged: `hf.peft` writes them bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt32

Params = Any
PRNGKey = Key[Array, ""] | UInt32[Array, "2"]

DEFAULT_TARGETS = r"layers/(attention/(q|k|v|o)|mlp/(gate|up|down))/kernel"
# Linear maps by path: how many of their axes are inputs.
_INPUTS: dict[str, int] = {
    **{f"attention/{name}": 1 for name in "qkv"},
    "attention/o": 2,
    **{f"mlp/{name}": 1 for name in ("gate", "up", "down")},
}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """The shape of adapters.

    Attributes:
      rank: r.
      alpha: A B is scaled by alpha / rank.
      targets: a regular expression that a kernel's whole path must match, as
        "layers/attention/(q|v)/kernel".
    """

    rank: int
    alpha: float
    targets: str = DEFAULT_TARGETS

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank must be at least 1, not {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha must be positive, not {self.alpha}")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(
                f"lora.targets is no regular expression: {self.targets!r}: {error}"
            ) from None

    @classmethod
    def of(cls, fields: Any) -> LoraConfig | None:
        """From `config.lora`; None where its rank is 0."""
        if not fields.rank:
            return None
        return cls(fields.rank, fields.alpha, fields.targets or DEFAULT_TARGETS)

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / self.rank


def target_paths(params: Params, config: LoraConfig) -> list[str]:
    """The modules of a backbone that get an adapter, as "layers/attention/q".

    Raises:
      ValueError: `config.targets` matches nothing, or what is no linear map's kernel.
    """
    paths = [path for path, _ in _leaves(params)]
    chosen = [path for path in paths if re.fullmatch(config.targets, path)]
    linear = [path for path in paths if _linear(path)]
    if not chosen:
        raise ValueError(
            f"lora.targets={config.targets!r} matches no parameter; it could match "
            f"{', '.join(linear)}"
        )
    for path in chosen:
        if path not in linear:
            raise ValueError(
                f"lora.targets={config.targets!r} matches {path}, which is no linear "
                f"map's kernel; those are {', '.join(linear)}"
            )
    return [path.removesuffix("/kernel") for path in chosen]


def init_lora(key: PRNGKey, params: Params, config: LoraConfig) -> Params:
    """An adapter that changes nothing yet: A uniform as in PEFT, B zero, float32.

    Args:
      key: of A.
      params: the backbone's parameters, or their shapes.
      config: rank and targets.

    Raises:
      ValueError: see `target_paths`.
    """
    leaves = dict(_leaves(params))
    adapter: dict[str, Any] = {}
    for index, path in enumerate(target_paths(params, config)):
        layers, inputs, outputs = _matrix(path, leaves[f"{path}/kernel"].shape)
        bound = inputs**-0.5  # Kaiming's with a = sqrt(5), torch's default
        a = jax.random.uniform(
            jax.random.fold_in(key, index),
            (layers, inputs, config.rank),
            jnp.float32,
            -bound,
            bound,
        )
        b = jnp.zeros((layers, config.rank, outputs), jnp.float32)
        _node(adapter, path).update(lora_a=a, lora_b=b)
    return adapter


def apply_lora(params: Params, adapter: Params, config: LoraConfig) -> Params:
    """The backbone with its adapter beside the kernels, as the decoder takes it.

    The base's arrays are shared, not copied, and the scale is already in `lora_b`.
    Differentiate with respect to `adapter` and the base has no gradient.
    """
    out: dict[str, Any] = dict(params)
    for name, inner in adapter.items():
        if name == "lora_a":
            out[name] = inner
        elif name == "lora_b":
            out[name] = inner * config.scale
        else:
            out[name] = apply_lora(params[name], inner, config)
    return out


def merge(params: Params, adapter: Params, config: LoraConfig) -> Params:
    """The backbone with W + (alpha / rank) A B in place of W, in W's dtype."""
    leaves = dict(_leaves(params))
    out = jax.tree.map(lambda x: x, params)  # new dicts around the same arrays
    for path, a, b in modules(adapter):
        kernel = leaves[f"{path}/kernel"]
        delta = config.scale * jnp.matmul(a, b, precision="highest")
        wide = kernel.astype(jnp.float32) + delta.reshape(kernel.shape)
        _node(out, path)["kernel"] = wide.astype(kernel.dtype)
    return out


def player(key: PRNGKey, full: Params, config: LoraConfig | None) -> Params:
    """What of a model is trained: all of it, or an adapter in its backbone's place.

    Args:
      key: of the adapter.
      full: `{"backbone": ..., heads ...}`.
      config: None for full parameters.
    """
    if config is None:
        return full
    heads = {name: tree for name, tree in full.items() if name != "backbone"}
    return {"lora": init_lora(key, full["backbone"], config), **heads}


def materialise(base: Params, trained: Params, config: LoraConfig | None) -> Params:
    """The model that a player's trained tree stands for.

    Args:
      base: the tree that `player` was made of; its backbone is frozen.
      trained: of `player`, or after updates.
      config: the same as there. With None `trained` is the model.
    """
    if config is None:
        return trained
    heads = {name: tree for name, tree in trained.items() if name != "lora"}
    backbone = apply_lora(base["backbone"], trained["lora"], config)
    return {"backbone": backbone, **heads}


def merged(base: Params, trained: Params, config: LoraConfig | None) -> Params:
    """`materialise` in plain kernels, as model folders hold them."""
    if config is None:
        return trained
    heads = {name: tree for name, tree in trained.items() if name != "lora"}
    return {"backbone": merge(base["backbone"], trained["lora"], config), **heads}


def _leaves(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, array) of a tree of mappings."""
    for name, inner in params.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", inner


def modules(adapter: Params) -> Iterator[tuple[str, Any, Any]]:
    """(path, A, B) of every adapted module of an adapter."""
    leaves = dict(_leaves(adapter))
    for path in leaves:
        if path.endswith("/lora_a"):
            module = path.removesuffix("/lora_a")
            yield module, leaves[path], leaves[f"{module}/lora_b"]


def _linear(path: str) -> bool:
    module = path.removesuffix("/kernel").removeprefix("layers/")
    return path.endswith("/kernel") and module in _INPUTS


def inputs_of(path: str) -> tuple[int, ...] | None:
    """The axes of a stacked kernel that are inputs; None of what is no linear map."""
    if not _linear(path):
        return None
    module = path.removesuffix("/kernel").removeprefix("layers/")
    return tuple(range(1, 1 + _INPUTS[module]))


def _matrix(path: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(L, in, out) of a stacked kernel."""
    inputs = 1 + _INPUTS[path.removeprefix("layers/")]
    return shape[0], math.prod(shape[1:inputs]), math.prod(shape[inputs:])


def _node(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """The mapping at a path, made where it is missing."""
    for name in path.split("/"):
        tree = tree.setdefault(name, {})
    return tree
