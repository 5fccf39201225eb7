"""A word-level tokenizer in Hugging Face format for the embedded problems."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.steps import PERTURB_TOKEN, STEP_TOKEN


def build_word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are whitespace-separated words.

    Decoding joins words with single spaces, so text in that form survives the round
    trip. Words outside `words` become `<unk>`.

    Args:
      words: the vocabulary without special tokens; no duplicates.
    """
    if len(set(words)) != len(words):
        raise ValueError("the vocabulary holds a word twice")
    # Only <unk> and the words are in the model's vocabulary. The other special tokens
    # are added tokens: where `encode_special_tokens` is set, "<step>" spelt out in
    # hostile text is then an unknown word and never the separator.
    vocab = {word: i for i, word in enumerate(["<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=[STEP_TOKEN, PERTURB_TOKEN],
        clean_up_tokenization_spaces=False,
    )
