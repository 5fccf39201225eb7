"""Models of Hugging Face as they are opened: which weights, what kind, whose names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

import aprm_jax
from aprm_jax.config.groups import MeshConfig
from aprm_jax.hf import hub
from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.pretrained import load_weights, open_source
from aprm_jax.hf.safetensors_io import Checkpoint, write_sharded
from aprm_jax.hf.stamps import files_stamp
from aprm_jax.models.io import ModelFileError
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.training.mesh import make_mesh

TEXTS = ["Ann has 3 boxes of 4 pens.", "3*4=<<3*4=12>>12 pens.", "#### 12"]
SHEPHERD = "peiyi9979/math-shepherd-mistral-7b-prm"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def scores(folder: Path) -> np.ndarray:
    return aprm_jax.PRM.load(folder).score(TEXTS[0], ["3 * 4 = 12", "12"])


def test_a_folder_that_is_written_anew_is_read_anew(tmp_path):
    folder, other = tmp_path / "one", tmp_path / "other"
    first = scores(write_tiny(folder, "qwen2", TEXTS, layout="trl", seed=1))
    want = scores(write_tiny(other, "qwen2", TEXTS, layout="trl", seed=2))
    scores(folder)
    write_tiny(folder, "qwen2", TEXTS, layout="trl", seed=2)
    np.testing.assert_array_equal(scores(folder), want)
    assert np.abs(first - want).max() > 1e-3


def test_weights_are_kept_while_their_files_are_the_same(tmp_path):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    write_tiny(tmp_path / "lm", "qwen2", TEXTS)
    leaves = []
    for _ in range(2):
        params = load_weights(open_source(str(tmp_path / "lm")), mesh)
        leaves.append(jax.tree.leaves(params))
    assert all(a is b for a, b in zip(*leaves, strict=True))


def test_a_file_in_the_place_of_another_has_another_stamp(tmp_path):
    file, new = tmp_path / "model.safetensors", tmp_path / "new"
    file.write_bytes(b"1")
    stamps = {files_stamp(tmp_path)}
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    new.write_bytes(b"2")  # of the same size, and then of the same time
    os.utime(new, ns=times)
    assert files_stamp(tmp_path) in stamps  # what it reads no weights of
    new.rename(file)
    stamps.add(files_stamp(tmp_path))
    os.utime(file, ns=(times[0], times[1] + 1))
    stamps.add(files_stamp(tmp_path))
    file.write_bytes(b"22")
    os.utime(file, ns=(times[0], times[1] + 1))
    stamps.add(files_stamp(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    stamps.add(files_stamp(tmp_path))
    assert len(stamps) == 5
    assert files_stamp(file)[0][1] == 2 and files_stamp(tmp_path / "none") == ()
    assert files_stamp(Path("a" * 5000)) == ()


def test_a_backbone_without_a_language_head_writes_no_text(tmp_path):
    folder = write_tiny(tmp_path / "m", "qwen2", TEXTS)
    with Checkpoint.open(folder) as whole:
        tensors = {key: whole.read(key) for key in whole.shapes}
    del tensors["lm_head.weight"]
    write_sharded(folder, tensors.items(), 1 << 30)
    edit(folder, architectures=["Qwen2Model"])
    with pytest.raises(UnsupportedModelError, match="has no LM head"):
        aprm_jax.Solver.load(folder)
    edit(folder, tie_word_embeddings=True)
    assert aprm_jax.Solver.load(folder).spec.decoder.tie_embeddings


def test_math_shepherd_is_known_by_its_name_on_the_hub(tmp_path):
    folder = write_tiny(tmp_path / "0123456789abcdef", "mistral", TEXTS)
    edit(folder, _name_or_path="/data/mistral-7b-sft")

    def find(name: str, revision: str | None = None) -> Path:
        return folder

    assert open_source(SHEPHERD, find=find).layout == "math_shepherd"
    assert open_source("owner/mistral-7b", find=find).layout is None
    policy = tmp_path / "math-shepherd-mistral-7b-rl"
    folder = folder.rename(policy)
    assert open_source(str(policy)).layout is None


def test_a_name_that_no_system_holds_is_refused():
    with pytest.raises(ModelFileError, match="too long"):
        hub.find("a" * 5000)
