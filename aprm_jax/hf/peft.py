"""PEFT's LoRA adapters: read from its files, and written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import regex

from aprm_jax.hf.adapters import Adapter, AdapterMismatchError, Delta
from aprm_jax.hf.families import TABLES
from aprm_jax.hf.peft_fields import check_fields, ends_with, is_targeted, of_pattern
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.hf.tables import ENDS, canonical
from aprm_jax.models import lora
from aprm_jax.models.io import ModelFileError, read_object

ADAPTER_FILE = "adapter_config.json"
_WRAPPED = ".base_layer"
_SAVED = regex.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)")
_LORA = regex.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?:\.(?P<kind>weight|bias))?"
)
_TOKENS = regex.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.([^.]+))?")
_EYES = r"(model\.)?(vision_tower|multi_modal_projector)\."


def adapter_fields(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The adapter_config.json of a folder.

    Raises:
      ModelFileError: there is none, or it is no JSON object.
    """
    folder = Path(directory)
    if not (folder / ADAPTER_FILE).is_file():
        named = sorted(p.parent.name for p in folder.glob(f"*/{ADAPTER_FILE}"))
        hint = f"; adapters lie in {', '.join(named)}: name one's folder" * bool(named)
        raise ModelFileError(
            f"{folder / ADAPTER_FILE}: missing, so no PEFT adapter{hint}"
        )
    return read_object(folder / ADAPTER_FILE)


def adapter_base(directory: str | os.PathLike[str]) -> str:
    """The name or folder of the base that a PEFT adapter was made for.

    Raises:
      ModelFileError: adapter_config.json is damaged, or names none.
    """
    base = adapter_fields(directory).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        path = Path(directory) / ADAPTER_FILE
        raise ModelFileError(f"{path}: base_model_name_or_path is {base!r}, no name")
    return base


def base_of(directory: Path) -> tuple[str, str | None] | None:
    """Name and revision of the base of the adapter in a folder; None for no adapter.

    Raises:
      ModelFileError: as of `adapter_base`.
    """
    if not (directory / ADAPTER_FILE).is_file():
        return None
    return adapter_base(directory), adapter_fields(directory).get("revision")


def load_adapter(directory: str | os.PathLike[str]) -> Adapter:
    """Reads a folder of PEFT's: adapter_config.json and adapter_model.safetensors.

    Raises:
      ModelFileError: a file is missing or damaged.
      AdapterMismatchError: a kind of adapter that is not supported.
    """
    folder = Path(directory)
    fields = adapter_fields(folder)
    with Checkpoint.open(folder, "adapter_model") as checkpoint:
        tensors = {key: checkpoint.read(key) for key in checkpoint.shapes}
    try:
        return parse(tensors, fields)
    except AdapterMismatchError as error:
        raise AdapterMismatchError(f"{folder}: {error}") from error


