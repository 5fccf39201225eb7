"""No file that is read names code: a payload in each format, and what becomes of it."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_tokenizers

from aprm_jax.config import ConfigError, validate
from aprm_jax.data.bpe import load_tokenizer as own_tokenizer
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.loader import PackedBatches
from aprm_jax.data.sources import read_source
from aprm_jax.files import DamagedFileError
from aprm_jax.hf.adapters import AdapterMismatchError
from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.load import load_tokenizer, read_architecture
from aprm_jax.hf.locate import load_any
from aprm_jax.hf.peft import load_adapter
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.jobs import of_run, tables
from aprm_jax.models.io import ModelFileError, load_model
from aprm_jax.training import checkpoints
from aprm_jax.training.checkpoints import Checkpointer

MODULE = "hostile_payload"


class Pickled:
    """Makes the marker as it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """Exists once code of the folder has run: it is the process's own, too."""
    path = tmp_path / "marker"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = f"import os\nos.mkdir({str(path)!r})\nclass X: ...\n"
    (tmp_path / f"{MODULE}.py").write_text(text)
    yield path
    assert not path.exists()
    assert MODULE not in sys.modules


def test_the_payloads_would_run(marker):
    importlib.import_module(MODULE)
    del sys.modules[MODULE]
    marker.rmdir()
    pickle.loads(pickle.dumps(Pickled(marker)))
    marker.rmdir()


def _json(path: Path, **changes) -> None:
    """Changes fields of a JSON object in a file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Arrays, checkpoints, positions in the data.


def test_arrays_of_an_evaluation_hold_no_pickle(marker, tmp_path):
    path = tmp_path / "evaluate" / "per_problem" / "test.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, x=np.array([Pickled(marker)], object))
    with pytest.raises(DamagedFileError, match=r"test\.npz cannot be read .*pickle"):
        tables._arrays(path)
    path.write_bytes(pickle.dumps(Pickled(marker)))  # np.load takes bare pickles too
    with pytest.raises(DamagedFileError, match=r"test\.npz cannot be read .*pickle"):
        tables._arrays(path)


@pytest.mark.parametrize("file", ["_METADATA", "_CHECKPOINT_METADATA", "aggregate"])
def test_metadata_of_orbax_name_no_code(marker, tmp_path, file):
    state = {"w": np.arange(6, dtype=np.float32)}
    saved = Checkpointer(tmp_path / "run", async_=False)
    saved.save(1, state)
    saved.wait()
    folder = tmp_path / "run" / "1"
    if file == "_METADATA":
        text = (folder / file).read_text().replace("np.ndarray", f"{MODULE}.X")
        text = text.replace("jax.Array", f"{MODULE}.X")
        assert MODULE in text
        (folder / file).write_text(text)
        rich = {"module": MODULE, "clazz": "X", "category": "namedtuple"}
        _json(folder / file, value_metadata_tree=rich, custom_metadata=rich)
    elif file == "_CHECKPOINT_METADATA":
        _json(folder / file, item_handlers=f"{MODULE}.X", module=MODULE, clazz="X")
    else:
        (folder / file).write_bytes(pickle.dumps(Pickled(marker)))
    kinds = {"w": ["float32", [6]]}
    checkpoints._write_manifest(folder, 1, kinds)  # its checksums are right
    got = Checkpointer(tmp_path / "run").restore(1, state)
    np.testing.assert_array_equal(got["w"], state["w"])


@pytest.mark.parametrize("window", [f"{MODULE}.X", {"py/object": f"{MODULE}.X"}, None])
def test_a_position_in_the_data_is_two_integers(marker, window):
    batches = PackedBatches([], None, batch_size=1, length=8, max_steps=1, seed=0)
    with pytest.raises((TypeError, ValueError)):
        iter(batches).set_state({"window": window, "row": 0})


# Models, adapters, tokenizers, runs.


def test_weights_are_no_pickles(marker, tmp_path):
    for name in ("pytorch_model.bin", "adapter_model.bin", "model.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Pickled(marker)))
    with pytest.raises(ModelFileError, match=r"only adapter_model\.bin, whose pickle"):
        Checkpoint.open(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelFileError, match=r"only adapter_model\.bin, whose pickle"):
        load_adapter(tmp_path)


def test_an_architecture_brings_no_code(marker, tmp_path):
    described = {
        "model_type": "llama",
        "architectures": ["X"],
        "auto_map": {
            "AutoConfig": f"{MODULE}.X",
            "AutoModelForCausalLM": f"{MODULE}.X",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(UnsupportedModelError, match=r"config\.json: .*code of its own"):
        read_architecture(tmp_path)


@pytest.mark.parametrize("fast", [True, False])
def test_a_tokenizer_brings_no_code(marker, tmp_path, fast):
    tiny_tokenizers.byte_level().save_pretrained(tmp_path)
    own = {"AutoTokenizer": [f"{MODULE}.X", f"{MODULE}.X"]}
    _json(tmp_path / "tokenizer_config.json", tokenizer_class="X", auto_map=own)
    if fast:
        vocabulary = tiny_tokenizers.byte_level().get_vocab()
        assert load_tokenizer(tmp_path).get_vocab() == vocabulary
        return
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match="no usable tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        own_tokenizer(tmp_path)


def test_an_adapter_brings_no_code(marker, tmp_path):
    fields = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
        "auto_mapping": {"base_model_class": "X", "parent_library": MODULE},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
    from safetensors.numpy import save_file

    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    a, b = np.ones((1, 4), np.float32), np.ones((4, 1), np.float32)
    weights = tmp_path / "adapter_model.safetensors"
    save_file({key.format("A"): a, key.format("B"): b}, weights)
    assert len(load_adapter(tmp_path).deltas) == 1
    _json(tmp_path / "adapter_config.json", peft_type=f"{MODULE}.X")
    with pytest.raises(AdapterMismatchError, match=MODULE):
        load_adapter(tmp_path)


def test_a_models_own_file_names_no_code(marker, tmp_path):
    folder = tiny.save(tmp_path / "model", "solver", family=f"{MODULE}.X")
    load_model(folder)  # a name, which is no key of the families' tables
    _json(folder / "model.json", kind=f"{MODULE}.X")
    with pytest.raises(ModelFileError, match=r"model\.json"):
        load_any(folder, "prm")


def test_the_config_of_a_run_names_no_code(marker, tmp_path):
    run = {"job": f"{MODULE}.X", "domain": {"name": f"{MODULE}.X"}}
    (tmp_path / "config.json").write_text(json.dumps(run))
    config = of_run.get_config(str(tmp_path))
    assert config.job == "pipeline"
    with pytest.raises(ConfigError, match=rf"domain\.name.*{MODULE}"):
        validate(config)


# Data sets.


def _extension_of_arrow(marker: Path) -> pa.Schema:
    """A column whose type is a pickle: what Arrow's Python types once were."""
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Pickled(marker)),
    }
    return pa.schema([pa.field("question", pa.string(), metadata=metadata)])


