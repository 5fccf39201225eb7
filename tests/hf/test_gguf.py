"""GGUF files against transformers' own reading of them, and files that lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_gguf
from tiny_decoder import forward
from transformers import PreTrainedTokenizerFast

from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.prompts import encode
from aprm_jax.hf import gguf, gguf_file, hub
from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.load import load_backbone, load_tokenizer, open_checkpoint
from aprm_jax.hf.locate import load_any
from aprm_jax.hf.pretrained import load_weights, open_source
from aprm_jax.hf.tables import CheckpointMismatchError
from aprm_jax.models.io import ModelFileError
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.training.mesh import make_mesh

MIXED = {"attn": "Q8_0", "ffn_down": "Q6_K", "ffn": "Q4_K", "": "Q6_K"}
PLAIN = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
CASES: list[tuple[str, Any]] = [
    *(("llama", kind) for kind in PLAIN),
    ("qwen2", MIXED),
    ("qwen3", MIXED | {"ffn": "Q4_1"}),
]
PROBES = (*tiny_gguf.CORPUS, "I'LL  pay 12345 <|im_start|>user\n\n x\t1", "")


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def theirs(path: Path) -> Any:
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()


def their_logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


def compare(path: Path, tokens: np.ndarray, prompt: list[int], new: int = 0) -> None:
    """Logits and `new` greedy tokens of a file, ours and transformers'."""
    import torch

    model, loaded = theirs(path), load_backbone(path, one_device())
    positions = np.tile(np.arange(tokens.shape[1], dtype=np.int32), (len(tokens), 1))
    ours = forward(
        loaded.config, loaded.params, tokens, positions, np.ones_like(tokens)
    )
    expected = their_logits(model, tokens)
    assert expected.std() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    if not new:
        return
    sampler = Sampler(
        loaded.config,
        stop_ids=(),
        pad_id=0,
        prompt_buckets=(len(prompt),),
        max_new_tokens=new,
        batch_buckets=(1,),
    )
    drawn = sampler.sample(loaded.params, [prompt], jax.random.key(0), temperature=0.0)
    given = torch.tensor([prompt])
    text = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    np.testing.assert_array_equal(drawn.tokens[0], text[0, len(prompt) :].numpy())


@pytest.mark.filterwarnings("ignore")  # of torch's and transformers' own
@pytest.mark.parametrize(("family", "kinds"), CASES)
def test_logits_and_greedy_text_are_transformers_own(family, kinds, tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", family, kinds)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 290, (2, 48)).astype(np.int32)
    # A quantisation changes no program: the text of one of them will do.
    compare(
        path, tokens, tokens[0, :24].tolist(), 12 if kinds in ("Q4_1", MIXED) else 0
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_tokenizer_is_transformers_own(family, tmp_path):
    pytest.importorskip("torch")
    path = tiny_gguf.write(tmp_path / "tiny.gguf", family)
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path, gguf_file=path.name)
    ours, trained = load_tokenizer(path), tiny_gguf.bpe(tiny_gguf.PRE[family])
    assert ours.get_vocab() == reference.get_vocab() == trained.get_vocab()
    for text in PROBES:
        assert ours(text)["input_ids"] == reference(text)["input_ids"]
        assert ours(text)["input_ids"] == trained.encode(text).ids
        assert ours.decode(ours(text)["input_ids"]) == text
    assert ours.chat_template == reference.chat_template == tiny_gguf.TEMPLATE
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(ours, name) == getattr(reference, name)


def test_digits_stand_alone_where_a_file_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_gguf.PRE, "llama", "smollm")
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    ours = load_tokenizer(path)
    words = ours.backend_tokenizer.pre_tokenizer.pre_tokenize_str("eats  16 eggs")
    assert [word for word, _ in words] == ["eats", "ĠĠ", "1", "6", "Ġeggs"]


