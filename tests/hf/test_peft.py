"""PEFT's adapters against PEFT and torch, and what of them is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny_decoder
import tiny_hf
from tiny_decoder import SMALL

from aprm_jax.config.groups import MeshConfig
from aprm_jax.hf import peft
from aprm_jax.hf.adapters import Adapted, Adapter, AdapterMismatchError, Delta
from aprm_jax.hf.load import load_backbone
from aprm_jax.models import lora
from aprm_jax.models.io import ModelFileError
from aprm_jax.models.lora import LoraConfig
from aprm_jax.training.mesh import make_mesh

CONFIG = LoraConfig(rank=3, alpha=12.0)
SOME = LoraConfig(
    rank=2, alpha=5.0, targets=r"layers/(attention/(q|o)|mlp/down)/kernel"
)
TOKENS = np.arange(12, dtype=np.int32)[None]


def random_adapter(params: Any, config: LoraConfig) -> Any:
    adapter = lora.init_lora(jax.random.key(0), params, config)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape), adapter)


def trained(base: Path, folder: Path, **settings: Any) -> np.ndarray:
    """Saves a noisy adapter as PEFT does; the logits that PEFT gives it loaded."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install .[parity]")
    library: Any = pytest.importorskip("peft", reason="pip install .[parity]")
    from transformers import AutoModelForCausalLM

    fields = {"r": 2, "lora_alpha": 3, "task_type": "CAUSAL_LM"}
    config = library.LoraConfig(**{**fields, "target_modules": ["q_proj"], **settings})
    model = library.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                large = 1.0 if "magnitude" not in name else 0.3
                parameter.add_(0.3 * large * torch.randn_like(parameter))
    model.save_pretrained(folder)
    again = library.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), folder
    ).eval()
    with torch.no_grad():
        return again(torch.tensor(TOKENS, dtype=torch.long)).logits[0].float().numpy()


def our_logits(base: Path, folder: Path | None = None) -> np.ndarray:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    loaded = load_backbone(base, mesh, adapter=folder)
    return np.asarray(tiny_decoder.forward(loaded.config, loaded.params, TOKENS)[0])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    made: dict[tuple[str, bool], Path] = {}

    def base(family: str, tied: bool) -> Path:
        if (family, tied) not in made:
            model = tiny_hf.hf_model(family, tie_word_embeddings=tied)
            folder = tmp_path_factory.mktemp("base") / f"{family}-{tied}"
            made[family, tied] = tiny_hf.save(model, folder)
        return made[family, tied]

    return base


EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SUPPORTED: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": EVERY},
    "all_linear": {"target_modules": "all-linear"},
    "pattern": {"target_modules": r".*layers\.1\..*(q|down)_proj"},
    "excluded": {"target_modules": EVERY, "exclude_modules": ["up_proj"]},
    "excluded_pattern": {"target_modules": EVERY, "exclude_modules": r".*\.0\..*"},
    "rslora": {"use_rslora": True, "r": 4},
    "rank_pattern": {
        "target_modules": EVERY,
        "rank_pattern": {"q_proj": 4, r"layers.0.mlp.*": 3, "proj": 1},
        "alpha_pattern": {r"model\.layers\.1\.self_attn\.[qk]_proj": 11, "down_.*": 2},
    },
    "rank_pattern_rslora": {
        "target_modules": EVERY,
        "use_rslora": True,
        "rank_pattern": {"^model.layers.1.self_attn.q_proj": 5, "up_proj": 1},
        "alpha_pattern": {"gate_proj": 7.5},
    },
    "layers": {"target_modules": EVERY, "layers_to_transform": [1]},
    "one_layer": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "dora": {"target_modules": EVERY, "use_dora": True},
    "dora_rslora": {"use_dora": True, "use_rslora": True, "r": 3},
    "head": {"modules_to_save": ["lm_head"]},
    "embeddings": {"modules_to_save": ["embed_tokens"]},
    "both_ends": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "norm": {"modules_to_save": ["norm"]},
    "norms_and_mlp": {"modules_to_save": ["input_layernorm", "mlp"]},
    "tokens": {"trainable_token_indices": [1, 5, 30]},
    "tokens_of_one": {"trainable_token_indices": {"embed_tokens": [7, 2]}},
    "lora_on_ends": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "lora_on_embeddings": {"target_modules": ["embed_tokens"]},
    "lora_on_head": {"target_modules": ["lm_head"]},
    "biases": {"bias": "all"},
    "lora_biases": {"bias": "lora_only"},
    "bias_of_b": {"lora_bias": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
}


