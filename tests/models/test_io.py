"""A model's folder: what goes in comes out, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from aprm_jax.models import heads
from aprm_jax.models.io import (
    PARAMS_FILE,
    SPEC_FILE,
    ModelFileError,
    ModelSpec,
    load_model,
    save_model,
)


def _spec(**changes) -> ModelSpec:
    fields = {
        "kind": "prm",
        "decoder": tiny.decoder(),
        "head": "token",
        "window": 1,
        "buckets": (32, 64),
        "domain": "arithmetic",
        "threshold": 0.25,
        "extra": {"seed": 3, "digits": [1, 2]},
    }
    return ModelSpec(**{**fields, **changes})


def _params():
    return heads.init_prm(jax.random.key(0), tiny.backbone(tiny.decoder()), 16, "token")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "prm", _params(), _spec(), tiny.tokenizer())
    return tmp_path / "prm"


def test_round_trip_is_exact(saved):
    params, spec, tokenizer = load_model(saved)
    assert spec == _spec()
    assert jax.tree.structure(params) == jax.tree.structure(_params())
    for got, want in zip(
        jax.tree.leaves(params), jax.tree.leaves(_params()), strict=True
    ):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    line = "1 + 2 <step>"
    assert tokenizer(line).input_ids == tiny.tokenizer()(line).input_ids
    assert (tokenizer.bos_token, tokenizer.pad_token) == ("<bos>", "<pad>")


def test_bfloat16_survives(tmp_path):
    params = {"backbone": {"w": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)}}
    spec = _spec(kind="solver", head=None)
    save_model(tmp_path / "m", params, spec, tiny.tokenizer())
    loaded = load_model(tmp_path / "m")[0]["backbone"]["w"]
    assert loaded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(loaded, params["backbone"]["w"])


def test_saving_again_replaces_and_leaves_nothing_beside(saved):
    params = jax.tree.map(lambda p: p + 1, _params())
    save_model(saved, params, _spec(window=None), tiny.tokenizer())
    loaded, spec, _ = load_model(saved)
    assert spec.window is None
    np.testing.assert_array_equal(loaded["head"]["scale"], 2.0)
    assert [path.name for path in saved.parent.iterdir()] == ["prm"]


def test_a_save_that_fails_keeps_the_old_model(saved):
    with pytest.raises(TypeError, match="'scale' is str"):
        save_model(saved, {"head": {"scale": "one"}}, _spec(), tiny.tokenizer())
    assert load_model(saved)[1] == _spec()
    assert [path.name for path in saved.parent.iterdir()] == ["prm"]


def test_leftovers_of_a_killed_save_are_cleared(saved):
    left = saved.parent / ".prm.writing-killed"
    left.mkdir()
    (left / PARAMS_FILE).write_bytes(b"half")
    save_model(saved, _params(), _spec(), tiny.tokenizer())
    assert not left.exists()


@pytest.mark.parametrize("name", [PARAMS_FILE, "tokenizer.json"])
def test_one_flipped_bit_is_refused_by_name(saved, name):
    path = saved / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=f"{name}: damaged"):
        load_model(saved)


@pytest.mark.parametrize("name", [PARAMS_FILE, SPEC_FILE, "tokenizer.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelFileError, match=f"{name}: missing"):
        load_model(saved)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="nowhere: no such folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=99), "format 99"),
        (lambda d: d.update(kind="critic"), "kind must be one of"),
        (lambda d: d.update(head=None), "a PRM has a head"),
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d["decoder"].pop("d_ff"), "d_ff"),
        (lambda d: d.pop("sha256"), "sha256"),
        (lambda d: d["sha256"].pop(PARAMS_FILE), "damaged"),
    ],
)
def test_a_description_that_is_not_ours_is_refused(saved, change, message):
    description = json.loads((saved / SPEC_FILE).read_text())
    del description["seal"]  # an older version's, or one that somebody has written
    change(description)
    (saved / SPEC_FILE).write_text(json.dumps(description))
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def test_a_field_under_its_older_name_is_read(saved):
    description = json.loads((saved / SPEC_FILE).read_text())
    description["reading"] = description.pop("head")
    description["decoder"]["remat"] = False
    del description["seal"]
    (saved / SPEC_FILE).write_text(json.dumps(description))
    assert load_model(saved)[1] == _spec()


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"", b"[1, 2]", b"{"])
def test_a_description_that_is_not_json_is_refused(saved, data):
    (saved / SPEC_FILE).write_bytes(data)
    with pytest.raises(ModelFileError, match=SPEC_FILE):
        load_model(saved)


def test_names_that_would_collide_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a/b"):
        save_model(tmp_path / "m", {"a/b": np.zeros(2)}, _spec(), tiny.tokenizer())
    with pytest.raises(ValueError, match="'empty' holds no parameters"):
        save_model(tmp_path / "m", {"empty": {}}, _spec(), tiny.tokenizer())


def test_a_changed_threshold_is_noticed(saved):
    description = json.loads((saved / SPEC_FILE).read_text())
    description["threshold"] += 0.125
    (saved / SPEC_FILE).write_text(json.dumps(description))
    with pytest.raises(ModelFileError, match=r"model\.json: damaged"):
        load_model(saved)