@pytest.mark.parametrize("tied", [True, False])
def test_an_open_source_is_the_same_model_with_our_tokens(tied, tmp_path):
    path = tiny_gguf.write(
        tmp_path / "tiny.gguf", "llama", "Q8_0", tie_word_embeddings=tied
    )
    for name in (f"gguf:{path}", str(path), str(tmp_path), f"gguf:{tmp_path}"):
        source = open_source(name)
        assert source.folder == path and source.family == "llama"
    assert source.decoder.tie_embeddings is tied
    rows = source.decoder.vocab_size
    assert rows == tiny_gguf.bpe("llama-bpe").get_vocab_size() + 2
    params = load_weights(source, one_device())
    assert params["embed"]["embedding"].shape == (rows, 256)
    assert ("head" in params) is not tied
    _, spec, tokenizer = load_any(str(path), "solver")
    assert spec.kind == "solver" and "<step>" in tokenizer.get_vocab()
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n"
    assert len(encode(tokenizer, text, special=True)) < len(encode(tokenizer, text))


def test_any_slice_is_that_of_the_whole(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", "Q4_1")
    with open_checkpoint(path) as checkpoint:
        for key, shape in checkpoint.shapes.items():
            whole = checkpoint.read(key)
            assert whole.shape == shape and whole.dtype == np.float32
            cut = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in shape)
            np.testing.assert_array_equal(checkpoint.read(key, cut), whole[cut])
            out = np.empty(whole[cut].shape, np.float32)
            assert checkpoint.read(key, cut, out) is out
            np.testing.assert_array_equal(out, whole[cut])


def test_rotary_scaling_is_read_or_refused(tmp_path):
    waves = 2 * np.pi * 5e5 ** (np.arange(0, 64, 2) / 64)
    smooth = np.clip((8192 / waves - 1) / 3, 0, 1)
    factors = (1 / ((1 - smooth) / 32 + smooth)).astype(np.float32)
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    path = tiny_gguf.write(
        tmp_path / "a.gguf", "llama", tensors={"rope_freqs.weight": factors}, **theta
    )
    scaling = open_source(str(path)).decoder.rope_scaling
    assert scaling is not None and (scaling.kind, scaling.factor) == ("llama3", 32.0)
    assert load_backbone(path, one_device()).config.rope_scaling == scaling
    path = tiny_gguf.write(
        tmp_path / "b.gguf", "llama", tensors={"rope_freqs.weight": factors + 1}
    )
    with pytest.raises(UnsupportedModelError, match="rope_freqs"):
        open_source(str(path))
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    path = tiny_gguf.write(tmp_path / "c.gguf", "qwen2", metadata=linear)
    scaling = open_source(str(path)).decoder.rope_scaling
    assert scaling is not None and (scaling.kind, scaling.factor) == ("linear", 2.0)


LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
}


@pytest.mark.parametrize(
    ("metadata", "same_as"),
    [
        # llama.cpp takes a missing type for linear, and knows an older name.
        ({"rope.scaling.factor": 4.0}, LINEAR),
        ({"rope.scale_linear": 4.0}, LINEAR),
        ({"rope.scaling.type": "linear", "rope.scale_linear": 4.0}, LINEAR),
        ({"rope.scaling.factor": 4.0, "rope.scale_linear": 2.0}, LINEAR),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {}),
        ({"rope.scaling.type": "linear"}, {}),
        ({"rope.scaling.factor": 0.0}, {}),
        ({"rope.scaling.finetuned": 1, "attention.causal": 1}, {}),
        ({**YARN, "rope.scaling.attn_factor": 1.0}, YARN),
        ({**YARN, "rope.scaling.yarn_beta_fast": 32.0}, YARN),
    ],
)
def test_rotary_scaling_is_that_of_llama_cpp(metadata, same_as, tmp_path):
    found = []
    for number, fields in enumerate((metadata, same_as)):
        path = tmp_path / f"{number}.gguf"
        tiny_gguf.write(path, "llama", metadata=fields)
        found.append(open_source(str(path)).decoder)
    assert found[0] == found[1]
    kind = same_as.get("rope.scaling.type")
    assert (found[0].rope_scaling is not None) == bool(same_as)
    assert kind is None or found[0].rope_scaling.kind == kind


