"""Fields of config.json and files of a folder: as `AutoModel` takes them, or refused.

The fields that can change logits are listed in `aprm_jax.hf.config_fields`. Two tests
hold the lists against the installed transformers: one against the fields of its
classes, one against what its code asks a config for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_hf
from safetensors.numpy import load_file, save_file
from tiny_decoder import forward
from transformers import CONFIG_MAPPING

from aprm_jax.config.groups import MeshConfig
from aprm_jax.hf import config_fields
from aprm_jax.hf.architectures import FAMILIES, UnsupportedModelError
from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.config_writer import hf_config
from aprm_jax.hf.load import load_backbone
from aprm_jax.training.mesh import make_mesh

T = 48
SLIDING, FULL = "sliding_attention", "full_attention"
LISTED = config_fields.READ | config_fields.INERT
LISTED |= {*config_fields.OPTIONS, *config_fields.NEEDED}
ADVICE = (
    "If it changes logits, read it in decoder_config or name it in OPTIONS (refused "
    "where it is set) or NEEDED (where it is off); if not, in INERT or below."
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Any:
    """A saved model of a family, whose layers outweigh its embedding."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            model = tiny_hf.hf_model(family, tie_word_embeddings=False)
            import torch

            with torch.no_grad():
                for key, value in model.named_parameters():
                    if ".layers." in key and value.ndim == 2:
                        value.mul_(4.0)
            made[family] = tiny_hf.save(model, tmp_path_factory.mktemp(family))
        return made[family]

    return of


def edited(source: Path, target: Path, changes: dict[str, Any]) -> Path:
    """A copy with other fields; None takes one out."""
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    fields = json.loads((target / "config.json").read_text()) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    (target / "config.json").write_text(json.dumps(kept))
    return target


def logits_of_both(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    torch = pytest.importorskip("torch")
    import transformers

    tokens = np.random.default_rng(0).integers(3, 30, (1, T)).astype(np.int32)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    )
    with torch.inference_mode():
        theirs = model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    loaded = load_backbone(folder, make_mesh(MeshConfig(), jax.devices()[:1]))
    return np.asarray(forward(loaded.config, loaded.params, tokens)), theirs


