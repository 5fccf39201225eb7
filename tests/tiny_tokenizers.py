"""Small tokenizers in the formats of published PRMs."""

from __future__ import annotations

import functools

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

QUESTION = "Janet has 16 eggs and eats three. How many are left?"
STEPS = ("She eats three eggs.", "So 16 - 3 = 13 eggs are left.", "The answer is 13")
CORPUS = [QUESTION, *STEPS, "Please reason step by step: Step 1: Step 2: + - = user"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def byte_level() -> PreTrainedTokenizerFast:
    """As Qwen2.5-Math-PRM's and Skywork's: byte-level BPE, chat tokens, a template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*CORPUS, *["a\n\n"] * 9], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<extra_0>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@functools.cache
def line_merging() -> PreTrainedTokenizerFast:
    """As a base model's, untold: a line's end, or a space, is one with its word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(".", "Ċ"), ("Ċ", "Ċ"), (".", "ĊĊ"), ("Ġ", "S"), ("Ċ", "Ġ"), ("1", "3")]
    words = dict.fromkeys([*alphabet, *("".join(pair) for pair in pairs)])
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(words)}, pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>"
    )


@functools.cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """As Mistral's: BPE on "▁" with byte fallback, <s> first, "▁ки" one piece."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator([*CORPUS, *["left. ки + - ки"] * 4], trainer)
    backend.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


TOKENIZERS = {
    "qwen2_prm": byte_level,
    "math_shepherd": sentencepiece,
    "trl": byte_level,
    "skywork": byte_level,
}