@pytest.mark.parametrize(
    ("metadata", "error", "said"),
    [
        ({**YARN, "rope.scaling.attn_factor": 2.0}, UnsupportedModelError, "attn_fac"),
        ({**LINEAR, "rope.scaling.attn_factor": 2.0}, UnsupportedModelError, "attn_f"),
        ({**YARN, "rope.scaling.yarn_beta_fast": 4.0}, UnsupportedModelError, "beta_f"),
        ({**YARN, "rope.scaling.yarn_ext_factor": 0.0}, UnsupportedModelError, "ext_f"),
        ({"rope.freq_base_swa": 100.0}, UnsupportedModelError, "freq_base_swa"),
        ({"attention.causal": 0}, UnsupportedModelError, "attention.causal=0"),
        ({"logit_scale": 3.0}, UnsupportedModelError, "logit_scale=3.0"),
        ({"expert_count": 8}, UnsupportedModelError, "expert_count=8"),
        ({"attention.sliding_window": 16}, UnsupportedModelError, "sliding_window"),
        ({"rope.scaling.type": "su"}, UnsupportedModelError, "scaling.type='su'"),
        ({"rope.dimension_count": 32}, UnsupportedModelError, "dimension_count=32"),
        ({"block_count": 2_000_000_000}, ModelFileError, "block_count is 2000000000"),
        ({"block_count": 1}, ModelFileError, "2 layers"),
        ({"attention.head_count": 0}, ModelFileError, "head_count is 0"),
        ({"embedding_length": 1 << 30}, UnsupportedModelError, "embedding_length"),
        ({"attention.layer_norm_rms_epsilon": -1.0}, ModelFileError, "epsilon is -1"),
    ],
)
def test_metadata_that_are_not_the_models_are_named(metadata, error, said, tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", metadata=metadata)
    with pytest.raises(error, match=said) as caught:
        open_source(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "metadata", [{"feed_forward_length": 1 << 30}, {"attention.head_count_kv": 4}]
)
def test_shapes_that_differ_are_listed_before_anything_is_made(metadata, tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", metadata=metadata)
    with pytest.raises(CheckpointMismatchError, match=r"(gate|k)_proj"):
        load_backbone(path, one_device())


def test_an_unknown_architecture_is_named(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    raw = path.read_bytes().replace(b"llama", b"mamba")
    path.write_bytes(raw)
    with pytest.raises(UnsupportedModelError, match=r"'mamba'.*llama, qwen2, qwen3"):
        open_source(str(path))


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def head(tensors: int, pairs: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def info(name: bytes, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


HUGE = 1 << 62
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "begins with b''"),
    "magic": (b"GGML" + bytes(60), "b'GGML', not b'GGUF'"),
    "short": (b"GGUF\3", "truncated"),
    "version": (head(0, 0, 99), "version 99"),
    "big endian": (head(0, 0, 3 << 24), "big-endian"),
    "pairs": (head(0, HUGE), f"{HUGE} items of metadata"),
    "tensors": (head(HUGE, 0), f"{HUGE} items of tensors"),
    "key": (head(0, 1) + struct.pack("<Q", HUGE) + bytes(64), "truncated"),
    "not text": (head(0, 1) + text(b"\xff\xfe") + bytes(64), "no text"),
    "value": (head(0, 1) + text(b"k") + struct.pack("<IQ", 77, 0), "unknown type 77"),
    "array": (
        head(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 4, HUGE),
        f"{HUGE} items of k",
    ),
    "strings": (head(0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, HUGE), "items"),
    "nested": (
        head(0, 1) + text(b"k") + struct.pack("<IIQIQ", 9, 9, 1, 9, 1),
        "unknown type 9",
    ),
    "twice": (
        head(0, 2) + 2 * (text(b"k") + struct.pack("<II", 4, 1)),
        "'k' is there twice",
    ),
    "axes": (head(1, 0) + info(b"t", [1] * 9), "9 axes"),
    "dimension": (head(1, 0) + info(b"t", [HUGE, 2]), "no shape of F32"),
    "nothing": (head(1, 0) + info(b"t", [0, 2]), "no shape of F32"),
    "block": (head(1, 0) + info(b"t", [31, 2], 8), "multiple of 32"),
    "type": (head(1, 0) + info(b"t", [32, 2], 99), "ggml type 99"),
    "tensor twice": (head(2, 0) + 2 * info(b"t", [1, 1]), "'t' is there twice"),
    "beyond": (head(1, 0) + info(b"t", [1 << 20, 1 << 20]) + bytes(64), "truncated"),
    "offset": (head(1, 0) + info(b"t", [1, 1], 0, HUGE) + bytes(64), "truncated"),
    "alignment": (
        head(0, 1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
        "general.alignment is 0",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_lies_gets_one_error_before_anything_is_read(
    name, tmp_path, monkeypatch
):
    raw, said = FILES[name]
    path = tmp_path / "tiny.gguf"
    path.write_bytes(raw)

    def read(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(gguf, "_read_rows", read)
    for use in (load_tokenizer, open_checkpoint, lambda p: open_source(str(p))):
        with pytest.raises(ModelFileError, match=said) as caught:
            use(path)
        assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", "Q8_0")
    whole = path.read_bytes()
    for size in (10, 30, 500, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match="truncated"):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("gpt2", "bert", "'bert'"),
        ("llama-bpe", "lluma-bpe", "'lluma-bpe'"),
        ("Ġ e", "Ġ_e", "no pair"),
        ("Ġ e", "Ġ \x01", "no usable tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_named(before, after, said, tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    whole, (old, new) = path.read_bytes(), (text(x.encode()) for x in (before, after))
    assert old in whole and len(old) == len(new)
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(ModelFileError, match=said) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


def test_places_that_mean_no_file_say_what_is_there(tmp_path, monkeypatch):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match=r"there are 2 \(a.gguf, b.gguf\)"):
        hub.find(str(tmp_path))
    with pytest.raises(ModelFileError, match="no such file"):
        hub.find(f"gguf:{tmp_path}/c.gguf")
    (tmp_path / "model.safetensors").touch()
    assert hub.find(str(tmp_path)) == tmp_path
    monkeypatch.setenv(gguf.SMOLLM2_VARIABLE, str(tmp_path / "c.gguf"))
    with pytest.raises(ModelFileError, match=r"APRM_SMOLLM2_GGUF.*no such"):
        hub.find("smollm2")
    monkeypatch.setenv(gguf.SMOLLM2_VARIABLE, str(tmp_path / "a.gguf"))
    assert hub.find("smollm2") == tmp_path / "a.gguf"


def test_without_the_package_quantised_files_say_what_to_install(tmp_path, monkeypatch):
    plain = tiny_gguf.write(tmp_path / "plain.gguf", "llama", "F16")
    packed = tiny_gguf.write(tmp_path / "packed.gguf", "llama", "Q8_0")
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    open_checkpoint(plain)
    with pytest.raises(ModelFileError, match=r"Q8_0 needs the package gguf"):
        open_checkpoint(packed)


@pytest.mark.filterwarnings("ignore")
def test_smollm2_is_transformers_own():
    """The real one: 1,024 tokens of text, and 24 greedy ones."""
    try:
        path = hub.find("smollm2")
    except ModelFileError as error:
        pytest.skip(str(error))
    tokenizer = load_tokenizer(path)
    reader = PreTrainedTokenizerFast.from_pretrained
    reference = reader(path.parent, gguf_file=path.name)
    words = " ".join(f"Step: {i} plus {i + 1} makes {2 * i + 1}." for i in range(200))
    ids = tokenizer(words)["input_ids"]
    assert ids == reference(words)["input_ids"] and len(ids) > 1024
    question = [{"role": "user", "content": "What is 16 - 3? Answer briefly."}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    tokens = np.array([ids[:1024]], np.int32)
    compare(path, tokens, list(prompt["input_ids"]), 24)
