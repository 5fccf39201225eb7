"""Exports read back: by `load`, as a backbone, and by transformers 4."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import tiny_decoder
import tiny_hf
from tiny_tokenizers import TOKENIZERS

import aprm_jax
from aprm_jax.config.groups import MeshConfig
from aprm_jax.hf import load, peft
from aprm_jax.hf.adapters import AdapterMismatchError
from aprm_jax.hf.export import Origin, export_model
from aprm_jax.hf.locate import load_any
from aprm_jax.hf.prm_layouts import LayoutError
from aprm_jax.hf.record import RECORD_FILE
from aprm_jax.models import lora
from aprm_jax.models.io import ModelFileError, ModelSpec, save_model
from aprm_jax.training.mesh import make_mesh

SOLUTIONS = [(q, steps) for q, steps, _ in tiny.solutions()]


def spec_of(config: Any, **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "kind": "prm",
        "decoder": config,
        "head": "two_class",
        "window": None,
        "buckets": (32, 64),
        "domain": "arithmetic",
        "threshold": 0.4,
    }
    return ModelSpec(**{**fields, **changes})


def head_params(classes: int = 2, width: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 4 / width, (width, classes)).astype(np.float32)
    return {"kernel": kernel, "bias": rng.normal(size=classes).astype(np.float32)}


def scores(folder: Path) -> np.ndarray:
    prm = aprm_jax.PRM.load(folder)
    return np.concatenate(prm.score_batch(SOLUTIONS))


def same_as_exported(
    params: Any, spec: ModelSpec, tokenizer: Any, tmp_path: Path, format_: str
) -> Path:
    save_model(tmp_path / "ours", params, spec, tokenizer)
    want = scores(tmp_path / "ours")
    out = export_model(tmp_path / "out", params, spec, tokenizer, format_=format_)
    np.testing.assert_allclose(scores(out), want, atol=1e-5)
    assert np.ptp(want) > 1e-3
    again = aprm_jax.PRM.load(out)
    assert again.spec.threshold == spec.threshold and again.spec.window == spec.window
    return out


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize(
    ("format_", "head"),
    [
        ("token_classification", "two_class"),
        ("token_classification", "three_class"),
        ("qwen2_prm", "two_class"),
        ("skywork", "two_class"),
        ("causal_lm", "token"),
    ],
)
def test_an_export_of_our_rows_is_the_model(format_, head, window, tmp_path):
    config = tiny.decoder(attention_bias="qkv", tie_embeddings=window is None)
    numbers = {"scale": np.asarray(0.7), "bias": np.asarray(-0.3)}
    heads = {
        "two_class": head_params(),
        "three_class": head_params(3),
        "token": numbers,
    }
    params = {"backbone": tiny_decoder.make_params(config), "head": heads[head]}
    spec = spec_of(config, family="qwen2", head=head, window=window)
    same_as_exported(params, spec, tiny.tokenizer(), tmp_path, format_)


@pytest.mark.parametrize(
    ("layout", "format_"),
    [
        ("qwen2_prm", "qwen2_prm"),
        ("skywork", "skywork"),
        ("skywork", "token_classification"),
        ("trl", "token_classification"),
        ("math_shepherd", "token_classification"),
    ],
)
def test_an_export_of_a_published_prm_is_the_model(layout, format_, tmp_path):
    tokenizer = TOKENIZERS[layout]()
    rows = load.tokenizer_rows(tokenizer)
    shepherd = layout == "math_shepherd"
    config = tiny.decoder(
        rows, tie_embeddings=False, attention_bias="none" if shepherd else "qkv"
    )
    heads: dict[str, Any] = head_params()
    if layout == "qwen2_prm":
        heads["hidden"] = head_params(16)
    params = {"backbone": tiny_decoder.make_params(config, seed=2), "head": heads}
    family = "mistral" if shepherd else "qwen2"
    spec = spec_of(config, layout=layout, family=family, buckets=(256,))
    same_as_exported(params, spec, tokenizer, tmp_path, format_)


def adapted(tmp_path: Path) -> tuple[Any, ModelSpec, Any, Any]:
    folder = tiny_hf.save(tiny_hf.hf_model("qwen2"), tmp_path / "base")
    base = load.load_backbone(folder, make_mesh(MeshConfig(), jax.devices()[:1]))
    settings = lora.LoraConfig(2, 3.0, "layers/(attention/(q|o)|mlp/down)/kernel")
    tree = lora.init_lora(jax.random.key(0), base.params, settings)
    tree = jax.tree.map(lambda x: x + 0.2, tree)
    origin = Origin(base_model=str(folder), lora=dataclasses.asdict(settings))
    spec = spec_of(base.config, family="qwen2", extra=origin.extra())
    return {"lora": tree, "head": head_params(width=32)}, spec, base, settings


def test_an_exported_adapter_is_the_model(tmp_path):
    params, spec, base, settings = adapted(tmp_path)
    whole = lora.merged({"backbone": base.params}, params, settings)
    save_model(tmp_path / "ours", whole, spec, base.tokenizer)
    out = export_model(tmp_path / "out", params, spec, base.tokenizer, format_="peft")
    np.testing.assert_allclose(scores(out), scores(tmp_path / "ours"), atol=1e-5)


def test_an_adapter_for_token_classification_brings_its_head(tmp_path):
    """As TRL's trainer saves it: no record of ours, TRL's rows."""
    params, spec, base, _ = adapted(tmp_path)
    out = export_model(tmp_path / "out", params, spec, base.tokenizer, format_="peft")
    (out / RECORD_FILE).unlink()
    prm = aprm_jax.PRM.load(out)
    assert prm.spec.layout == "trl"
    np.testing.assert_array_equal(
        prm.params["head"]["kernel"], params["head"]["kernel"]
    )
    fields = json.loads((out / peft.ADAPTER_FILE).read_text())
    weights = out / "adapter_model.safetensors"
    import safetensors.numpy

    tensors = safetensors.numpy.load_file(weights)
    tensors["base_model.model.v_head.summary.weight"] = np.ones((1, 32), np.float32)
    safetensors.numpy.save_file(tensors, weights)
    with pytest.raises(AdapterMismatchError, match=r"has v_head.summary.weight"):
        aprm_jax.PRM.load(out)
    assert fields["base_model_name_or_path"] == str(tmp_path / "base")


def test_a_generators_export_writes_the_same(tmp_path):
    config = tiny.decoder(tie_embeddings=False)
    params = {"backbone": tiny_decoder.make_params(config, seed=3)}
    spec = spec_of(config, kind="generator", head=None, max_new_tokens=6)
    save_model(tmp_path / "ours", params, spec, tiny.tokenizer())
    out = export_model(tmp_path / "out", params, spec, tiny.tokenizer())
    question, steps = SOLUTIONS[1]
    one, other = (
        aprm_jax.Generator.load(folder).perturb(question, steps[:-1], steps[-1])
        for folder in (tmp_path / "ours", out)
    )
    assert one == other
    with pytest.raises(ModelFileError, match="holds a generator, and a prm is wanted"):
        aprm_jax.PRM.load(out)


def test_load_finds_the_model_of_a_stage_or_a_run(tmp_path):
    config = tiny.decoder()
    params = {"backbone": tiny_decoder.make_params(config), "head": head_params()}
    run = tmp_path / "run"
    for stage in ("static", "aprm"):
        save_model(run / stage / "model", params, spec_of(config), tiny.tokenizer())
    spec = spec_of(config, kind="generator", head=None, max_new_tokens=6)
    save_model(run / "aprm" / "generator" / "model", params, spec, tiny.tokenizer())
    for name in (run, run / "aprm", run / "static", run / "static" / "model"):
        assert load_any(name, "prm")[1].kind == "prm"
    assert aprm_jax.Generator.load(run).spec.kind == "generator"
    with pytest.raises(ModelFileError, match=r"no model .* 'generator'; .*\(prm\)"):
        load_any(run / "static", "generator")
    (run / "aprm").rename(run / "other")
    with pytest.raises(ModelFileError, match=r"2 models .* 'prm'.*static/model"):
        load_any(run, "prm")


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="no such folder, and no name of a model"):
        load_any(tmp_path / "absent", "prm")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelFileError, match=r"no model, only notes.txt. Name"):
        load_any(tmp_path, "prm")
    for name in ("config.json", "fingerprint.json"):
        (tmp_path / name).write_text("{}")
    # A run, or a stage, that was stopped before it had a model.
    stopped = r"{}. A stage writes its model when it ends: .* goes on"
    with pytest.raises(
        ModelFileError,
        match=r"no model, only config.json, fing.*" + stopped.format("notes.txt"),
    ):
        load_any(tmp_path, "prm")
    (stage := tmp_path / "solver" / "checkpoints").mkdir(parents=True)
    (stage.parent / ".metrics.jsonl.seal").write_text("")
    with pytest.raises(ModelFileError, match="only " + stopped.format("checkpoints")):
        load_any(stage.parent, "prm")
    base = tiny_hf.save(tiny_hf.hf_model("llama"), tmp_path / "base")
    with pytest.raises(LayoutError, match="a language model without a PRM's head"):
        load_any(base, "prm")


def test_a_record_with_an_older_name_or_without_a_newer_field_is_read(tmp_path):
    config = tiny.decoder()
    params = {"backbone": tiny_decoder.make_params(config), "head": head_params()}
    out = export_model(tmp_path / "out", params, spec_of(config), tiny.tokenizer())
    fields = json.loads((out / RECORD_FILE).read_text())
    fields["model"]["reading"] = fields["model"].pop("head")
    assert fields["model"].pop("values") is False  # of what was exported before
    (out / RECORD_FILE).write_text(json.dumps(fields))
    spec = aprm_jax.PRM.load(out).spec
    assert spec.head == "two_class" and not spec.values


def test_a_damaged_record_is_named(tmp_path):
    config = tiny.decoder()
    params = {"backbone": tiny_decoder.make_params(config), "head": head_params()}
    out = export_model(tmp_path / "out", params, spec_of(config), tiny.tokenizer())
    path = out / RECORD_FILE
    good = json.loads(path.read_text())
    for bad, message in (
        ("[" * 100_000, "nested too deep"),
        (json.dumps({**good, "version": 9}), "version 9, but this code reads 1"),
        (json.dumps({**good, "model": {}}), "not an export's record"),
        (json.dumps({**good, "head": [1]}), "not an export's record"),
    ):
        path.write_text(bad)
        with pytest.raises(ModelFileError, match=message):
            aprm_jax.PRM.load(out)


OLD = os.environ.get("APRM_TRANSFORMERS4_PYTHON")
WITH_4 = r"""
import importlib.util, json, sys
import transformers
assert transformers.__version__.startswith("4."), transformers.__version__
found = {}
for folder in json.load(sys.stdin):
    sys.modules.pop("score", None)
    spec = importlib.util.spec_from_file_location("score", folder + "/score.py")
    score = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(score)
    transformers.AutoTokenizer.from_pretrained(folder)
    use = score.score if score.MODEL["kind"] == "prm" else score.write
    found[folder] = use("2 + 3 * 4", ["2 + 12", "14"])
