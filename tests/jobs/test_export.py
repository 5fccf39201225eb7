"""job=export: from a run's stage to a folder, and every way to be asked wrongly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import command
import jax
import numpy as np
import pytest
import tiny
import tiny_run

from aprm_jax.config import ConfigError, jobs, validate
from aprm_jax.config.groups import MeshConfig
from aprm_jax.evals.records import Record, write_results
from aprm_jax.hf import prm_layouts
from aprm_jax.hf.adapters import AdapterMismatchError
from aprm_jax.hf.export import ExportError, Origin
from aprm_jax.hf.load import load_backbone, read_architecture
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.jobs import checks, export, pipeline, start
from aprm_jax.jobs.context import Context
from aprm_jax.models import heads, lora
from aprm_jax.models.io import ModelSpec, save_model
from aprm_jax.models.lora import LoraConfig
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.training.mesh import make_mesh
from aprm_jax.training.workdir import done_info


def config(**fields):
    return tiny_run.config({"job": "export", "compilation_cache": ""}, **fields)


def write_model(folder: Path, line_stride: int = 0) -> None:
    decoder = tiny.decoder()
    spec = ModelSpec(
        kind="prm",
        decoder=decoder,
        head="two_class",
        window=None,
        buckets=(32,),
        domain="arithmetic",
        line_stride=line_stride,
    )
    params = heads.init_prm(
        jax.random.key(0), tiny.backbone(decoder), decoder.d_model, "two_class"
    )
    save_model(folder, params, spec, tiny.tokenizer())


@pytest.fixture
def root(tmp_path) -> Path:
    write_model(tmp_path / "run" / "aprm" / "model")
    return tmp_path / "run"


def test_a_finished_run_is_exported_without_its_data(root):
    c = config(
        export__model="aprm",
        domain__name="gsm8k",
        domain__train="datasets:openai/gsm8k",
        domain__test="gone/test.jsonl",  # the data may be gone
    )
    start.run(c, root)  # the first start here: it writes the config
    found = [
        Record("steps", "test", "aprm", "auc", 0.75),
        Record("steps", "test", "other", "auc", 0.1),
    ]
    write_results(root / "results.json", found)
    start.run(c, root)  # on request it is made again
    folder = root / "export" / "aprm-token_classification"
    info = done_info(root / "export")
    assert (info["directory"], info["format"]) == (str(folder), "token_classification")
    described = json.loads((folder / "config.json").read_text())
    assert described["architectures"] == ["LlamaForTokenClassification"]
    card = (folder / "README.md").read_text()
    assert "0.75" in card and "other" not in card
    assert '- "openai/gsm8k"' in card
    assert '"domain.name": "gsm8k"' in card
    assert str(root) not in card


def test_the_command_exports_from_a_run_by_its_folder_alone(root):
    start.run(config(export__model="aprm", seed=3), root)
    asked = (f"--workdir={root}", "--config.job=export")
    model = f"--config.export.directory={root / 'mine'}"
    code, output = command.call(root.parent, *asked, model)
    assert code == 0, output
    assert (root / "mine" / "model.safetensors").is_file()
    model = "--config.export.model=aprm"
    # A config file of other settings, as without the overrides of the first start.
    code, output = command.call(root.parent, command.QUICKSTART, *asked, model)
    assert code == 0, output
    assert json.loads((root / "config.json").read_text())["seed"] == 3
    named = "--config.seed=4"
    code, output = command.call(root.parent, command.QUICKSTART, *asked, model, named)
    assert code == 1 and "seed: there 3, now 4" in output, output


def test_a_folder_can_be_named_and_shards_have_a_size(root, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(export, "MEGABYTE", 1000)
    monkeypatch.setattr(
        export, "push", lambda *a, **k: sizes.append((a, k)) or "http://there"
    )
    c = config(
        export__model=str(root / "aprm" / "model"),
        export__directory=str(tmp_path / "out"),
        export__max_shard_size=2,
        export__push_to_hub="me/prm",
        export__private=False,
    )
    start.run(c, tmp_path / "other")
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert sizes == [((tmp_path / "out", "me/prm"), {"private": False})]
    assert done_info(tmp_path / "other" / "export")["address"] == "http://there"


def test_export_may_be_a_stage_of_the_pipeline():
    stages = ("solver:sft", "aprm:aprm", "hub:export")
    named = {"job": "pipeline", "export__model": "aprm/generator"}
    c = validate(config(stages=stages, **named))
    assert pipeline.chosen_stages(c)[-1] == ("hub", "export")
    contexts = [(Context(c, Path("nowhere"), "hub"), jobs()["export"])]
    with pytest.raises(ConfigError, match=r"export.model='aprm/generator' is neither"):
        checks.check_sources(contexts)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, ConfigError, "export.model is empty: name a stage"),
        (
            {"export__model": "aprn"},
            ConfigError,
            r"'aprn' is neither a model that is finished .aprm, strided. nor.*'aprm'",
        ),
        (
            {"export__model": "aprm", "export__format": "ggml"},
            ConfigError,
            "export.format must be one of auto",
        ),
        (
            {"export__model": "aprm", "export__max_shard_size": 0},
            ConfigError,
            "export.max_shard_size must be at least 1",
        ),
        (
            {"export__model": "aprm", "export__push_to_hub": "prm"},
            ExportError,
            "push_to_hub takes user/name, not 'prm'",
        ),
        (
            {"export__model": "aprm", "export__format": "causal_lm"},
            ExportError,
            "export it as token_classification",
        ),
        (
            {"export__model": "strided", "export__format": "skywork"},
            ExportError,
            "builder.line_stride=32",
        ),
    ],
)
def test_bad_requests_are_one_message(root, fields, error, message):
    write_model(root / "strided" / "model", line_stride=32)
    with pytest.raises(error, match=message):
        start.run(config(**fields), root)
    assert not list(root.glob("export/*"))


def test_a_foreign_folder_is_refused_before_anything_starts(root, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    c = config(export__model="aprm", export__directory=str(tmp_path / "mine"))
    with pytest.raises(ExportError, match="is no earlier export"):
        start.run(c, root)
    assert not (root / "config.json").exists()


def write_adapter(run: Path, base: Path) -> tuple[Path, dict]:
    """A player's adapter on a published PRM, as the game leaves it."""
    settings = LoraConfig(2, 3.0, "layers/attention/(q|o)/kernel")
    decoder, family = read_architecture(base)
    ours = prm_layouts.LAYOUTS["qwen2_prm"]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    backbone = load_backbone(base, mesh, ignore=ours.ignored)
    with Checkpoint.open(base) as checkpoint:
        tensors = {key: checkpoint.read(key) for key in ours.keys}
    tree = lora.init_lora(jax.random.key(0), backbone.params, settings)
    tree = jax.tree.map(lambda x: x + 0.1, tree)
    origin = Origin(str(base), decoder.vocab_size, 4096, dataclasses.asdict(settings))
    spec = ModelSpec(
        kind="prm",
        decoder=decoder,
        head="two_class",
        window=None,
        buckets=(32,),
        domain="gsm8k",
        family=family,
        layout="qwen2_prm",
        extra=origin.extra(),
    )
    head = prm_layouts.head_params("qwen2_prm", tensors, backbone.tokenizer)
    save_model(
        run / "aprm" / "adapter",
        {"lora": tree, "head": head},
        spec,
        backbone.tokenizer,
    )
    return run / "aprm" / "adapter", lora.merge(backbone.params, tree, settings)


