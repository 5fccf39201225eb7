"""A word-level tokenizer in Hugging Face format for the embedded problems."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.bpe import wrap


def build_word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are words, signs and single digits.

    Whitespace does not matter: `2+12` and `2 + 12` are the same four tokens, and
    decoding puts single spaces between all but the digits of one number, so text in
    that form survives the round trip. Words outside `words` become `<unk>`.

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
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex("[0-9]|[^0-9A-Za-z]"), "isolated"),
        ]
    )
    # No word begins with that prefix: the first decoder joins all with single spaces.
    joined = [decoders.WordPiece(prefix="\0", cleanup=False), decoders.Fuse()]
    digits = decoders.Replace(Regex("(?<=[0-9]) (?=[0-9])"), "")
    backend.decoder = decoders.Sequence([*joined, digits])
    return wrap(backend, unk_token="<unk>")