@pytest.mark.parametrize(
    "source", ["x.parquet", "datasets:parquet?data_files=x.parquet"]
)
def test_a_type_in_parquet_is_no_code(marker, tmp_path, source):
    table = pa.table({"question": ["2 + 2"]}, schema=_extension_of_arrow(marker))
    pq.write_table(table, tmp_path / "x.parquet")
    rows = read_source(source, "", dict)
    assert [row["question"] for row in rows] == ["2 + 2"]


@pytest.mark.parametrize(
    "feature",
    [
        {"_type": f"{MODULE}.X"},
        {"_type": "Value", "dtype": f"{MODULE}.X"},
        {"_type": "PyObject", "pickle": f"{MODULE}.X"},
    ],
)
def test_features_of_a_saved_data_set_name_no_code(marker, tmp_path, feature):
    import datasets

    datasets.Dataset.from_dict({"question": ["2 + 2"]}).save_to_disk(tmp_path / "set")
    info = tmp_path / "set" / "dataset_info.json"
    _json(info, features={"question": feature}, builder_name=f"{MODULE}.X")
    _json(tmp_path / "set" / "state.json", _format_type=f"{MODULE}.X")
    with pytest.raises(DataError, match=r"^datasets:.*/set, split"):
        read_source(f"datasets:{tmp_path / 'set'}", "train", dict)


def test_a_folder_of_data_runs_no_script(marker, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"question": "2 + 2"}) + "\n")
    card = f'---\nx: !!python/object/apply:os.mkdir ["{marker}"]\n---\n'
    (folder / "README.md").write_text(card)
    with pytest.raises(
        DataError, match="could not determine a constructor for the tag"
    ):
        read_source("datasets:data", "train", dict)
    (folder / "README.md").write_text(f"---\nbuilder_name: {MODULE}.X\n---\n")
    rows = read_source("datasets:data", "train", dict)
    assert [row["question"] for row in rows] == ["2 + 2"]
    (folder / "data.py").write_text((tmp_path / f"{MODULE}.py").read_text())
    with pytest.raises(DataError, match="Dataset scripts are no longer supported"):
        read_source("datasets:data", "train", dict)
    (folder / "train.jsonl").write_bytes(pickle.dumps(Pickled(marker)))
    with pytest.raises(DataError, match=r"train\.jsonl"):
        read_source("data", "", dict)
