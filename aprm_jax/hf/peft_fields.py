"""What PEFT's adapter_config.json may say, field by field, and which modules it means.

Another field, or a value that is not known, is refused by name: it could change the
result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import regex

from aprm_jax.hf.adapters import AdapterMismatchError

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
_PATTERN_SECONDS = 1.0  # an adapter's own regular expression may take no longer


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


def is_targeted(module: str, fields: Mapping[str, Any]) -> bool:
    """PEFT's `check_target_module_exists`."""
    excluded, targets = fields.get("exclude_modules"), fields.get("target_modules")
    if isinstance(excluded, str):
        if excluded and _matches(excluded, module, "exclude_modules"):
            return False
    elif any(ends_with(module, name) for name in excluded or ()):
        return False
    if targets is None or targets == "all-linear":
        found = True
    elif isinstance(targets, str):
        return bool(_matches(targets, module, "target_modules"))
    else:
        found = any(ends_with(module, name) for name in targets)
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


def of_pattern(fields: Mapping[str, Any], field: str, module: str, default: Any) -> Any:
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


def ends_with(module: str, name: Any) -> bool:
    """Whether a module is called so, or its last parts are."""
    return module == name or module.endswith(f".{name}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _refuse(name: str, value: Any, why: str = "") -> None:
    text = f"{value!r:.80}"
    raise AdapterMismatchError(
        f"adapter_config.json: {name}={text} is not supported{': ' * bool(why)}{why}"
    )