# peft asks transformers 5 for what it deprecates, and warns of what it saves.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_merged_adapter_gives_pefts_logits(name, tied, bases, tmp_path):
    base = bases("qwen2", tied)
    want = trained(base, tmp_path / "peft", **SUPPORTED[name])
    got = our_logits(base, tmp_path / "peft")
    np.testing.assert_allclose(got, want, atol=2e-4)
    assert np.abs(want - our_logits(base)).max() > 1e-2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("phi3", ["qkv_proj", "gate_up_proj", "o_proj"]),
        ("gemma2", EVERY),
        ("gemma3", EVERY),
        ("qwen3", EVERY),
        ("mistral", EVERY),
    ],
)
def test_every_family_takes_adapters(family, targets, bases, tmp_path):
    base = bases(family, False)
    want = trained(base, tmp_path / "peft", target_modules=targets, use_dora=True)
    np.testing.assert_allclose(our_logits(base, tmp_path / "peft"), want, atol=2e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_inits_that_change_the_base_are_refused(init, bases, tmp_path):
    base = bases("qwen2", False)
    trained(base, tmp_path / "peft", init_lora_weights=init)
    with pytest.raises(AdapterMismatchError, match=f"init_lora_weights='{init}' is"):
        our_logits(base, tmp_path / "peft")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("end", ["lm_head", "embed_tokens"])
def test_lora_on_both_ends_by_one_setting_is_refused_by_its_name(end, bases, tmp_path):
    base, named = bases("qwen2", True), [end, "q_proj"]
    folder = tmp_path / "peft"
    trained(base, folder, target_modules=named, ensure_weight_tying=True)
    with pytest.raises(AdapterMismatchError, match="ensure_weight_tying=True is not"):
        our_logits(base, folder)


def exported(**changes: Any) -> tuple[dict[str, np.ndarray], dict[str, Any], Any]:
    params = tiny_decoder.make_params(SMALL)
    made = peft.to_peft(
        random_adapter(params, SOME), SOME, family="llama", base="some/base"
    )
    return made[0], {**made[1], **changes}, params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("fan_in_fan_out", True),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("alora_invocation_tokens", [5, 6]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("use_qalora", True),
        ("use_bdlora", {"target_modules_bd_a": []}),
        ("arrow_config", {"top_k": 2}),
        ("kasa_config", {}),
        ("megatron_config", {"tp": 2}),
        ("velora_config", {"rank": 1}),
        ("monteclora_config", {"n": 1}),
        ("bias", "some"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "mica"),
        ("init_lora_weights", {"a": 1}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", ["q_proj"]),
        ("alpha_pattern", {"q_proj": "3"}),
        ("r", "2"),
        ("lora_alpha", float("nan")),
        ("target_modules", 3),
        ("modules_to_save", [["norm"]]),
        ("layers_to_transform", ["0"]),
        ("a_field_of_next_year", 0.5),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(field, value):
    tensors, fields, _ = exported(**{field: value})
    if not value:  # an empty one changes nothing
        assert peft.parse(tensors, fields).deltas
        return
    with pytest.raises(AdapterMismatchError, match=field):
        peft.parse(tensors, fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "no lora_magnitude_vector of model.layers.0"),
        ({"r": 4}, r"\(2, 32\) and \(32, 2\), but .* rank 4"),
        ({"rank_pattern": {"o_proj": 3}}, "self_attn.o_proj .* rank 3"),
        ({"target_modules": ["q_proj"]}, "_proj, which target_modules"),
        ({"exclude_modules": ["o_proj"]}, "o_proj, which target_modules, exclude"),
        ({"layers_to_transform": [1]}, r"layers\.0.* layers_to_transform"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save names 'lm_head'"),
        ({"rank_pattern": {"(": 3}}, r"rank_pattern holds the pattern '\(.*'"),
        (
            {"target_modules": "(.*.*)*(.*)*!"},
            "target_modules .* too long|leave",
        ),
    ],
)
def test_a_config_and_tensors_that_disagree_are_refused(changes, message):
    tensors, fields, _ = exported(**changes)
    with pytest.raises(AdapterMismatchError, match=message):
        peft.parse(tensors, fields)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.other.weight", "named 'other'"),
        ("model.layers.0.self_attn.q_proj.lora_C.weight", "no layer's LoRA"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "lacks lora_B of model"),
        ("score.lora_A.weight", "lora_. of score"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", "which rows"),
    ],
)
def test_tensors_that_are_not_known_are_refused(key, message):
    tensors = {f"base_model.model.{key}": np.zeros((2, 32), np.float32)}
    _, fields, _ = exported(target_modules=None)
    with pytest.raises(AdapterMismatchError, match=message):
        peft.parse(tensors, fields)


def write(folder: Path, tensors: Any, fields: Any) -> Path:
    folder.mkdir()
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def test_an_adapter_for_another_base_is_one_clear_error(bases, tmp_path):
    base = bases("llama", False)
    tensors, fields, _ = exported()
    key = "base_model.model.model.layers.7.self_attn.q_proj"
    deep = {
        f"{key}.lora_A.weight": np.zeros((2, 32), np.float32),
        f"{key}.lora_B.weight": np.zeros((32, 2), np.float32),
    }
    wide = {
        k: np.zeros((2, 40), np.float32) if "A." in k else v for k, v in tensors.items()
    }
    outside = {
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (
            np.zeros((1, 32), np.float32)
        )
    }
    token = {**fields, "trainable_token_indices": [37]}
    for number, (these, those, message) in enumerate(
        (
            (deep, fields, r"model.layers.7.*which the base has not.*another base"),
            (wide, fields, r"weight is \(32, 40\), the base's \(32, \d+\)"),
            (
                outside,
                token,
                r"rows of model.embed_tokens.*token 37.*\(37, 32\)",
            ),
            ({}, fields, "holds no tensors"),
        )
    ):
        folder = write(tmp_path / str(number), these, those)
        with pytest.raises(AdapterMismatchError, match=message) as error:
            our_logits(base, folder)
        assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_broken_files_are_named(bases, tmp_path):
    base = bases("llama", False)
    tensors, fields, _ = exported()
    folder = write(tmp_path / "peft", tensors, fields)
    weights, config = folder / "adapter_model.safetensors", folder / peft.ADAPTER_FILE
    config.write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match=r"adapter_config.json: .*too deep"):
        our_logits(base, folder)
    config.write_text('{"a": ' * 100_000)
    with pytest.raises(ModelFileError, match="nested too deep"):
        peft.adapter_base(folder)
    config.write_text("{")
    with pytest.raises(ModelFileError, match="not JSON"):
        our_logits(base, folder)
    config.write_text(json.dumps(fields))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"adapter_model.safetensors: truncated"):
        our_logits(base, folder)
    weights.unlink()
    with pytest.raises(ModelFileError, match=r"neither adapter_model.safetensors"):
        our_logits(base, folder)
    named = write(tmp_path / "several", tensors, fields)
    named.rename(tmp_path / "own")
    (tmp_path / "several").mkdir()
    (tmp_path / "own").rename(tmp_path / "several" / "own")
    with pytest.raises(ModelFileError, match="adapters lie in own: name one's folder"):
        our_logits(base, tmp_path / "several")


