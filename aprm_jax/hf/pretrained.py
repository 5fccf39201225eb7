"""Opens a model of Hugging Face, or an export of ours, before and with its weights.

Three kinds of folders come to the same: a language model or published PRM, a PEFT
adapter on one, and an export, which says in its record how it is used.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.prompts import prepare_tokenizer
from aprm_jax.hf import hub, prm_layouts
from aprm_jax.hf.adapters import Adapter, AdapterMismatchError
from aprm_jax.hf.architectures import UnsupportedModelError
from aprm_jax.hf.config import has_logits, read_config
from aprm_jax.hf.export import Origin
from aprm_jax.hf.load import (
    check_tokenizer,
    load_backbone,
    load_tokenizer,
    open_checkpoint,
    read_architecture,
    tokenizer_rows,
)
from aprm_jax.hf.peft import base_of, load_adapter
from aprm_jax.hf.record import Record, read_record
from aprm_jax.hf.stamps import Stamp, files_stamp
from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.io import Kind, ModelSpec

# Rows of a published PRM that nothing else says the length of.
_BUCKETS = (256, 512, 1024, 2048, 4096)
_STEP_TOKENS = 256  # room for a step of a solver of which nothing says how long
# The layout whose head an export's format has.
_HEAD_OF = {
    "token_classification": "trl",
    "peft": "trl",
    "qwen2_prm": "qwen2_prm",
    "skywork": "skywork",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A model of Hugging Face before its weights are read.

    Attributes:
      folder: its files, or the GGUF file.
      adapter: the folder of a PEFT adapter that is merged into them; None for none.
      decoder: the architecture, with the rows of the vocabulary that we add.
      family: of the key tables.
      tokenizer: with the step builder's tokens.
      layout: of a published PRM's rows, see `hf.prm_layouts`; None for a language
        model, and for the step builder's rows.
      head_layout: the layout whose head it has; None for none.
      origin: what exports remember of it.
      record: of an export of ours; None for others.
      writes: whether it has logits over its tokens: an LM head, or a tied embedding.
    """

    folder: Path
    adapter: Path | None
    decoder: DecoderConfig
    family: str
    tokenizer: PreTrainedTokenizerFast
    layout: str | None
    head_layout: str | None
    origin: Origin
    record: Record | None
    writes: bool = True

    @property
    def is_prm(self) -> bool:
        """Whether it has a verdict's head already."""
        recorded = self.record is not None and self.record.spec.kind == "prm"
        return self.layout is not None or recorded

    @property
    def head(self) -> str | None:
        """A PRM's, of `heads.HEADS`; None for a language model."""
        if self.record is not None:
            return self.record.spec.head
        return prm_layouts.HEAD if self.is_prm else None


