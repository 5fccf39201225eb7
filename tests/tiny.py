"""Tiny real models for tests: a tokenizer of words, a decoder of one layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.steps import PERTURB_TOKEN, STEP_TOKEN
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.models.io import ModelSpec, save_model

WORDS = ("<pad>", "<bos>", STEP_TOKEN, PERTURB_TOKEN, "<unk>", *"0123456789+-*=()")


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; words are separated by spaces."""
    vocab = {word: i for i, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[STEP_TOKEN, PERTURB_TOKEN],
    )


def decoder(vocab_size: int = len(WORDS), **changes: Any) -> DecoderConfig:
    """One layer of width 16; `changes` replace any field."""
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": 16,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 8,
        "d_ff": 32,
    }
    return DecoderConfig(**{**fields, **changes})


def backbone(config: DecoderConfig, seed: int = 0, spread: float = 20.0) -> Any:
    """Random parameters whose logits differ by units, not by hundredths."""
    params = _init(config, seed)
    embedding = params["embed"]["embedding"] * spread
    return {**params, "embed": {"embedding": embedding}}


@functools.cache
def _init(config: DecoderConfig, seed: int) -> Any:
    ids = jnp.zeros((1, 4), jnp.int32)
    init = jax.jit(Decoder(config).init)
    return init(jax.random.key(seed), ids, ids, ids + 1)["params"]


def save(folder: Path, kind: str, **extra: Any) -> Path:
    """Writes a random model of a kind, of two short buckets, and returns its folder."""
    config = decoder()
    params: Any = {"backbone": backbone(config)}
    if kind == "prm":
        params = heads.init_prm(jax.random.key(1), params["backbone"], 16, "token")
    spec = ModelSpec(
        kind=kind,
        decoder=config,
        head="token" if kind == "prm" else None,
        window=1,
        buckets=(16, 32),
        domain="arithmetic",
        line_stride=16,
        **extra,
    )
    save_model(folder, params, spec, tokenizer())
    return folder


def solutions() -> Sequence[tuple[str, tuple[str, ...], tuple[float, ...]]]:
    """Questions with steps and labels, of different lengths."""
    return (
        ("1 + 2 * 3 =", ("1 + 6", "7"), (1.0, 1.0)),
        ("( 4 + 5 ) * 2 =", ("9 * 2", "1 8", "8"), (1.0, 1.0, 0.0)),
        ("7 - 7 =", ("0",), (1.0,)),
    )
