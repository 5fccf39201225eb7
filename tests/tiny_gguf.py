"""Tiny GGUF files of every family and quantisation, written by the package `gguf`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_hf import hf_model, state
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "Janet has 16 eggs and eats three. How many are left?",
    "She eats three eggs.\n\nSo 16 - 3 = <<16-3=13>>13 eggs are left. It's 1,234.",
)
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre of each family.
PRE = {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}
_SIZES: dict[str, Any] = {
    "hidden_size": 256,  # a block of the K types
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@functools.cache
def bpe(pre: str) -> Tokenizer:
    """Trained on a few sentences; its control tokens are the last."""
    backend = Tokenizer(models.BPE())
    digits = "{1,3}" if pre == "llama-bpe" else ""
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS % digits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(list(CORPUS) * 4, trainer)
    backend.add_special_tokens(list(CONTROL))
    return backend


def write(
    path: Path,
    family: str,
    kinds: str | dict[str, str] = "F32",
    *,
    seed: int = 0,
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    **changes: Any,
) -> Path:
    """A random model of transformers as a file.

    Args:
      path: of the file.
      family: "llama", "qwen2" or "qwen3".
      kinds: how matrices are stored; by a part of their name, "" for the others.
      seed: of the weights.
      metadata: of the architecture, in place of the model's.
      tensors: more of them, in float32.
      **changes: of the model's config.
    """
    gguf = pytest.importorskip("gguf")
    tokenizer = bpe(PRE[family])
    sizes = _SIZES | {"vocab_size": tokenizer.get_vocab_size()}
    if family == "qwen3":
        sizes["head_dim"] = 128  # transformers reads no other one from a file
    model = hf_model(family, seed=seed, **(sizes | changes))
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    _write_config(writer, config, metadata or {})
    _write_tokenizer(writer, tokenizer, PRE[family])
    kinds = {"": kinds} if isinstance(kinds, str) else kinds
    for key, value in state(model).items():
        name = _named(key)
        if family == "llama" and ("attn_q." in name or "attn_k." in name):
            heads = config.num_attention_heads
            heads = config.num_key_value_heads if "attn_k." in name else heads
            value = _interleaved(value, heads)
        if value.ndim == 1:
            writer.add_tensor(name, value)
            continue
        kind = next(k for part, k in kinds.items() if part in name)
        _add(gguf, writer, name, 0.3 * value, kind)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _named(key: str) -> str:
    stem, _, kind = key.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, inner = stem.split(".", 3)
        return f"blk.{layer}.{_NAMES[inner]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def _interleaved(value: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter reorders the rows of a Llama's queries and keys."""
    halves = value.reshape(heads, 2, -1, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def _add(gguf: Any, writer: Any, name: str, value: np.ndarray, kind: str) -> None:
    """The gguf package has no quantiser of the K types: their blocks are drawn."""
    type_ = gguf.GGMLQuantizationType[kind]
    if kind in ("Q4_K", "Q6_K"):
        _, size = gguf.GGML_QUANT_SIZES[type_]
        rng = np.random.default_rng(value.size + len(name))
        blocks = rng.integers(0, 256, (value.size // 256, size), np.uint8)
        scales = {"Q4_K": {0: 2e-4, 2: 1.5e-3}, "Q6_K": {208: 5e-5}}[kind]
        for at, scale in scales.items():
            blocks[:, at : at + 2] = np.array([scale], np.float16).view(np.uint8)
        data = blocks.reshape(value.shape[0], -1)
    elif kind in ("F32", "F16"):
        data = value.astype(np.float32 if kind == "F32" else np.float16)
    else:
        data = gguf.quants.quantize(value, type_)
    writer.add_tensor(name, data, raw_dtype=type_)


def _write_config(writer: Any, config: Any, changes: dict[str, Any]) -> None:
    head = getattr(config, "head_dim", None)
    head = head or config.hidden_size // config.num_attention_heads
    fields: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
    } | changes
    for name, value in fields.items():
        key = f"{config.model_type}.{name}"
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)


def _write_tokenizer(writer: Any, tokenizer: Tokenizer, pre: str) -> None:
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(vocab["<|im_end|>"])
    writer.add_bos_token_id(vocab["<|endoftext|>"])
    writer.add_pad_token_id(vocab["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