print(json.dumps(found))
"""


def families(tmp_path: Path) -> dict[Path, Any]:
    """Exports of every family and format that this version reads: folder -> want."""
    rope = {
        "llama": {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 50_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 8,
            }
        },
        "phi3": {
            "original_max_position_embeddings": 8,
            "partial_rotary_factor": 0.75,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 500.0,
                "short_factor": [1.0, 1.5, 2.0],
                "long_factor": [2.0, 4.0, 8.0],
            },
        },
        "qwen2": {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 500.0,
                "factor": 4.0,
                "original_max_position_embeddings": 8,
                "short_factor": [1.0, 1.5, 2.0, 2.5],
                "long_factor": [2.0, 4.0, 8.0, 16.0],
            }
        },
        "gemma3": {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 90.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
            "layer_types": ["sliding_attention", "full_attention"],
        },
    }
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    made = {}
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    for family in tiny_hf.FAMILIES:
        model = tiny_hf.hf_model(family, **rope.get(family, theta))
        folder = tiny_hf.save(model, tmp_path / f"{family}-base")
        base = load.load_backbone(folder, mesh)
        origin = Origin("", base.vocab_rows, model.config.max_position_embeddings)
        head = "token" if family == "gemma3" else "two_class"
        numbers = {"scale": np.asarray(0.7), "bias": np.asarray(-0.3)}
        params = {
            "backbone": base.params,
            "head": numbers if head == "token" else head_params(width=32),
        }
        spec = spec_of(base.config, family=family, head=head, extra=origin.extra())
        formats = ["auto", *(["qwen2_prm", "skywork"] if family == "qwen2" else [])]
        for format_ in formats:
            out = tmp_path / f"{family}-{format_}"
            export_model(out, params, spec, base.tokenizer, format_=format_)
            made[out] = aprm_jax.PRM.load(out).score("2 + 3 * 4", ["2 + 12", "14"])
    return made


@pytest.mark.skipif(not OLD, reason="APRM_TRANSFORMERS4_PYTHON names no python")
def test_transformers_4_computes_what_we_do(tmp_path):
    pytest.importorskip("torch")
    made = families(tmp_path)
    config = tiny.decoder(tie_embeddings=False, rope_theta=1e6)
    params = {"backbone": tiny_decoder.make_params(config, seed=3)}
    spec = spec_of(config, kind="solver", head=None, max_new_tokens=6)
    lm = export_model(tmp_path / "solver", params, spec, tiny.tokenizer())
    adapter, spec, base, _ = adapted(tmp_path)
    peft_folder = export_model(
        tmp_path / "peft", adapter, spec, base.tokenizer, format_="peft"
    )
    made[peft_folder] = aprm_jax.PRM.load(peft_folder).score(
        "2 + 3 * 4", ["2 + 12", "14"]
    )
    folders = [str(folder) for folder in (*made, lm)]
    done = subprocess.run(
        [str(OLD), "-c", WITH_4],
        input=json.dumps(folders),
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for folder, want in made.items():
        np.testing.assert_allclose(found[str(folder)], want, atol=1e-4, err_msg=folder)
    five = subprocess.run(
        [sys.executable, str(lm / "score.py"), "2 + 3 * 4", "2 + 12", "14"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert five.returncode == 0, five.stderr
    assert five.stdout.splitlines()[-1] == found[str(lm)]
