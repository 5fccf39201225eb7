"""Low-rank adapters: one frozen base, and beside it a small tree for each player.

A targeted kernel, read as a matrix W [in, out], acts as W + (alpha / rank) A B with A
[in, r] and B [r, out] (Hu et al., arXiv:2106.09685). An adapter is a tree in the shape
of the backbone that holds `lora_a` [L, in, r] and `lora_b` [L, r, out] where the
backbone holds a `kernel`. Training adds (x A) B to x W and never forms A B: in bfloat16
a small A B would round away inside W. `merge` forms it, in float32, for whoever wants
one tree.

Kernels are matrices as PEFT sees Hugging Face's layers (its A is [r, in], its B
[out, r]), heads merged, so an adapter goes to PEFT and back bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt32

Params = Any
PRNGKey = Key[Array, ""] | UInt32[Array, "2"]

DEFAULT_TARGETS = r"layers/(attention/(q|k|v|o)|mlp/(gate|up|down))/kernel"
# Linear maps by path: how many of their axes are inputs, and Hugging Face's name.
_LINEAR: dict[str, tuple[int, str]] = {
    "attention/q": (1, "self_attn.q_proj"),
    "attention/k": (1, "self_attn.k_proj"),
    "attention/v": (1, "self_attn.v_proj"),
    "attention/o": (2, "self_attn.o_proj"),
    "mlp/gate": (1, "mlp.gate_proj"),
    "mlp/up": (1, "mlp.up_proj"),
    "mlp/down": (1, "mlp.down_proj"),
}
_OURS = {name: path for path, (_, name) in _LINEAR.items()}
# Families whose checkpoints fuse these maps: PEFT has no layer to put an adapter on.
_FUSED = {
    "phi3": ("attention/q", "attention/k", "attention/v", "mlp/gate", "mlp/up"),
}
_PEFT_KEY = re.compile(
    r"(?:base_model\.model\.)?model\.layers\.(\d+)\.(.+)\.lora_([AB])"
    r"(?:\.default)?\.weight"
)


class AdapterMismatchError(ValueError):
    """An adapter does not fit its base, or is of a kind that is not supported."""


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
    linear = [path for path in paths if _linear(path) is not None]
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
    for path, a, b in _modules(adapter):
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


def to_peft(
    adapter: Params,
    config: LoraConfig,
    *,
    family: str,
    base: str,
    task: str = "CAUSAL_LM",
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `peft` loads: tensors by PEFT's keys, and `adapter_config.json`.

    Args:
      adapter: of `init_lora`, trained.
      config: its rank, alpha and targets.
      family: of the base, "llama", "qwen2", ...; one with fused projections has no
        place for some adapters.
      base: name or directory of the base model, as the file records it.
      task: PEFT's task type, "CAUSAL_LM" or "TOKEN_CLS".

    Raises:
      AdapterMismatchError: a target is part of a fused projection.
    """
    tensors: dict[str, np.ndarray] = {}
    names = []
    for path, a, b in _modules(adapter):
        short = path.removeprefix("layers/")
        if short in _FUSED.get(family, ()):
            raise AdapterMismatchError(
                f"{family} checkpoints fuse {path} with its neighbours, and PEFT puts "
                "no adapter on a part of a layer: export the merged model, or train "
                "with lora.targets='layers/(attention/o|mlp/down)/kernel'"
            )
        name = _LINEAR[short][1]
        names.append(name.rpartition(".")[2])
        for layer in range(a.shape[0]):
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = np.ascontiguousarray(a[layer].T)
            tensors[f"{key}.lora_B.weight"] = np.ascontiguousarray(b[layer].T)
    fields = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(names),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
    return tensors, fields


