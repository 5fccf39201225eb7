"""Trains, saves and loads a byte-level BPE tokenizer with the step tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.jsonl import DataError
from aprm_jax.data.steps import PERTURB_TOKEN, STEP_TOKEN

PAD_TOKEN = "<pad>"
BOS_TOKEN = "<bos>"
EOS_TOKEN = "<eos>"
SPECIAL_TOKENS = (PAD_TOKEN, BOS_TOKEN, EOS_TOKEN, STEP_TOKEN, PERTURB_TOKEN)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)


def train_bpe(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Trains a tokenizer: lossless on any text, every digit a token of its own.

    Args:
      texts: the training text, consumed once; the result is a function of it alone.
      vocab_size: size of the vocabulary, special tokens and 256 bytes included.
        Fewer where the text has no more pairs to merge.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"vocab_size is {vocab_size}, at least {MIN_VOCAB_SIZE}")
    tokenizer = Tokenizer(models.BPE())
    # Digits first: a number is then read and written digit by digit.
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return wrap(tokenizer)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes Hugging Face tokenizer files into a folder."""
    tokenizer.save_pretrained(str(folder))


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Loads what `save_tokenizer` wrote, from disk alone."""
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file: not a tokenizer folder")
    try:
        return wrap(Tokenizer.from_file(str(path)))
    except Exception as error:  # the Rust side raises plain Exception
        raise DataError(f"{path}: not a tokenizer: {error}") from None


def given_or_trained(
    tokenizer: PreTrainedTokenizerFast | str | Path | None,
    texts: Iterable[str],
    vocab_size: int,
) -> PreTrainedTokenizerFast:
    """The tokenizer given, that of a folder, or where it is None one of `texts`."""
    if tokenizer is None:
        return train_bpe(texts, vocab_size)
    if isinstance(tokenizer, str | Path):
        return load_tokenizer(tokenizer)
    return tokenizer


def wrap(tokenizer: Tokenizer, **more: str) -> PreTrainedTokenizerFast:
    """As transformers has it, with our special tokens and `more` of them by name."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        additional_special_tokens=[STEP_TOKEN, PERTURB_TOKEN],
        clean_up_tokenization_spaces=False,
        **more,
    )