def longrope(original: int) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.2, 1.4, 1.6],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "original_max_position_embeddings": original,
    }


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TOP = {"rope_parameters": None, "rope_theta": 100.0}
TOP |= {"original_max_position_embeddings": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a window first": ("mistral", {"layer_types": [SLIDING, FULL]}),
    "a window last": ("mistral", {"layer_types": [FULL, SLIDING]}),
    "no window": ("mistral", {"layer_types": [FULL, FULL]}),
    "yarn": ("llama", {**TOP, "rope_scaling": {"type": "yarn", "factor": 4.0}}),
    "longrope": ("qwen2", {**TOP, "rope_scaling": longrope(64)}),
    "llama3": ("qwen3", {**TOP, "rope_scaling": LLAMA3}),
    "new spelling": (
        "llama",
        {**TOP, "rope_parameters": {**LLAMA3, "rope_theta": 100.0}},
    ),
    "a factor of the lengths": (
        "mistral",
        {**TOP, "sliding_window": 64, "rope_scaling": longrope(64)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_automodel(name, folders, tmp_path):
    family, changes = CASES[name]
    ours, theirs = logits_of_both(edited(folders(family), tmp_path, changes))
    assert theirs.std() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_types_of_a_mistrals_layers_survive_an_export(tmp_path):
    pytest.importorskip("torch")
    import transformers

    config = decoder_config(
        json.loads(tiny_hf.hf_model("mistral").config.to_json_string())
        | {"architectures": ["MistralForCausalLM"], "layer_types": [FULL, SLIDING]}
    )
    assert (config.layer_pattern, config.sliding_window) == ("gl", 8)
    written = hf_config(config, "mistral", max_position_embeddings=256)
    assert decoder_config(written) == config
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.layer_types == [FULL, SLIDING] and theirs.sliding_window == 8


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_that_looks_ahead_is_refused(family, folders, tmp_path):
    for off in (False, 0):
        folder = edited(folders(family), tmp_path, {"is_causal": off})
        with pytest.raises(UnsupportedModelError, match="is_causal"):
            load_backbone(folder, make_mesh(MeshConfig(), jax.devices()[:1]))
    fields = json.loads((folder / "config.json").read_text())
    with pytest.raises(UnsupportedModelError, match="is_causal=None"):
        decoder_config(fields | {"is_causal": None})
    decoder_config(fields | {"is_causal": True})
    inner = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": fields,
    }
    if family == "gemma3":
        with pytest.raises(UnsupportedModelError, match="is_causal"):
            decoder_config(inner)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "llama",
            {"per_layer_config": {"0": {"intermediate_size": 8}}},
            "per_layer_config",
        ),
        (
            "qwen2",
            {"transformers_weights": "other.safetensors"},
            "transformers_weights=",
        ),
        ("llama", {"rope_parameters": {"rope_theta": "100"}}, "'100' is no number"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_theta": 100.0,
                    FULL: {"rope_type": "default", "rope_theta": 5.0},
                }
            },
            "each layer type in a llama",
        ),
        (
            "qwen2",
            {
                "rope_parameters": {
                    FULL: {"rope_type": "default", "rope_theta": 5.0},
                    SLIDING: {"rope_type": "default", "rope_theta": 50.0},
                }
            },
            "each layer type in a qwen2",
        ),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(family, changes, message, folders):
    fields = json.loads((folders(family) / "config.json").read_text())
    decoder_config(fields)
    with pytest.raises(UnsupportedModelError, match=message):
        decoder_config(fields | changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_the_classes_is_listed(family):
    kinds = [FAMILIES[family][0]] + ["ministral"] * (family == "mistral")
    for kind in kinds:
        names = {field.name for field in dataclasses.fields(CONFIG_MAPPING[kind])}
        assert len(names) > 20
        assert not names - LISTED, f"new in transformers: {names - LISTED}. {ADVICE}"


def test_a_field_that_is_not_listed_is_refused_where_it_is_set(monkeypatch, folders):
    known = CONFIG_MAPPING["llama"]

    class Newer(known):
        residual_share: float = 1.0

    monkeypatch.setattr(config_fields, "config_class", lambda kind: Newer)
    fields = json.loads((folders("llama") / "config.json").read_text())
    assert decoder_config(fields | {"residual_share": 1.0}) == decoder_config(fields)
    with pytest.raises(UnsupportedModelError, match=r"residual_share=0\.5: a field"):
        decoder_config(fields | {"residual_share": 0.5})


# What transformers' code asks a config for besides: methods, ways of computing the
# same, and what belongs to other models, caches and heads.
_ASKED = {
    "json",  # of config.json in comments
    *("_attn_implementation", "default_theta", "get_text_config", "is_heterogeneous"),
    *("name_or_path", "nested_rope_parameter_keys", "standardize_rope_params"),
    *("validate_rope", "get_mtp_config", "chain_hidden_post_norm"),
    *("classifier_dropout", "hidden_dropout", "num_labels"),
    "attention_chunk_size",  # of layers that are refused by their type
    # Of heads that predict several tokens, which none of these families has.
    *("logits_mup_width_multiplier", "mtp_hidden_states_first", "unpadded_vocab_size"),
    "token_classification_bias",  # `prm_layouts` reads it
    # Of the images of a Gemma 3.
    *("image_token_id", "mm_tokens_per_image", "text_config", "vision_config"),
}
_SHARED = ("masking_utils", "modeling_layers", "modeling_rope_utils")


def test_all_that_transformers_code_asks_a_config_for_is_listed():
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    names = [*FAMILIES, "ministral"]
    files = [root / "models" / name / f"modeling_{name}.py" for name in names]
    files += [root / f"{name}.py" for name in _SHARED]
    asked: dict[str, str] = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        found = re.findall(r"\bconfig\.([a-z_]\w*)", text)
        found += re.findall(r"attr\(\s*[\w.]*config[\w.()]*,\s*\"(\w+)\"", text)
        asked |= dict.fromkeys(found, file.name)
    assert {"hidden_size", "is_causal", "head_dim"} <= asked.keys()
    new = {name: file for name, file in asked.items() if name not in LISTED | _ASKED}
    assert not new, f"new in transformers: {new}. {ADVICE}"


def test_a_single_file_goes_before_an_index(folders, tmp_path):
    """As in transformers: shards of an older export may lie beside it."""
    torch = pytest.importorskip("torch")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folders("llama"), dtype=torch.float32
    )
    tiny_hf.save(model, tmp_path, "20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    tensors = load_file(folders("llama") / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][::-1].copy()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours, theirs = logits_of_both(tmp_path)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
