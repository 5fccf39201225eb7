"""Loading: against the tables' whole-tensor reader, any slice, and bad folders."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import tiny_decoder
import tiny_hf
from transformers import AutoConfig

from aprm_jax.config.groups import MeshConfig
from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.load import (
    load_backbone,
    load_params,
    read_architecture,
)
from aprm_jax.hf.safetensors_io import Checkpoint, write_sharded
from aprm_jax.hf.save import write_folder
from aprm_jax.hf.tables import (
    CheckpointMismatchError,
    entries,
    params_from_tensors,
    tensors_from_params,
)
from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.io import ModelFileError
from aprm_jax.training.mesh import make_mesh


def mesh() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def same(got, want) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=str(path))
        assert a.dtype == b.dtype


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    model = tiny_hf.hf_model("llama", tie_word_embeddings=False)
    return tiny_hf.save(model, tmp_path_factory.mktemp("llama"), "20KB")


@pytest.fixture
def copy(llama, tmp_path) -> Path:
    for path in llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", tiny_hf.FAMILIES)
def test_there_and_back_is_bit_identical(family, tied, tmp_path):
    model = tiny_hf.hf_model(family, tie_word_embeddings=tied)
    want = tiny_hf.state(model)
    for shard in ("1GB", "10KB"):
        folder = tiny_hf.save(model, tmp_path / shard, shard)
        index = folder / "model.safetensors.index.json"
        assert index.exists() == (shard == "10KB")
        loaded = load_backbone(folder, mesh())
        assert loaded.family == family
        assert loaded.vocab_rows == loaded.config.vocab_size == 37
        same(loaded.params, params_from_tensors(loaded.config, family, want))
        back = dict(tensors_from_params(loaded.config, family, loaded.params))
        assert back.keys() == want.keys()
        for key, tensor in want.items():
            assert back[key].tobytes() == tensor.tobytes(), key
        (tmp_path / f"back{shard}").mkdir()
        write_folder(
            tmp_path / f"back{shard}",
            loaded.config,
            family,
            loaded.params,
            loaded.tokenizer,
            vocab_rows=37,
            max_shard_bytes=10_000 if shard == "10KB" else 1 << 30,
        )
        with Checkpoint.open(tmp_path / f"back{shard}") as written:
            assert written.shapes == {k: v.shape for k, v in want.items()}
            for key, tensor in want.items():
                assert written.read(key).tobytes() == tensor.tobytes(), key
        described = AutoConfig.from_pretrained(tmp_path / f"back{shard}")
        assert decoder_config(described.to_dict()) == decoder_config(
            model.config.to_dict() | {"architectures": [type(model).__name__]}
        )


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_dtypes_are_converted_once(llama, tmp_path, stored, wanted):
    config, family = read_architecture(llama, param_dtype=wanted)
    with Checkpoint.open(llama) as whole:
        tensors = {
            key: whole.read(key).astype(jax.numpy.dtype(stored)) for key in whole.shapes
        }
    write_sharded(tmp_path, tensors.items(), 1 << 30)
    with Checkpoint.open(tmp_path) as checkpoint:
        got = load_params(checkpoint, config, family, mesh())
    converted = {k: v.astype(jax.numpy.dtype(wanted)) for k, v in tensors.items()}
    same(got, params_from_tensors(config, family, converted))


def test_added_rows_are_the_mean_row(llama):
    plain = load_backbone(llama, mesh())
    wide = load_backbone(llama, mesh(), vocab_size=40)
    assert (wide.config.vocab_size, wide.vocab_rows) == (40, 37)
    table, head = (
        np.asarray(wide.params[a][b])
        for a, b in (("embed", "embedding"), ("head", "kernel"))
    )
    assert (table.shape, head.shape) == ((40, 32), (32, 40))
    np.testing.assert_array_equal(table[:37], plain.params["embed"]["embedding"])
    np.testing.assert_array_equal(head[:, :37], plain.params["head"]["kernel"])
    for row in range(37, 40):
        np.testing.assert_allclose(table[row], table[:37].mean(0), atol=1e-6)
        np.testing.assert_allclose(head[:, row], head[:, :37].mean(1), atol=1e-6)
    with pytest.raises(ValueError, match="36 is less than the checkpoint's 37"):
        load_backbone(llama, mesh(), vocab_size=36)


def _edit(folder: Path, **fields) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **fields}))


def test_a_folder_without_config_is_named(copy):
    (copy / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"config.json: no such file"):
        load_backbone(copy, mesh())
    with pytest.raises(ModelFileError, match=r"nowhere/config.json"):
        load_backbone(copy / "nowhere", mesh())


def test_an_unknown_architecture_is_refused_before_weights(copy):
    for path in copy.glob("*.safetensors"):
        path.unlink()
    _edit(copy, architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox")
    with pytest.raises(UnsupportedModelError, match=r"config.json: .*GPTNeoX"):
        load_backbone(copy, mesh())


def test_a_tokenizer_larger_than_the_embedding_is_refused(copy):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"w{i}" for i in range(40)])
    tokenizer.save_pretrained(copy)
    rows = len(tiny.WORDS) + 40
    with pytest.raises(
        ModelFileError, match=f"ids up to {rows - 1}, but the embedding only 37 rows"
    ):
        load_backbone(copy, mesh())


def test_a_missing_tokenizer_is_named(copy):
    for path in copy.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelFileError, match="no usable tokenizer") as error:
        load_backbone(copy, mesh())
    assert "\n" not in str(error.value)


def test_tensors_that_do_not_fit_are_listed(copy):
    _edit(copy, intermediate_size=64, vocab_size=41)
    with pytest.raises(CheckpointMismatchError) as error:
        load_backbone(copy, mesh())
    text = str(error.value)
    assert "lm_head.weight is [37, 32], not [41, 32]" in text
    assert "mlp.up_proj.weight is [48, 32], not [64, 32]" in text


def test_a_dtype_is_refused_before_anything_is_read(tmp_path, llama, monkeypatch):
    import safetensors.numpy

    with Checkpoint.open(llama) as whole:
        tensors = {key: whole.read(key) for key in whole.shapes}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.setattr(Checkpoint, "read", None)
    config, family = read_architecture(llama)
    with (
        Checkpoint.open(tmp_path) as checkpoint,
        pytest.raises(ModelFileError, match=r"model.norm.weight is I8, but only F32"),
    ):
        load_params(checkpoint, config, family, mesh())


def test_a_head_may_lie_beside_the_backbone(llama, tmp_path):
    config, family = read_architecture(llama)
    with Checkpoint.open(llama) as whole:
        tensors = {key: whole.read(key) for key in whole.shapes}
    del tensors["lm_head.weight"]
    tensors["score.weight"] = np.ones((2, 32), np.float32)
    write_sharded(tmp_path, tensors.items(), 1 << 30)
    config = dataclasses.replace(config, tie_embeddings=True)
    with Checkpoint.open(tmp_path) as checkpoint:
        with pytest.raises(CheckpointMismatchError, match=r"unexpected: score.weight"):
            load_params(checkpoint, config, family, mesh())
        params = load_params(checkpoint, config, family, mesh(), ignore=[r"^score\."])
    assert "head" not in params


@pytest.mark.parametrize("prefix", ["model.", "language_model.model."])
def test_a_head_of_its_own_unties_the_model(tmp_path, prefix):
    """As transformers 5: `tie_word_embeddings` holds where the file does not differ."""
    torch = pytest.importorskip("torch")
    import transformers

    folder = tiny_hf.save(
        tiny_hf.hf_model("llama", tie_word_embeddings=False), tmp_path / "m"
    )
    _edit(folder, tie_word_embeddings=True)
    tokens = np.arange(10, dtype=np.int32)[None]
    with torch.inference_mode():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
        want = theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    with Checkpoint.open(folder) as whole:
        tensors = {key: whole.read(key) for key in whole.shapes}
    outer = prefix.removesuffix("model.")
    renamed = {
        f"{prefix}{k.removeprefix('model.')}"
        if k.startswith("model.")
        else outer + k: v
        for k, v in tensors.items()
    }
    write_sharded(folder, renamed.items(), 1 << 30)
    own = load_backbone(folder, mesh())
    assert not own.config.tie_embeddings
    np.testing.assert_allclose(
        tiny_decoder.forward(own.config, own.params, tokens), want, atol=1e-4
    )
    renamed[f"{outer}lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_sharded(folder, renamed.items(), 1 << 30)
    tied = load_backbone(folder, mesh())
    assert tied.config.tie_embeddings and "head" not in tied.params


def test_memory_holds_no_more_than_the_shards_and_one_tensor(tmp_path):
    """Of arrays: what NumPy allocates, JAX on a CPU takes over without a copy."""
    config = DecoderConfig(
        vocab_size=8192,  # the embedding [V, D] is the largest tensor, 4 MB
        d_model=128,
        num_layers=6,
        num_heads=4,
        num_kv_heads=4,
        head_dim=32,
        d_ff=4096,
        tie_embeddings=False,
    )
    table = entries(config, "llama")
    write_sharded(
        tmp_path,
        ((entry.key, np.ones(entry.shape, np.float32)) for entry in table),
        8_000_000,
    )
    sizes = [4 * int(np.prod(entry.shape)) for entry in table]
    assert len(list(tmp_path.glob("*.safetensors"))) > 4
    one = mesh()
    with Checkpoint.open(tmp_path) as checkpoint:
        tracemalloc.start()
        params = load_params(checkpoint, config, "llama", one)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sum(x.nbytes for x in jax.tree.leaves(params)) == sum(sizes)
    assert sum(sizes) <= held + 1e6  # these shards are counted: nothing is hidden
    assert peak < sum(sizes) + 1.3 * max(sizes)


DEVICES = """
import sys
import jax, numpy as np
from aprm_jax.hf.load import load_backbone
from aprm_jax.hf.tables import params_from_tensors
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.config.groups import MeshConfig
from aprm_jax.training.mesh import make_mesh, param_shardings

