"""Exports a trained model in the formats that others load, and uploads it.

Class 1 is "correct" wherever there are two classes, and a verdict is read at the token
that ends a step.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from aprm_jax.config import EXPORT_FORMATS as FORMATS
from aprm_jax.config.errors import UserError
from aprm_jax.data.chat_template import TODAY
from aprm_jax.data.prompts import TOLD
from aprm_jax.data.steps import RowFormat, StepBuilder, marks
from aprm_jax.hf import prm_layouts, save
from aprm_jax.hf.architectures import LANGUAGE_HEAD
from aprm_jax.hf.builders import open_builder
from aprm_jax.hf.card import TEMPLATES, Provenance, is_repository, write_card
from aprm_jax.hf.load import tokenizer_rows
from aprm_jax.hf.peft import to_peft
from aprm_jax.hf.record import Record, write_record
from aprm_jax.models import lora
from aprm_jax.models.io import ModelSpec, written_whole

CLASSES = {
    "two_class": ("incorrect", "correct"),
    "three_class": ("incorrect", "neutral", "correct"),
}
_MARK = "- aprm_jax\n"  # in the metadata of every card that we write
_NO_TOKEN_CLASSES = ("gemma3",)  # transformers has no such class of it
# Layouts of published PRMs on Qwen 2 that are formats too, and their classes' names.
_HEADS = {"qwen2_prm": "ForProcessRewardModel", "skywork": "ForPrmModel"}


class ExportError(UserError, ValueError):
    """A model cannot be exported so; the message says what can be done instead."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a model's folder remembers of the checkpoint that it comes from.

    It lies in `ModelSpec.extra["origin"]`; a model trained from scratch has none.

    Attributes:
      base_model: name or folder of the checkpoint; "" for none.
      vocab_rows: rows of its embedding; None for all that the model has. Rows behind
        them are kept only as far as the tokenizer has tokens for them.
      max_positions: `max_position_embeddings` of its config.json.
      lora: `LoraConfig`'s fields where the folder holds an adapter, as `params["lora"]`
        without the backbone or beside it.
    """

    base_model: str = ""
    vocab_rows: int | None = None
    max_positions: int | None = None
    lora: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, spec: ModelSpec) -> Origin:
        """What `spec` remembers."""
        return cls(**spec.extra.get("origin", {}))

    def extra(self) -> dict[str, Any]:
        """To be merged into `ModelSpec.extra`."""
        return {"origin": dataclasses.asdict(self)}


def resolve_format(spec: ModelSpec, format_: str) -> str:
    """What is written: "auto" and "merged" are a model's usual format.

    Raises:
      ExportError: the model cannot be expressed in that format; before anything is
        written.
    """
    if format_ not in FORMATS:
        raise ExportError(
            f"export.format must be one of {', '.join(FORMATS)}, not {format_!r}"
        )
    classes = spec.head in CLASSES
    if format_ in ("auto", "merged"):
        format_ = "token_classification" if classes else "causal_lm"
        if spec.layout in _HEADS:  # back into what it came from
            format_ = spec.layout
    if spec.line_stride and format_ in _HEADS:
        raise ExportError(
            f"the model was trained with builder.line_stride={spec.line_stride}: its "
            f"positions leave gaps, and who serves the format {format_!r} gives it "
            "none. Train with builder.line_stride=0, or export it as 'auto', whose "
            "card passes them"
        )
    if format_ in ("token_classification", *_HEADS):
        _check_classes(spec, format_)
    elif format_ == "causal_lm" and classes:
        raise ExportError(
            f"a PRM with the head {spec.head!r} has no LM head: export it as "
            "token_classification"
        )
    if format_ == "peft":
        _check_adapter(spec)
    return format_


def _check_classes(spec: ModelSpec, format_: str) -> None:
    if spec.kind != "prm":
        raise ExportError(f"a {spec.kind} is no {format_}: export it as causal_lm")
    if spec.head not in CLASSES:
        raise ExportError(
            f"the head {spec.head!r} is no {format_}: its verdict is the LM's "
            "logit of each token of a step. Export it as causal_lm, whose card has the "
            "formula, or train with prm.head='two_class'"
        )
    if format_ in _HEADS:
        if spec.head != "two_class":
            raise ExportError(
                f"{format_} has two classes, the head {spec.head!r} more: export "
                "it as token_classification"
            )
        if spec.family != "qwen2":
            raise ExportError(
                f"{format_} is a layout of Qwen 2, and this model is a {spec.family}: "
                "export it as token_classification"
            )
        if spec.layout not in (None, format_):
            raise ExportError(
                f"the model reads rows of {spec.layout}, not of {format_}: export it "
                "as token_classification"
            )
    elif spec.family in _NO_TOKEN_CLASSES:
        raise ExportError(
            f"transformers has no token classification on {spec.family}: choose "
            "another backbone"
        )
    if spec.layout == "qwen2_prm" and format_ != "qwen2_prm":
        raise ExportError(
            f"the head of a qwen2_prm has two layers, which {format_} has not: export "
            "it as qwen2_prm"
        )


def _check_adapter(spec: ModelSpec) -> None:
    origin = Origin.of(spec)
    if origin.lora is None or not origin.base_model:
        raise ExportError(
            "peft takes a stage, or its folder `adapter`, that was trained with "
            "lora.rank > 0 from a Hugging Face backbone: this model has parameters of "
            "its own; export it as causal_lm or token_classification"
        )
    if spec.kind == "prm" and spec.family in _NO_TOKEN_CLASSES:
        raise ExportError(
            f"transformers has no token classification on {spec.family} to put an "
            "adapter on"
        )
    if spec.head == "token":
        raise ExportError(
            "peft cannot hold the scale and bias of the head 'token': export it "
            "merged, as causal_lm"
        )
    if spec.layout not in (None, "trl"):
        raise ExportError(
            f"peft needs transformers' class of the base, and {spec.layout} has none: "
            "export it merged"
        )
    if origin.vocab_rows is not None and spec.decoder.vocab_size > origin.vocab_rows:
        raise ExportError(
            f"peft has no place for the {spec.decoder.vocab_size - origin.vocab_rows} "
            f"rows that were added to the {origin.vocab_rows} of the base's "
            "vocabulary: export it merged"
        )


def export_model(
    directory: str | os.PathLike[str],
    params: Mapping[str, Any],
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerFast,
    *,
    format_: str = "auto",
    max_shard_bytes: int = 5_000_000_000,
    provenance: Provenance | None = None,
    name: str = "",
) -> Path:
    """Writes a model as a complete folder, or nothing at all.

    Args:
      directory: the folder; one that an export made is replaced, another is not.
      params: the model's, as `models.io.load_model` gives them; with an adapter its
        backbone too, unless the adapter alone is exported.
      spec: what the model is.
      tokenizer: its own.
      format_: one of `FORMATS`.
      max_shard_bytes: of one file of weights.
      provenance: what the card tells of the run.
      name: the repository that it is uploaded to; default: the folder's name.

    Returns:
      The folder.

    Raises:
      ExportError: the model is not expressible so, or `directory` is not ours.
      UnsupportedModelError: the family's config cannot say what the decoder does.
    """
    target = Path(directory).absolute()
    format_ = resolve_format(spec, format_)
    check_target(target)
    builder = open_builder(spec, tokenizer)
    # The builder reads special tokens as text; what is saved must not.
    tokenizer.backend_tokenizer.encode_special_tokens = False
    rows = kept_rows(spec, tokenizer)
    record = describe(spec, builder, params, format_)
    with written_whole(target) as scratch:
        if format_ == "peft":
            _write_peft(scratch, params, spec, tokenizer)
        else:
            if "lora" in params:
                params = _merged(params, spec)
            _write_weights(
                scratch,
                params,
                spec,
                tokenizer,
                builder,
                format_,
                rows,
                max_shard_bytes,
            )
        write_record(scratch, record)
        shutil.copyfile(TEMPLATES / "score.py", scratch / "score.py")
        card = write_card(
            name or target.name,
            record,
            provenance or Provenance(),
            base_model=Origin.of(spec).base_model,
            auto_tokenizer=save.auto_tokenizer_agrees(scratch, tokenizer),
        )
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return target


def kept_rows(spec: ModelSpec, tokenizer: PreTrainedTokenizerFast) -> int:
    """Rows of the vocabulary that are exported: the checkpoint's, and used ones.

    Raises:
      ExportError: the tokenizer has ids without a row.
    """
    rows, needed = spec.decoder.vocab_size, tokenizer_rows(tokenizer)
    if needed > rows:
        raise ExportError(
            f"the tokenizer has ids up to {needed - 1}, the embedding only {rows} rows"
        )
    given = Origin.of(spec).vocab_rows
    return rows if given is None else min(rows, max(given, needed))


def check_target(directory: Path, field: str = "export.directory") -> None:
    """Raises ExportError where a folder stands that no export has made.

    Args:
      directory: it.
      field: what names it, for the message.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    card = directory / "README.md"
    ours = card.is_file() and _MARK in card.read_text(encoding="utf-8", errors="ignore")
    if not ours:
        raise ExportError(
            f"{field}: {directory} exists and is no earlier export, so it is "
            "not replaced: choose another folder"
        )