@pytest.mark.parametrize("config", [CONFIG, SOME], ids=["all", "some"])
def test_what_is_written_is_read_bit_for_bit(config):
    params = tiny_decoder.make_params(SMALL)
    adapter = random_adapter(params, config)
    tensors, fields = peft.to_peft(adapter, config, family="llama", base="b")
    read = peft.parse(tensors, fields)
    assert read.base == "b" and not read.head and not read.replaced
    count = 0
    for path, a, b in lora.modules(adapter):
        short = path.removeprefix("layers/")
        block, name = short.split("/")
        outer = "self_attn" if block == "attention" else block
        for layer in range(SMALL.num_layers):
            delta = read.deltas[f"model.layers.{layer}.{outer}.{name}_proj.weight"]
            np.testing.assert_array_equal(delta.a, a[layer].T)
            np.testing.assert_array_equal(delta.b, b[layer].T)
            assert delta.scale == config.scale and delta.lengths is None
            count += 1
    assert count == len(read.deltas)


@pytest.mark.parametrize("rows", [slice(0, 37), slice(5, 9)])
@pytest.mark.parametrize("columns", [slice(0, 32), slice(8, 24)])
@pytest.mark.parametrize("dora", [False, True])
def test_any_block_is_that_of_the_whole(rows, columns, dora, bases):
    from aprm_jax.hf.safetensors_io import Checkpoint

    rng = np.random.default_rng(0)
    lengths = np.abs(rng.normal(size=37)).astype(np.float32) if dora else None
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((3, 32), (37, 3)))
    delta = Delta(a, b, 0.5, lengths)
    adapter = Adapter("", {"lm_head.weight": delta}, {}, {}, {}, {})
    with Checkpoint.open(bases("llama", False)) as checkpoint:
        plain = checkpoint.read("lm_head.weight")
        merged = Adapted(checkpoint, adapter)
        got = merged.read("lm_head.weight", (rows, columns))
        into = np.empty(got.shape, np.float32)
        merged.read("lm_head.weight", (rows, columns), into)
    want = plain + 0.5 * b @ a
    if lengths is not None:
        want *= lengths[:, None] / np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(got, want[rows, columns], atol=1e-5)
    np.testing.assert_array_equal(got, into)


