"""The tokenizer of a GGUF file, from its metadata: byte-level BPE and a chat template.

A file names how text falls into words (`tokenizer.ggml.pre`) and leaves the rule to who
reads it: these are llama.cpp's, of the models that the names stand for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from aprm_jax.hf.gguf_file import read_gguf
from aprm_jax.models.io import ModelFileError

_CONTROL, _USER_DEFINED = 3, 4  # types of tokens

# How text falls into words, by tokenizer.ggml.pre; llama.cpp's src/llama-vocab.cpp.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3, _QWEN2 = _WORDS % "{1,3}", _WORDS % ""
_SPLITS: dict[str, str] = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
}
_GPT2 = ("default", "gpt-2")
_GPT2_DIGITS = ("smollm", "starcoder", "refact", "command-r")  # each digit a word


def read_tokenizer(path: str | os.PathLike[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a file: byte-level BPE, with its chat template.

    Raises:
      ModelFileError: another kind of tokenizer, or a damaged one.
    """
    file = read_gguf(path)
    told = {
        key.removeprefix("tokenizer.").removeprefix("ggml."): value
        for key, value in file.metadata.items()
        if key.startswith("tokenizer.")
    }
    try:
        return _tokenizer(told, str(path))
    except ModelFileError:
        raise
    except Exception as error:  # the Rust side raises plain Exception
        reason = str(error).strip().split("\n")[0]
        raise ModelFileError(f"{path}: no usable tokenizer: {reason[:300]}") from error


def _tokenizer(told: Mapping[str, Any], where: str) -> PreTrainedTokenizerFast:
    if told.get("model") != "gpt2":
        raise ModelFileError(
            f"{where}: tokenizer.ggml.model is {str(told.get('model'))[:80]!r}, and "
            "only byte-level BPE ('gpt2') is read"
        )
    tokens, kinds = told.get("tokens"), told.get("token_type") or ()
    if not tokens or len(set(tokens)) != len(tokens):
        raise ModelFileError(f"{where}: tokenizer.ggml.tokens: none, or one twice")
    backend = Tokenizer(_bpe(told, tokens, where))
    pre = str(told.get("pre", "default"))
    _set_words(backend, pre, where)
    of_kind = {
        kind: [token for token, k in zip(tokens, kinds, strict=False) if k == kind]
        for kind in (_CONTROL, _USER_DEFINED)
    }
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in of_kind[_CONTROL]]
    )
    backend.add_tokens(
        [AddedToken(t, normalized=False) for t in of_kind[_USER_DEFINED]]
    )
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special: dict[str, str] = {}
    for name, theirs in names.items():
        index = told.get(f"{theirs}_token_id")
        if index is None:
            continue
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise ModelFileError(
                f"{where}: tokenizer.ggml.{theirs}_token_id is {index}, of "
                f"{len(tokens)} tokens"
            )
        special[f"{name}_token"] = tokens[index]
    _add_ends(backend, told, special)
    template = told.get("chat_template")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        name_or_path=where,
        chat_template=template if isinstance(template, str) else None,
        **special,
    )


def _bpe(told: Mapping[str, Any], tokens: list[str], where: str) -> models.BPE:
    merges = [tuple(merge.split(" ")) for merge in told.get("merges") or ()]
    if wrong := next((merge for merge in merges if len(merge) != 2), None):
        raise ModelFileError(f"{where}: tokenizer.ggml.merges: {wrong!r} is no pair")
    vocab = {token: index for index, token in enumerate(tokens)}
    whole = _SPLITS.get(str(told.get("pre"))) == _LLAMA3  # words of the vocabulary
    return models.BPE(vocab, merges, fuse_unk=False, ignore_merges=whole)


def _set_words(backend: Tokenizer, pre: str, where: str) -> None:
    """How text is made of words and words of bytes."""
    steps: list[Any] = [
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in _SPLITS)
    ]
    if pre in _SPLITS:
        steps.insert(0, pre_tokenizers.Split(Regex(_SPLITS[pre]), "isolated"))
    elif pre in _GPT2_DIGITS:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif pre not in _GPT2:
        known = ", ".join((*_SPLITS, *_GPT2, *_GPT2_DIGITS))
        raise ModelFileError(
            f"{where}: tokenizer.ggml.pre is {pre[:80]!r}, and only {known} are read"
        )
    if _SPLITS.get(pre) == _QWEN2:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()


def _add_ends(
    backend: Tokenizer, told: Mapping[str, Any], special: Mapping[str, str]
) -> None:
    """What the model opens and closes every text with, where it does."""
    front = special.get("bos_token") if told.get("add_bos_token") else None
    back = special.get("eos_token") if told.get("add_eos_token") else None
    if not front and not back:
        return
    backend.post_processor = processors.TemplateProcessing(
        single=[*filter(None, (front,)), "$A", *filter(None, (back,))],
        pair=[
            *filter(None, (front,)),
            "$A",
            *filter(None, (back, front)),
            "$B:1",
            *filter(None, (back,)),
        ],
        special_tokens=[
            (token, backend.token_to_id(token)) for token in {front, back} - {None}
        ],
    )