def open_source(
    name: str,
    *,
    dtype: str = "float32",
    param_dtype: str = "float32",
    remat: str = "none",
    find: Callable[..., Path] = hub.find,
) -> Source:
    """Opens a folder or a model of the hub; reads all but the weights.

    Args:
      name: a folder, or OWNER/NAME.
      dtype: of activations.
      param_dtype: of parameters.
      remat: see `DecoderConfig`.
      find: see `hub.find`.

    Raises:
      UnsupportedModelError, ModelFileError, AdapterMismatchError: what is there cannot
        be used.
    """
    place, base = find(name), name
    folder, adapter, merged = place, None, None
    if (named := base_of(place)) is not None:
        base, revision = named
        folder = find(base, revision)
        adapter, merged = place, load_adapter(place)
    decoder, family = read_architecture(
        folder, adapter=merged, dtype=dtype, param_dtype=param_dtype, remat=remat
    )
    record = read_record(place, decoder)
    given = adapter is not None and (place / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(place if given else folder)
    layout, head = _kind(folder, base, merged, record)
    if not given:
        check_tokenizer(tokenizer, decoder.vocab_size, folder)
    if layout is None:
        tokenizer = prepare_tokenizer(tokenizer, decoder.vocab_size)
    described = read_config(folder)
    writes = has_logits(described)
    described = described.get("text_config", described)
    origin = Origin(name, decoder.vocab_size, described.get("max_position_embeddings"))
    rows = max(decoder.vocab_size, tokenizer_rows(tokenizer))
    decoder = dataclasses.replace(decoder, vocab_size=rows)
    if record is not None:
        spec = dataclasses.replace(record.spec, decoder=decoder)
        record = dataclasses.replace(record, spec=spec)
    parts = (folder, adapter, decoder, family, tokenizer, layout, head, origin, record)
    return Source(*parts, writes)


def check_writes(source: Source, name: str) -> None:
    """Raises UnsupportedModelError for a model that has no logits over its tokens.

    Args:
      source: what is to write text.
      name: of it, for the message.
    """
    if not source.writes:
        raise UnsupportedModelError(
            f"{name}: has no LM head, and config.json says tie_word_embeddings=false: "
            "it cannot write text; name the language model (...ForCausalLM)"
        )


def load_weights(source: Source, mesh: jax.sharding.Mesh) -> Any:
    """The decoder's parameters on the mesh; kept for whoever opens it next.

    Not where its files are others by then.
    """
    where = (source.folder, source.adapter, source.decoder, mesh)
    stamps = tuple(files_stamp(p) for p in where[:2] if p is not None)
    return _weights(*where, source.head_layout, stamps)


def forget_weights() -> None:
    """Keeps none for later: where others take their place, they are memory lost."""
    _weights.cache_clear()


def load_head(source: Source) -> dict[str, Any]:
    """A PRM's head, its tensors checked against the shapes that it must have.

    Raises:
      LayoutError: a tensor is missing or of another shape.
    """
    if source.head_layout is None:  # the head "token": two numbers
        numbers = source.record.head if source.record is not None else {}
        return {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    layout = prm_layouts.LAYOUTS[source.head_layout]
    rows = source.origin.vocab_rows or source.decoder.vocab_size
    classes = 3 if source.head == "three_class" else 2
    with open_checkpoint(source.folder) as checkpoint:
        saved = load_adapter(source.adapter).head if source.adapter else {}
        found = {**checkpoint.shapes, **{k: v.shape for k, v in saved.items()}}
        if not read_config(source.folder).get("token_classification_bias", True):
            found.pop("score.bias", None)  # transformers makes none either
        wanted = layout.shapes(source.decoder.d_model, rows, found, classes)
        for key, shape in wanted.items():
            if key not in found or tuple(found[key]) != shape:
                there = list(found[key]) if key in found else "missing"
                raise prm_layouts.LayoutError(
                    f"{source.adapter or source.folder}: {key} of the {layout.name} "
                    f"head is {there}, not {list(shape)}"
                )
        tensors = {k: saved[k] if k in saved else checkpoint.read(k) for k in wanted}
    return prm_layouts.head_params(layout.name, tensors, source.tokenizer)


def load_export(
    name: str,
    mesh: jax.sharding.Mesh,
    kind: Kind = "prm",
    dtype: str = "float32",
    param_dtype: str = "float32",
) -> tuple[dict[str, Any], ModelSpec, PreTrainedTokenizerFast]:
    """A PRM or an export of ours as `models.io.load_model` gives a model.

    Args:
      name: a folder, or OWNER/NAME on the hub.
      mesh: where parameters lie.
      kind: what is wanted; a language model is a solver, which is told in words.
      dtype: of activations.
      param_dtype: of parameters.

    Raises:
      UnsupportedModelError, ModelFileError, AdapterMismatchError: it cannot be used;
        or it is a language model that nothing says the use of.
    """
    source = open_source(name, dtype=dtype, param_dtype=param_dtype)
    extra = source.origin.extra()
    if source.record is not None:
        spec = dataclasses.replace(
            source.record.spec, family=source.family, extra=extra
        )
    elif source.layout is not None:
        longest = source.origin.max_positions or _BUCKETS[-1]
        spec = ModelSpec(
            kind="prm",
            decoder=source.decoder,
            head=source.head,
            window=None,
            buckets=tuple(b for b in _BUCKETS if b <= longest) or (longest,),
            domain="",
            family=source.family,
            layout=source.layout,
            extra=extra,
        )
    elif kind == "solver":
        check_writes(source, name)
        spec = _told_in_words(source, extra)
    else:
        raise prm_layouts.LayoutError(
            f"{name}: a language model without a PRM's head; name it as prm.backbone "
            "of a run to train one"
        )
    params = {"backbone": load_weights(source, mesh)}
    if spec.kind == "prm":
        params["head"] = load_head(source)
    return params, spec, source.tokenizer


def _told_in_words(source: Source, extra: dict[str, Any]) -> ModelSpec:
    """A language model that nothing was trained on: it is prompted for each step."""
    longest = (source.origin.max_positions or 2 * _BUCKETS[-1]) - _STEP_TOKENS
    return ModelSpec(
        kind="solver",
        decoder=source.decoder,
        head=None,
        window=None,
        buckets=tuple(b for b in _BUCKETS if b <= longest) or (max(longest, 1),),
        domain="",
        max_new_tokens=_STEP_TOKENS,
        family=source.family,
        prompt="",
        extra=extra,
    )


def _kind(
    folder: Path, name: str, adapter: Adapter | None, record: Record | None
) -> tuple[str | None, str | None]:
    """The layout of the rows, and the one whose head it is."""
    if record is not None:
        prm = record.spec.kind == "prm"
        return record.spec.layout, _HEAD_OF.get(record.format) if prm else None
    layout = prm_layouts.detect(folder, name)
    if adapter is None or not adapter.head:
        return layout, layout
    if layout is None and "score.weight" in adapter.head:
        layout = "trl"  # an adapter for token classification brings its own head
    known = prm_layouts.LAYOUTS[layout].ignored if layout is not None else ()
    for key in adapter.head:
        if not any(re.search(pattern, key) for pattern in known):
            raise AdapterMismatchError(
                f"the adapter has {key}, which is no part of a decoder and of no "
                "PRM's head that is known"
            )
    return layout, layout


@functools.lru_cache(maxsize=1)
def _weights(
    folder: Path,
    adapter: Path | None,
    decoder: DecoderConfig,
    mesh: jax.sharding.Mesh,
    head: str | None,
    stamps: tuple[Stamp, ...],
) -> Any:
    return load_backbone(
        folder,
        mesh,
        dtype=decoder.dtype,
        param_dtype=decoder.param_dtype,
        remat=decoder.remat,
        vocab_size=decoder.vocab_size,
        ignore=prm_layouts.LAYOUTS[head].ignored if head else (),
        adapter=adapter,
    ).params
