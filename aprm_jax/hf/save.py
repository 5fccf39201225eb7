"""Writes a decoder and its head as a folder that transformers, vLLM or PEFT load."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.hf.architectures import LANGUAGE_HEAD
from aprm_jax.hf.config_writer import hf_config
from aprm_jax.hf.peft import ADAPTER_FILE
from aprm_jax.hf.safetensors_io import write_sharded
from aprm_jax.hf.tables import tensors_from_params
from aprm_jax.models.architecture import DecoderConfig

Params = Mapping[str, Any]


def write_folder(
    folder: Path,
    config: DecoderConfig,
    family: str,
    params: Params,
    tokenizer: PreTrainedTokenizerFast,
    *,
    vocab_rows: int,
    max_shard_bytes: int,
    head: str = LANGUAGE_HEAD,
    head_tensors: Mapping[str, np.ndarray] | None = None,
    fields: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Writes config, sharded weights, generation config and tokenizer.

    Args:
      folder: an existing folder.
      config: of the decoder; its vocabulary may be padded.
      family: whose layout it is written in.
      params: of the decoder, on any devices; brought to the host tensor by tensor.
      tokenizer: with its chat template, if it has one.
      vocab_rows: rows of the vocabulary that are written; those behind are padding.
      max_shard_bytes: of one file of weights.
      head: what sits on the backbone, see `config_writer.hf_config`.
      head_tensors: of that head, by the checkpoint's keys.
      fields: more of config.json.
      generation: generation_config.json; None for none.

    Raises:
      UnsupportedModelError: the family has no field for an option of `config`.
    """
    config, params = without_padding(config, params, vocab_rows)
    if head != LANGUAGE_HEAD:
        params = {name: tree for name, tree in params.items() if name != "head"}
        config = dataclasses.replace(config, tie_embeddings=True)
    described = hf_config(config, family, head=head, **(fields or {}))
    _write_json(folder / "config.json", described)
    if generation is not None:
        _write_json(folder / "generation_config.json", generation)
    write_sharded(
        folder,
        _chain(tensors_from_params(config, family, params), head_tensors or {}),
        max_shard_bytes,
    )
    write_tokenizer(folder, tokenizer)


def write_adapter(
    folder: Path,
    tensors: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Writes what `peft` loads: the adapter, its config, and the tokenizer."""
    _write_json(folder / ADAPTER_FILE, fields)
    write_sharded(folder, tensors.items(), 1 << 62, stem="adapter_model")
    write_tokenizer(folder, tokenizer)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Writes the tokenizer as transformers 4 and 5 both read it.

    Version 5 names a class and a form of `extra_special_tokens` that 4 has not.
    """
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra := fields.get("extra_special_tokens"), list):
        del fields["extra_special_tokens"]
        fields["additional_special_tokens"] = extra
    for name in ("backend", "is_local", "local_files_only"):
        fields.pop(name, None)  # of this machine and version
    _write_json(path, fields)


def without_padding(
    config: DecoderConfig, params: Params, rows: int
) -> tuple[DecoderConfig, Params]:
    """The decoder with the first `rows` rows of its vocabulary.

    Raises:
      ValueError: it has fewer.
    """
    if rows == config.vocab_size:
        return config, params
    if rows > config.vocab_size:
        raise ValueError(f"{rows} rows of a vocabulary of {config.vocab_size}")
    cut = {**params, "embed": {"embedding": params["embed"]["embedding"][:rows]}}
    if not config.tie_embeddings:
        cut["head"] = {"kernel": params["head"]["kernel"][:, :rows]}
    return dataclasses.replace(config, vocab_size=rows), cut


def auto_tokenizer_agrees(folder: Path, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether `AutoTokenizer` reads a written folder's tokenizer as it is.

    For some of config.json's model types (Qwen 2) it builds the family's own from the
    vocabulary, whatever tokenizer.json says of the rest.

    Args:
      folder: written, with config.json.
      tokenizer: what was written.
    """
    from transformers import AutoTokenizer  # torch too, where it is installed

    try:
        again: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception:  # of the Rust side: no tokenizer of that family's kind
        return False
    ours, theirs = (t.backend_tokenizer for t in (tokenizer, again))
    if ours.get_vocab() != theirs.get_vocab():
        return False
    # Text of any pieces side by side: boundaries that no rule was made for.
    pieces = np.random.default_rng(0).integers(0, ours.get_vocab_size(), 4096)
    texts = ["It's 1,234 e\u0301\n\n  x", ours.decode(pieces.tolist())]
    return all(
        ours.encode(text, add_special_tokens=False).ids
        == theirs.encode(text, add_special_tokens=False).ids
        for text in texts
    )


def class_head(head: Params) -> dict[str, np.ndarray]:
    """Our head of classes as transformers' `score`: weight [C, D], bias [C]."""
    kernel, bias = (_host(head[name]) for name in ("kernel", "bias"))
    return {"score.weight": np.ascontiguousarray(kernel.T), "score.bias": bias}


def two_layer_head(head: Params) -> dict[str, np.ndarray]:
    """Our linear head of two classes as Linear [D, D], ReLU, Linear [2, D]: the same.

    z = relu(z) - relu(-z): four of the D hidden units hold ± the two logits without
    their bias, the others are zero.

    Raises:
      ValueError: fewer than four hidden units.
    """
    kernel, bias = (_host(head[name]) for name in ("kernel", "bias"))
    width, classes = kernel.shape
    if width < 2 * classes:
        raise ValueError(f"a hidden size of {width} is less than {2 * classes}")
    first = np.zeros((width, width), kernel.dtype)
    second = np.zeros((classes, width), kernel.dtype)
    for c in range(classes):
        first[2 * c], first[2 * c + 1] = kernel[:, c], -kernel[:, c]
        second[c, 2 * c], second[c, 2 * c + 1] = 1, -1
    return {
        "score.0.weight": first,
        "score.0.bias": np.zeros(width, kernel.dtype),
        "score.2.weight": second,
        "score.2.bias": bias,
    }


def _chain(
    first: Iterator[tuple[str, np.ndarray]], rest: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    yield from first
    yield from rest.items()


def _host(value: Any) -> np.ndarray:
    return np.asarray(jax.device_get(value))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