def push(
    directory: str | os.PathLike[str], repository: str, *, private: bool = True
) -> str:
    """Uploads an exported folder to the Hugging Face hub and returns its address.

    Args:
      directory: of `export_model`.
      repository: user/name; made if it is not there.
      private: of a repository that is made.

    Raises:
      ExportError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    check_repository(repository)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=str(directory),
            commit_message="Export from aprm_jax",
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ExportError(
            f"export.push_to_hub={repository!r}: {reason}. The folder is at "
            f"{os.fspath(directory)}; log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    return str(getattr(done, "commit_url", done))


def check_repository(name: str) -> None:
    """Raises ExportError unless `name` is user/name."""
    if not is_repository(name):
        raise ExportError(f"export.push_to_hub takes user/name, not {name!r}")


def _write_weights(
    scratch: Path,
    params: Mapping[str, Any],
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerFast,
    builder: RowFormat,
    format_: str,
    rows: int,
    max_shard_bytes: int,
) -> None:
    origin = Origin.of(spec)
    stops: Any = _stops(builder) or tokenizer.eos_token_id
    longest = spec.buckets[-1] + (spec.max_new_tokens or 0)
    fields: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": stops,
        "pad_token_id": builder.pad_id,
        "max_position_embeddings": origin.max_positions or longest,
    }
    head, tensors, generation = LANGUAGE_HEAD, None, None
    if format_ == "causal_lm":
        generation = {
            "bos_token_id": builder.bos_id,
            "eos_token_id": stops,
            "pad_token_id": builder.pad_id,
            "max_new_tokens": _room(spec),
        }
    else:
        labels = CLASSES[str(spec.head)]
        fields["id2label"] = dict(enumerate(labels))
        fields["label2id"] = {label: i for i, label in enumerate(labels)}
        head = _HEADS.get(format_, "ForTokenClassification")
        tensors = _head_tensors(format_, jax.device_get(params["head"]))
    save.write_folder(
        scratch,
        spec.decoder,
        spec.family,
        params["backbone"],
        tokenizer,
        vocab_rows=rows,
        max_shard_bytes=max_shard_bytes,
        head=head,
        head_tensors=tensors,
        fields=fields,
        generation=generation,
    )


def _room(spec: ModelSpec) -> int:
    return spec.max_new_tokens or spec.buckets[0]


def _head_tensors(format_: str, head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if format_ == "token_classification":
        return save.class_head(head)
    if format_ == "qwen2_prm" and "hidden" not in head:
        return save.two_layer_head(head)
    return prm_layouts.head_tensors(format_, head)


def _write_peft(
    scratch: Path,
    params: Mapping[str, Any],
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    origin = Origin.of(spec)
    task = "TOKEN_CLS" if spec.kind == "prm" else "CAUSAL_LM"
    tensors, fields = to_peft(
        jax.device_get(params["lora"]),
        lora.LoraConfig(**origin.lora or {}),
        family=spec.family,
        base=origin.base_model,
        task=task,
    )
    if spec.kind == "prm":
        heads = save.class_head(params["head"])
        tensors |= {f"base_model.model.{key}": value for key, value in heads.items()}
        fields["modules_to_save"] = ["score"]
    save.write_adapter(scratch, tensors, fields, tokenizer)


def _merged(params: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """Plain kernels in place of base and adapter."""
    if "backbone" not in params:
        raise ExportError("an adapter without its base: load the base's backbone first")
    config = lora.LoraConfig(**Origin.of(spec).lora or {})
    trained = {name: tree for name, tree in params.items() if name != "backbone"}
    return lora.merged(params, trained, config)


def describe(
    spec: ModelSpec, builder: RowFormat, params: Mapping[str, Any], format_: str
) -> Record:
    """What is remembered of an export, and how `score.py` makes its rows.

    Of the rows: ids that open one, that end a line (or where a published PRM is read),
    before a Generator's context and that end what is written; a text that ends it too;
    the most tokens that are written, the end included; classes of a head, 0 for none;
    of prompts in words what opens the reply, what no text in them may spell, the day on
    which they are asked, and the system's message.
    """
    head = params.get("head", {}) if spec.head == "token" else {}
    prompted = spec.prompt is not None
    prompt, cue = TOLD[spec.kind == "solver"]
    if prompted:
        spec = dataclasses.replace(spec, prompt=spec.prompt or prompt)
    writer = builder if isinstance(builder, StepBuilder) else None
    own, replies = None if prompted else writer, writer and writer.replies
    opens = [builder.bos_id]
    if spec.layout is not None:
        opens = prm_layouts.opening(builder.tokenizer)
    rows = {
        "opening": opens,
        "step": builder.step_id,
        "perturb": own.perturb_id if own else None,
        "stops": _stops(builder),
        "line_end": replies.line_end if replies else "",
        "room": _room(spec),
        "classes": len(CLASSES.get(str(spec.head), ())),
        "cue": cue.rstrip(),
        "marks": marks(builder.tokenizer),
        "today": [TODAY.year, TODAY.month, TODAY.day],
        "system": prm_layouts.QWEN_SYSTEM,
    }
    numbers = {name: float(value) for name, value in head.items()}
    return Record(format_, spec, numbers, rows)


def _stops(builder: RowFormat) -> list[int]:
    """What ends a reply; of a PRM's layout nothing, for it writes none."""
    return list(builder.replies.stop_ids) if isinstance(builder, StepBuilder) else []