def parse(tensors: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> Adapter:
    """An adapter from its tensors by PEFT's keys and its adapter_config.json.

    Raises:
      AdapterMismatchError: names the field or the tensor that is not supported.
    """
    check_fields(fields)
    plain: dict[str, np.ndarray] = {}
    parts: dict[str, dict[str, np.ndarray]] = {}
    tokens: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        key = _SAVED.sub("", key.removeprefix("base_model.model."))
        if regex.match(_EYES, key):
            continue  # of the images that a text model does not see
        value = np.asarray(tensor, np.float32)
        if match := _LORA.fullmatch(key):
            _one_adapter(match["adapter"], key)
            kind = f"{match['part']}{'.bias' * (match['kind'] == 'bias')}"
            parts.setdefault(match["module"], {})[kind] = value
        elif match := _TOKENS.fullmatch(key):
            tokens[match[1]] = value
        elif "lora_" in key:
            raise AdapterMismatchError(
                f"the adapter has {key}, which is no layer's LoRA that is supported"
            )
        else:
            plain[key.replace(_WRAPPED, "")] = value
    _check_modules(parts, plain, fields)
    read = Adapter(str(fields.get("base_model_name_or_path") or ""), {}, {}, {}, {}, {})
    for module, held in parts.items():
        _add_module(read, module, held, fields)
    for module, value in tokens.items():
        _add_rows(read, module, value, fields)
    for key, value in plain.items():
        if (name := canonical(key)) is None:
            read.head[key] = value
        else:
            read.replaced[name] = value
    if not parts and not tokens and not plain:
        raise AdapterMismatchError("the adapter file holds no tensors")
    return read


def to_peft(
    adapter: lora.Params,
    config: lora.LoraConfig,
    *,
    family: str,
    base: str,
    task: str = "CAUSAL_LM",
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `peft` loads: tensors by PEFT's keys, and `adapter_config.json`.

    Args:
      adapter: of `lora.init_lora`, trained.
      config: its rank, alpha and targets.
      family: of the base, "llama", "qwen2", ...; one with fused projections has no
        place for some adapters.
      base: name or directory of the base model, as the file records it.
      task: PEFT's task type, "CAUSAL_LM" or "TOKEN_CLS".

    Raises:
      AdapterMismatchError: a target is part of a fused projection.
    """
    layer_of = "model.layers.{layer}."
    places = {
        parts[0][0]: key.removeprefix(layer_of).removesuffix(".weight")
        for key, parts in TABLES[family]
        if key.startswith(layer_of) and len(parts) == 1
    }
    tensors: dict[str, np.ndarray] = {}
    names = []
    for path, a, b in lora.modules(adapter):
        name = places.get(f"{path}/kernel")
        if name is None:
            raise AdapterMismatchError(
                f"{family} checkpoints fuse {path} with its neighbours, and PEFT puts "
                "no adapter on a part of a layer: export the merged model, or train "
                "with lora.targets='layers/(attention/o|mlp/down)/kernel'"
            )
        names.append(name.rpartition(".")[2])
        for layer in range(a.shape[0]):
            key = f"base_model.model.{layer_of.format(layer=layer)}{name}"
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


def _add_module(
    read: Adapter, module: str, held: dict[str, np.ndarray], fields: Mapping[str, Any]
) -> None:
    """One module's LoRA."""
    kind = "embedding_" if "embedding_A" in held or "embedding_B" in held else ""
    missing = {f"{kind}A", f"{kind}B"} - held.keys()
    if missing:
        raise AdapterMismatchError(
            f"the adapter lacks lora_{missing.pop()} of {module}"
        )
    name = canonical(module)
    if name is None:
        raise AdapterMismatchError(
            f"the adapter has LoRA on {module}, which is no part of a decoder"
        )
    a, b = held.pop(f"{kind}A"), held.pop(f"{kind}B")
    rank = int(of_pattern(fields, "rank_pattern", module, fields["r"]))
    if a.ndim != 2 or b.ndim != 2 or len(a) != rank or b.shape[1] != rank:
        raise AdapterMismatchError(
            f"lora_A and lora_B of {module} are {a.shape} and {b.shape}, but "
            f"adapter_config.json gives them rank {rank}"
        )
    alpha = float(of_pattern(fields, "alpha_pattern", module, fields["lora_alpha"]))
    scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
    if kind:  # [r, V] and [D, r]: of the embedding's transpose
        a, b = b.T, a.T
    lengths = held.pop("magnitude_vector", None)
    if bool(fields.get("use_dora")) != (lengths is not None) or (
        kind and lengths is not None
    ):
        raise AdapterMismatchError(
            f"use_dora={fields.get('use_dora', False)} in adapter_config.json, and "
            f"{'a' if lengths is not None else 'no'} lora_magnitude_vector of {module}"
        )
    read.deltas[f"{name}.weight"] = Delta(a, b, scale, lengths)
    bias = held.pop("B.bias", None)
    if bias is not None:
        read.added[f"{name}.bias"] = scale * bias
    if held:
        raise AdapterMismatchError(
            f"the adapter has lora_{held.popitem()[0]}: {module}"
        )


def _add_rows(
    read: Adapter, module: str, values: np.ndarray, fields: Mapping[str, Any]
) -> None:
    """Rows of single tokens (`trainable_token_indices`)."""
    given = fields.get("trainable_token_indices")
    of_module: Mapping[str, Any] = (
        given if isinstance(given, Mapping) else {"embed_tokens": given}
    )
    found = [ids for name, ids in of_module.items() if ends_with(module, name)]
    name = canonical(module)
    if name is None or len(found) != 1 or not isinstance(found[0], list):
        raise AdapterMismatchError(
            f"trainable_token_indices={given!r} does not say which rows of {module} "
            "the adapter's are"
        )
    indices = np.asarray(found[0])
    if indices.shape != values.shape[:1] or indices.dtype.kind != "i":
        raise AdapterMismatchError(
            f"trainable_token_indices names {len(found[0])} rows of {module}, and the "
            f"adapter has {values.shape[0]}"
        )
    if f"{name}.weight" in read.deltas:
        raise AdapterMismatchError(
            f"trainable_token_indices and LoRA on one module, {module}, are not "
            "supported together"
        )
    read.rows[f"{name}.weight"] = indices, values


def _check_modules(
    parts: Mapping[str, Any], plain: Iterable[str], fields: Mapping[str, Any]
) -> None:
    """Tensors must be those that the config speaks of: PEFT passes over the others."""
    for module in parts:
        if not is_targeted(module, fields):
            if fields.get("ensure_weight_tying") and canonical(module) in ENDS:
                raise AdapterMismatchError(
                    "adapter_config.json: ensure_weight_tying=True is not supported "
                    f"where it puts LoRA on {module}, which target_modules does not "
                    "name: merge the adapter with PEFT (merge_and_unload)"
                )
            raise AdapterMismatchError(
                f"the adapter has LoRA on {module}, which target_modules, "
                "exclude_modules or layers_to_transform of adapter_config.json leave "
                "out"
            )
    for name in filter(canonical, fields.get("modules_to_save") or ()):
        saved = (key.rpartition(".")[0] for key in plain)
        if not any(ends_with(module, name) or f"{name}." in module for module in saved):
            raise AdapterMismatchError(
                f"modules_to_save names {name!r}, of which the adapter has no tensor"
            )


def _one_adapter(name: str | None, key: str) -> None:
    if name not in (None, "default"):
        raise AdapterMismatchError(
            f"the adapter file holds an adapter named {name!r} ({key}): save one alone "
            "with PEFT's save_pretrained(selected_adapters=[...])"
        )