def from_peft(
    tensors: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    params: Params,
    *,
    base: str | None = None,
) -> tuple[Params, LoraConfig, dict[str, np.ndarray]]:
    """An adapter that `peft` or `to_peft` wrote.

    Args:
      tensors: of `adapter_model.safetensors`.
      fields: of `adapter_config.json`.
      params: the base's backbone, or its shapes.
      base: the name that the adapter must record for its base; None takes any.

    Returns:
      The adapter, its config, and the tensors that belong to no backbone (heads).

    Raises:
      AdapterMismatchError: another base, another kind of adapter, or tensors missing.
    """
    _check_fields(fields, base)
    leaves = dict(_leaves(params))
    parts: dict[tuple[str, int, str], np.ndarray] = {}
    rest: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        match = _PEFT_KEY.fullmatch(key)
        if match is None:
            if "lora_" in key:
                raise AdapterMismatchError(f"the adapter has {key}, and no such layer")
            rest[key] = np.asarray(tensor)
            continue
        layer, name, side = match.groups()
        path = f"layers/{_OURS.get(name, name)}"
        if f"{path}/kernel" not in leaves or _linear(f"{path}/kernel") is None:
            raise AdapterMismatchError(
                f"the adapter has {key}, but the base has no {name}: it was made for "
                "another base"
            )
        parts[path, int(layer), side] = np.asarray(tensor)
    rank, alpha = int(fields["r"]), float(fields["lora_alpha"])
    adapter: dict[str, Any] = {}
    paths = sorted({path for path, _, _ in parts})
    if not paths:
        raise AdapterMismatchError("the adapter file holds no lora_A or lora_B")
    most = 1 + max(layer for _, layer, _ in parts)
    for path in paths:
        layers, inputs, outputs = _matrix(path, leaves[f"{path}/kernel"].shape)
        if most > layers:
            raise AdapterMismatchError(
                f"the adapter has {most} layers, the base {layers}: it was made for "
                "another base"
            )
        node = _node(adapter, path)
        for side, ours, shape in (
            ("A", "lora_a", (rank, inputs)),
            ("B", "lora_b", (outputs, rank)),
        ):
            stack = []
            for layer in range(layers):
                tensor = parts.get((path, layer, side))
                if tensor is None:
                    raise AdapterMismatchError(
                        f"the adapter lacks lora_{side} of {path}, layer {layer}; all "
                        f"{layers} layers need one"
                    )
                if tensor.shape != shape:
                    raise AdapterMismatchError(
                        f"lora_{side} of {path}, layer {layer}, has shape "
                        f"{tensor.shape}, and the base needs {shape}: it was made for "
                        "another base"
                    )
                stack.append(tensor.astype(np.float32).T)
            node[ours] = jnp.asarray(np.stack(stack))
    short = "|".join(path.removeprefix("layers/") for path in paths)
    return adapter, LoraConfig(rank, alpha, f"layers/({short})/kernel"), rest


def _check_fields(fields: Mapping[str, Any], base: str | None) -> None:
    for name in ("peft_type", "r", "lora_alpha"):
        if name not in fields:
            raise AdapterMismatchError(f"adapter_config.json has no {name!r}")
    # What changes the formula, and the one value that we compute.
    plain: dict[str, tuple[Any, ...]] = {
        "peft_type": ("LORA",),
        "bias": ("none", None),
        "use_dora": (False, None),
        "use_rslora": (False, None),
        "rank_pattern": ({}, None),
        "alpha_pattern": ({}, None),
        "layer_replication": (None,),
    }
    for name, allowed in plain.items():
        value = fields.get(name, allowed[0])
        if value not in allowed:
            raise AdapterMismatchError(
                f"adapter_config.json: {name}={value!r} is not supported, only "
                f"{allowed[0]!r}"
            )
    recorded = fields.get("base_model_name_or_path")
    if base is not None and recorded != base:
        raise AdapterMismatchError(
            f"the adapter was made for the base {recorded!r}, not for {base!r}"
        )


def _leaves(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, array) of a tree of mappings."""
    for name, inner in params.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", inner


def _modules(adapter: Params) -> Iterator[tuple[str, Any, Any]]:
    """(path, A, B) of every adapted module."""
    leaves = dict(_leaves(adapter))
    for path in leaves:
        if path.endswith("/lora_a"):
            module = path.removesuffix("/lora_a")
            yield module, leaves[path], leaves[f"{module}/lora_b"]


def _linear(path: str) -> tuple[int, str] | None:
    module = path.removesuffix("/kernel").removeprefix("layers/")
    return _LINEAR.get(module) if path.endswith("/kernel") else None


def _matrix(path: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(L, in, out) of a stacked kernel."""
    inputs = 1 + _LINEAR[path.removeprefix("layers/")][0]
    return shape[0], math.prod(shape[1:inputs]), math.prod(shape[inputs:])


def _node(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """The mapping at a path, made where it is missing."""
    for name in path.split("/"):
        tree = tree.setdefault(name, {})
    return tree