def test_parts_of_fused_projections_have_no_peft_adapter():
    params = tiny_decoder.make_params(SMALL)
    adapter = random_adapter(params, SOME)
    with pytest.raises(AdapterMismatchError, match="phi3 checkpoints fuse layers/att"):
        peft.to_peft(adapter, SOME, family="phi3", base="b")
    whole = LoraConfig(2, 4.0, "layers/(attention/o|mlp/down)/kernel")
    made = random_adapter(params, whole)
    tensors, _ = peft.to_peft(made, whole, family="phi3", base="b")
    assert len(tensors) == 2 * 2 * SMALL.num_layers


def test_peft_tensors_are_torchs_matrices():
    """Without PEFT: x A^T B^T, scaled, is what its layers add to x W^T."""
    params = tiny_decoder.make_params(SMALL)
    adapter = random_adapter(params, CONFIG)
    tensors, fields = peft.to_peft(adapter, CONFIG, family="llama", base="b")
    x = np.random.default_rng(0).normal(size=(5, SMALL.num_heads * SMALL.head_dim))
    at = "base_model.model.model.layers.1.self_attn.o_proj."
    a, b = (tensors[f"{at}lora_{side}.weight"] for side in "AB")
    got = x @ a.T @ b.T * fields["lora_alpha"] / fields["r"]
    merged = lora.merge(params, adapter, CONFIG)
    kernels = (
        tree["layers"]["attention"]["o"]["kernel"][1] for tree in (merged, params)
    )
    after, before = (np.float64(k).reshape(-1, SMALL.d_model) for k in kernels)
    np.testing.assert_allclose(got, x @ (after - before), atol=1e-5)
    assert fields["target_modules"] == sorted(EVERY)
    assert dataclasses.asdict(CONFIG)["rank"] == fields["r"]
