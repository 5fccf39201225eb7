"""Tokenizers out and in again: by us, by AutoTokenizer, and where that differs."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import tiny
import tiny_decoder
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aprm_jax.data.bpe import train_bpe
from aprm_jax.data.prompts import prepare_tokenizer
from aprm_jax.hf.architectures import FAMILIES
from aprm_jax.hf.export import export_model
from aprm_jax.hf.load import load_tokenizer, tokenizer_rows
from aprm_jax.models.io import ModelSpec

CORPUS = (
    "Janet has 16 eggs and eats three. How many are left?",
    "She eats three eggs.\n\nSo 16 - 3 = <<16-3=13>>13 eggs are left.",
    "It's (1,234 + 56) / 2\r\n  by café rules",
)
PROBES = (*CORPUS, " \n x\t1  2\n\n\n", "e\u0301 € ки", "I'LL <step> <bos>", "")
# https://huggingface.co/Qwen/Qwen2.5-0.5B, tokenizer.json
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def own() -> PreTrainedTokenizerFast:
    return train_bpe(list(CORPUS) * 4, 330)


@functools.cache
def qwen() -> PreTrainedTokenizerFast:
    """As Qwen 2.5's, smaller, and with the step builder's tokens."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(list(CORPUS) * 4, trainer)
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = "{{ messages[0].content }}"
    return prepare_tokenizer(tokenizer, 400)


def ids(tokenizer, *, special: bool = True) -> list[list[int]]:
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = not special
    return [backend.encode(text, add_special_tokens=False).ids for text in PROBES]


def exported(tokenizer, family: str, folder: Path) -> Path:
    biases = {"attention_bias": "qkv"} if family == "qwen2" else {}
    config = tiny.decoder(tokenizer_rows(tokenizer), **biases)
    spec = ModelSpec(
        "solver", config, None, None, (32,), "gsm8k", max_new_tokens=4, family=family
    )
    params = {"backbone": tiny_decoder.make_params(config)}
    return export_model(folder, params, spec, tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_any_family_has_the_tokenizer_it_was_given(family, tmp_path):
    """Whatever class AutoTokenizer would take for the family."""
    own().save_pretrained(tmp_path)
    kind, prefix = FAMILIES[family]
    described = {"model_type": kind, "architectures": [f"{prefix}ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(described))
    again = load_tokenizer(tmp_path)
    assert again.get_vocab() == own().get_vocab()
    assert ids(again) == ids(own()) and ids(again, special=False) == ids(
        own(), special=False
    )
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(again, name) == getattr(own(), name)


@pytest.mark.parametrize(
    ("make", "family"), [(own, "llama"), (qwen, "qwen2")], ids=["own", "qwen"]
)
def test_auto_tokenizer_gives_our_ids_of_an_export(make, family, tmp_path):
    """Ours as a Llama's, a Qwen's own as a Qwen's: what exports are in practice."""
    folder = exported(make(), family, tmp_path / "out")
    again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert again.get_vocab() == make().get_vocab()
    assert ids(again) == ids(make())
    assert again.decode(ids(again)[0]) == CORPUS[0]
    assert again.chat_template == make().chat_template
    card = (folder / "README.md").read_text()
    assert "PreTrainedTokenizerFast" not in card


def test_a_card_says_where_auto_tokenizer_is_wrong(tmp_path):
    folder = exported(own(), "qwen2", tmp_path / "out")
    again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert again.get_vocab() != own().get_vocab()  # it adds a token without a row
    card = (folder / "README.md").read_text()
    assert "take `PreTrainedTokenizerFast`" in card
    code = (folder / "score.py").read_text()
    assert "PreTrainedTokenizerFast.from_pretrained(" in code
    assert "AutoTokenizer.from_pretrained" not in code
    again = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    assert ids(again) == ids(own())
