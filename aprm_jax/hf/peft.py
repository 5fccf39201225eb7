"""PEFT's LoRA adapters: read onto the checkpoint that they change, and written.

An adapter is read as what it does to its base's tensors, named as the base's checkpoint
names them: adds scale B A, replaces a tensor or rows of it, gives rows another length
(DoRA). `Adapted` computes that block by block as the checkpoint is read, in float32, so
it works for every tensor, fused or not, and no device holds more than its shard.

What `adapter_config.json` may say is listed below field by field. Another field, or a
value that is not known, is refused by name: it could change the result.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import regex

from aprm_jax.config.errors import UserError
from aprm_jax.hf.families import TABLES
from aprm_jax.hf.safetensors_io import Checkpoint, Slices
from aprm_jax.hf.tables import ENDS, canonical
from aprm_jax.models import lora
from aprm_jax.models.io import ModelFileError, read_object

ADAPTER_FILE = "adapter_config.json"
# Fields that are read below, and fields without effect on a trained adapter.
_READ = frozenset(
    (
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_bias",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "trainable_token_indices",
        "use_dora",
        "use_rslora",
    )
)
_INERT = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    )
)
# Ways to initialise that leave the base as it is; the others change the base's own
# weights as PEFT loads the adapter.
_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
_LISTS = {
    "target_modules": str,
    "exclude_modules": str,
    "modules_to_save": str,
    "layers_pattern": str,
    "layers_to_transform": int,
}
_WRAPPED = ".base_layer"
_SAVED = regex.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)")
_LORA = regex.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?:\.(?P<kind>weight|bias))?"
)
_TOKENS = regex.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.([^.]+))?")
_EYES = r"(model\.)?(vision_tower|multi_modal_projector)\."
_PATTERN_SECONDS = 1.0  # an adapter's own regular expression may take no longer


class AdapterMismatchError(UserError, ValueError):
    """An adapter does not fit its base, or is of a kind that is not supported."""


@dataclasses.dataclass(frozen=True)
class Delta:
    """What LoRA does to a matrix W [out, in]: W + scale B A.

    Attributes:
      a: [r, in], float32.
      b: [out, r], float32.
      scale: of B A.
      lengths: [out] of the rows of the sum, for DoRA (arXiv:2402.09353); None for none.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float
    lengths: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return len(self.b), self.a.shape[1]


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter by the tensors that it changes, named as in `families.TABLES`.

    Attributes:
      base: the name that it records for its base; "" for none.
      deltas: of matrices.
      added: to vectors, a bias.
      replaced: whole tensors, before a delta.
      rows: indices and rows that are replaced.
      head: tensors of no backbone, such as "score.weight", by their own names.
    """

    base: str
    deltas: dict[str, Delta]
    added: dict[str, np.ndarray]
    replaced: dict[str, np.ndarray]
    rows: dict[str, tuple[np.ndarray, np.ndarray]]
    head: dict[str, np.ndarray]

    @property
    def changed(self) -> set[str]:
        """The tensors that it changes."""
        return {*self.deltas, *self.added, *self.replaced, *self.rows}

    @property
    def unties(self) -> bool:
        """Whether it tells a tied LM head from the embedding: PEFT trains one alone.

        Rows of single tokens it replaces in both.
        """
        ends = {f"{name}.weight" for name in ENDS}
        return bool(ends & {*self.deltas, *self.replaced})


class Adapted:
    """A checkpoint with an adapter merged in, as far as `Checkpoint` is read.

    Where an adapter changes one of a tied embedding and LM head, both are there.

    Raises:
      AdapterMismatchError: the base has no such tensor, or one of another shape.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter):
        self.directory = checkpoint.directory
        self.shapes = dict(checkpoint.shapes)
        self._checkpoint, self._adapter = checkpoint, adapter
        self._names: dict[str, str] = {}  # of the checkpoint -> of the adapter
        self._same: dict[str, str] = {}
        for key in checkpoint.shapes:
            self._names[key] = canonical(key) or key
        by_name = {name: key for key, name in self._names.items()}
        embedding = by_name.get("model.embed_tokens.weight")
        parted = adapter.unties and "lm_head.weight" not in by_name
        if parted and embedding is not None:
            head = f"{_outer(embedding)}lm_head.weight"
            self._same[head] = embedding
            self.shapes[head] = self.shapes[embedding]
            self._names[head], by_name["lm_head.weight"] = "lm_head.weight", head
        self._check(by_name)

    def _check(self, by_name: Mapping[str, str]) -> None:
        a = self._adapter
        wanted: list[tuple[str, tuple[int, ...]]] = [
            *((name, delta.shape) for name, delta in a.deltas.items()),
            *((name, value.shape) for name, value in a.added.items()),
            *((name, value.shape) for name, value in a.replaced.items()),
        ]
        for name, shape in wanted:
            if name not in by_name:
                raise AdapterMismatchError(
                    f"the adapter changes {name}, which the base has not: it was made "
                    "for another base"
                )
            if (found := tuple(self.shapes[by_name[name]])) != tuple(shape):
                raise AdapterMismatchError(
                    f"the adapter's {name} is {tuple(shape)}, the base's {found}: it "
                    "was made for another base"
                )
        for name, (indices, values) in a.rows.items():
            found = tuple(self.shapes.get(by_name.get(name, ""), ()))
            outside = [i for i in indices.tolist() if not 0 <= i < (*found, 0)[0]]
            if outside or found[1:] != values.shape[1:]:
                raise AdapterMismatchError(
                    f"the adapter's rows of {name} are {values.shape}, up to token "
                    f"{int(max(indices, default=0))}, and the base's {found}: it was "
                    "made for another base"
                )

    def dtype(self, key: str) -> np.dtype:
        """The dtype of a tensor: float32 of one that the adapter changes."""
        changed = self._names.get(key) in self._adapter.changed
        found = self._checkpoint.dtype(self._same.get(key, key))
        return np.dtype(np.float32) if changed else found

    def read(
        self, key: str, slices: Slices | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """As `Checkpoint.read`."""
        name = self._names.get(key, key)
        if name not in self._adapter.changed:
            return self._checkpoint.read(self._same.get(key, key), slices, out)
        shape = self.shapes[key]
        cuts = slices or (slice(None),) * len(shape)
        block = self._block(key, name, cuts)
        if out is None:
            return np.ascontiguousarray(block)
        out[...] = block
        return out

    def _block(self, key: str, name: str, cuts: Slices) -> np.ndarray:
        a = self._adapter
        delta = a.deltas.get(name)
        whole_rows = delta is not None and delta.lengths is not None
        read = (cuts[0], *(slice(None) for _ in cuts[1:])) if whole_rows else cuts
        if name in a.replaced:
            block = a.replaced[name][read].astype(np.float32)
        else:
            source = self._same.get(key, key)
            block = self._checkpoint.read(source, read).astype(np.float32)
        if name in a.rows:
            self._put_rows(block, name, read)
        if name in a.added:
            block = block + a.added[name][read]
        if delta is None:
            return block
        left, right = delta.b[read[0]], delta.a[:, read[1]]
        block = block + delta.scale * (left @ right)
        if delta.lengths is None:
            return block
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        return (block * (delta.lengths[cuts[0], None] / norms))[:, cuts[1]]

    def _put_rows(self, block: np.ndarray, name: str, cuts: Slices) -> None:
        indices, values = self._adapter.rows[name]
        start, stop, _ = cuts[0].indices(1 << 62)
        for index, row in zip(indices.tolist(), values, strict=True):
            if start <= index < stop:
                block[index - start] = row[cuts[1]]


def adapted(
    checkpoint: Checkpoint, adapter: Adapter, folder: str | os.PathLike[str]
) -> Adapted:
    """`Adapted`, with the adapter's folder in its errors."""
    try:
        return Adapted(checkpoint, adapter)
    except AdapterMismatchError as error:
        raise AdapterMismatchError(f"{os.fspath(folder)}: {error}") from error


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


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raises AdapterMismatchError for a field that would change the result unseen."""
    for name in ("peft_type", "r", "lora_alpha"):
        if name not in fields:
            raise AdapterMismatchError(f"adapter_config.json has no {name!r}")
    if fields["peft_type"] != "LORA":
        _refuse("peft_type", fields["peft_type"], "only 'LORA' is")
    for name, value in fields.items():
        if name not in _READ | _INERT and value not in (None, False, (), [], {}, ""):
            _refuse(name, value)
    init = fields.get("init_lora_weights", True)
    if init not in _PLAIN_INITS and init is not None:
        _refuse(
            "init_lora_weights",
            init,
            "it changes the base's own weights too. Save the adapter with PEFT's "
            "path_initial_model_for_weight_conversion, or merge it there "
            "(merge_and_unload) and name the merged model",
        )
    if fields.get("bias", "none") not in ("none", "all", "lora_only"):
        _refuse("bias", fields["bias"])
    if fields.get("use_dora") and fields.get("lora_bias"):
        _refuse("lora_bias", True, "not together with use_dora")
    for name, kind in _LISTS.items():
        given = fields.get(name)
        each = given if isinstance(given, list) else [given]
        if given is not None and not all(isinstance(x, kind) for x in each):
            _refuse(name, given, f"{kind.__name__}s are")
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = fields.get(name) or {}
        if not isinstance(pattern, Mapping) or not all(
            isinstance(k, str) and _number(v) for k, v in pattern.items()
        ):
            _refuse(name, pattern, "it maps a module's pattern to a positive number")
    for name in ("r", "lora_alpha"):
        if not _number(fields[name]):
            _refuse(name, fields[name], "a positive number is")


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
    rank = int(_of_pattern(fields, "rank_pattern", module, fields["r"]))
    if a.ndim != 2 or b.ndim != 2 or len(a) != rank or b.shape[1] != rank:
        raise AdapterMismatchError(
            f"lora_A and lora_B of {module} are {a.shape} and {b.shape}, but "
            f"adapter_config.json gives them rank {rank}"
        )
    alpha = float(_of_pattern(fields, "alpha_pattern", module, fields["lora_alpha"]))
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
    found = [ids for name, ids in of_module.items() if _ends(module, name)]
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
        if not _targeted(module, fields):
            raise AdapterMismatchError(
                f"the adapter has LoRA on {module}, which target_modules, "
                "exclude_modules or layers_to_transform of adapter_config.json leave "
                "out"
            )
    for name in filter(canonical, fields.get("modules_to_save") or ()):
        saved = (key.rpartition(".")[0] for key in plain)
        if not any(_ends(module, name) or f"{name}." in module for module in saved):
            raise AdapterMismatchError(
                f"modules_to_save names {name!r}, of which the adapter has no tensor"
            )


def _targeted(module: str, fields: Mapping[str, Any]) -> bool:
    """PEFT's `check_target_module_exists`."""
    excluded, targets = fields.get("exclude_modules"), fields.get("target_modules")
    if isinstance(excluded, str):
        if excluded and _matches(excluded, module, "exclude_modules"):
            return False
    elif any(_ends(module, name) for name in excluded or ()):
        return False
    if targets is None or targets == "all-linear":
        found = True
    elif isinstance(targets, str):
        return bool(_matches(targets, module, "target_modules"))
    else:
        found = any(_ends(module, name) for name in targets)
    layers = fields.get("layers_to_transform")
    if not found or layers is None or layers == []:
        return found
    return _layer_of(module, fields) in (
        [layers] if isinstance(layers, int) else layers
    )


def _layer_of(module: str, fields: Mapping[str, Any]) -> int | None:
    named = fields.get("layers_pattern") or []
    patterns = [named] if isinstance(named, str) else named
    spelt = [rf"(?:^|.*?\.){p}\.(?P<idx>\d+)\..*" for p in patterns]
    for pattern in spelt or [r".*?\.[^.]*\.(?P<idx>\d+)\..*"]:
        if match := _matches(pattern, module, "layers_pattern"):
            return int(match["idx"])
    return None


def _of_pattern(
    fields: Mapping[str, Any], field: str, module: str, default: Any
) -> Any:
    """PEFT's `get_pattern_key`: the first pattern that a module's name ends with."""
    for pattern, value in (fields.get(field) or {}).items():
        if _matches(rf"(.*\.)?({pattern})$", module, field):
            return value
    return default


def _matches(pattern: str, name: str, field: str) -> Any:
    try:
        return regex.fullmatch(pattern, name, timeout=_PATTERN_SECONDS)
    except (regex.error, TimeoutError) as error:
        reason = str(error) or "it takes too long"
        raise AdapterMismatchError(
            f"adapter_config.json: {field} holds the pattern {pattern!r:.80}, which "
            f"cannot be used: {reason}"
        ) from None


def _ends(module: str, name: Any) -> bool:
    return module == name or module.endswith(f".{name}")


def _one_adapter(name: str | None, key: str) -> None:
    if name not in (None, "default"):
        raise AdapterMismatchError(
            f"the adapter file holds an adapter named {name!r} ({key}): save one alone "
            "with PEFT's save_pretrained(selected_adapters=[...])"
        )


def _outer(key: str) -> str:
    return "language_model." if key.startswith("language_model.model.") else ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _refuse(name: str, value: Any, why: str = "") -> None:
    text = f"{value!r:.80}"
    raise AdapterMismatchError(
        f"adapter_config.json: {name}={text} is not supported{': ' * bool(why)}{why}"
    )