def test_peft_takes_the_adapter_of_a_stage(root, tmp_path):
    base = write_tiny(tmp_path / "base", "qwen2", ["1 + 2 = 3"], layout="qwen2_prm")
    c = config(export__model="aprm", export__format="peft")
    with pytest.raises(ExportError, match="this model has parameters of its own"):
        start.run(c, root)
    write_adapter(root, base)
    # Of the adapter it is said that this base is none of peft's.
    with pytest.raises(ExportError, match="class of the base, and qwen2_prm has none"):
        start.run(c, root)


def test_an_adapter_is_merged_into_the_base_that_it_names(tmp_path):
    base = write_tiny(tmp_path / "base", "qwen2", ["1 + 2 = 3"], layout="qwen2_prm")
    folder, want = write_adapter(tmp_path / "run", base)
    c = config(export__model=str(folder), export__directory=str(tmp_path / "out"))
    start.run(c, tmp_path / "other")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    ignored = prm_layouts.LAYOUTS["qwen2_prm"].ignored
    got = load_backbone(tmp_path / "out", mesh, ignore=ignored).params
    jax.tree.map(np.testing.assert_array_equal, got, want)
    described = json.loads((tmp_path / "out" / "config.json").read_text())
    assert described["architectures"] == ["Qwen2ForProcessRewardModel"]
    # Another model has taken the base's place.
    path = base / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": 48'))
    with pytest.raises(AdapterMismatchError, match=r"not the base that .*\(.*, 48\)"):
        start.run(c, tmp_path / "third")


def test_a_card_has_the_figures_of_its_own_model_alone(root):
    start.run(config(export__model="aprm"), root)
    found = [
        Record("steps", "test", "aprm", "auc", 0.75),
        Record("steps", "test", "aprm/generator", "auc", 0.25),
        Record("steps", "test", "other", "auc", 0.5),
    ]
    ends = {"generator/reward": 0.1, "prm/loss": 0.2, "steps": 3}
    write_results(root / "results.json", found, {"training": {"aprm": ends}})

    def metrics(model: str) -> dict[str, float]:
        return dict(export.provenance(root / model).metrics)

    of_prm = metrics("aprm/model")
    assert (
        of_prm["steps.test.aprm.auc"] == 0.75 and of_prm["train.aprm.prm.loss"] == 0.2
    )
    assert len(of_prm) == 4
    of_generator = {
        "steps.test.aprm/generator.auc": 0.25,
        "train.aprm.generator.reward": 0.1,
    }
    assert metrics("aprm/generator/model") == of_generator
    assert metrics("aprm/adapter") == of_prm
    assert metrics("later/model") == {}  # the report knows nothing of it yet
    assert len(metrics("model")) == 6