for folder, rows in [(f, r) for f in sys.argv[1:] for r in (None, 40)]:
    one = load_backbone(
        folder, make_mesh(MeshConfig(), jax.devices()[:1]), vocab_size=rows
    )
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    many = load_backbone(folder, mesh, vocab_size=rows)
    wanted = param_shardings(mesh, {"backbone": many.params})["backbone"]
    split = 0
    for a, b, s in zip(*map(jax.tree.leaves, (one.params, many.params, wanted))):
        assert b.sharding == s, (b.sharding, s)
        assert len(b.sharding.device_set) == 8
        split += not b.is_fully_replicated
        np.testing.assert_array_equal(a, b)
        for shard in b.addressable_shards:
            np.testing.assert_array_equal(np.asarray(a)[shard.index], shard.data)
    assert split >= 8, split
    # Updated in place, as a training step does with its state.
    step = jax.jit(lambda t: jax.tree.map(lambda x: x * 2, t), donate_argnums=0)
    before = jax.tree.map(np.asarray, one.params)
    after = step(many.params)
    for a, b in zip(*map(jax.tree.leaves, (before, after))):
        np.testing.assert_array_equal(a * 2, b)
print("same")
"""


def test_eight_devices_get_what_one_gets(tmp_path):
    folders = [
        tiny_hf.save(
            tiny_hf.hf_model(family, tie_word_embeddings=False), tmp_path / family
        )
        for family in ("qwen2", "phi3")
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEVICES, *map(str, folders)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout == "same\n", done.stderr
