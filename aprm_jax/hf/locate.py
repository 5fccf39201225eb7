"""Loads what a name means: a run, a stage, a model, an export, a model of the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
from transformers import PreTrainedTokenizerFast

from aprm_jax.config.groups import MeshConfig
from aprm_jax.hf import hub
from aprm_jax.hf.pretrained import load_export
from aprm_jax.hf.record import RECORD_FILE
from aprm_jax.models.io import (
    SPEC_FILE,
    Kind,
    ModelFileError,
    ModelSpec,
    load_model,
    read_object,
)
from aprm_jax.training.mesh import make_mesh

_RUN_FILE = "fingerprint.json"  # of every run's folder, from its start
_DEPTH = 4  # folders from a run to a model: arm, stage, role, "model"
_WANTED = {
    "prm": "a run or stage of job=prm, pav or aprm, an export of one, a published PRM",
    "generator": "a run or stage that has a generator: job=aprm, or job=sft's perturb",
    "solver": "a run or stage of job=sft, an export of one, a language model",
}
_HUGGING_FACE = ("config.json", "adapter_config.json", RECORD_FILE)


def load_any(
    name: str | os.PathLike[str], kind: Kind, **computed: str
) -> tuple[dict[str, Any], ModelSpec, PreTrainedTokenizerFast]:
    """Parameters, spec and tokenizer of a model of one kind.

    Args:
      name: a model's folder, that of a stage or run which holds one model of the kind
        (or among several that of the stage `aprm`), an export, a PRM of Hugging Face,
        or OWNER/NAME on the hub.
      kind: what it must be; a language model of Hugging Face is a solver.
      **computed: `dtype` and `param_dtype` of what says nothing of them itself: a
        model of Hugging Face. Without: float32.

    Raises:
      ModelFileError: says what was found there and what would be right.
    """
    name = os.fspath(name)
    folder = hub.find(name)
    if (folder / SPEC_FILE).is_file():
        found = load_model(folder)
    elif _is_hugging_face(folder):
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        found = load_export(name, mesh, kind, **computed)
    elif models := _models(folder):
        found = load_model(_choose(folder, models, kind))
    else:
        raise ModelFileError(f"{name}: {_missing(folder)}")
    if found[1].kind != kind:
        raise ModelFileError(
            f"{name}: holds a {found[1].kind}, and a {kind} is wanted: {_WANTED[kind]}"
        )
    return found


def _missing(folder: Path) -> str:
    """What is in a folder without a model, and what would be right."""
    listed = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    found = f"no model, only {', '.join(listed[:8]) or 'nothing'}. "
    if (folder / _RUN_FILE).is_file() or (folder / "checkpoints").is_dir():
        return (
            f"{found}A stage writes its model when it ends: the command that was "
            "stopped, given again, goes on to there"
        )
    return (
        f"{found}Name a finished run or stage, a folder with {SPEC_FILE}, an export, "
        "or a PRM of Hugging Face (config.json, *.safetensors, tokenizer.json)"
    )


def _is_hugging_face(folder: Path) -> bool:
    if folder.is_file():  # a GGUF file
        return True
    run = (folder / _RUN_FILE).is_file()  # its config.json is the run's
    return not run and any((folder / file).is_file() for file in _HUGGING_FACE)


def _models(folder: Path) -> dict[Path, str]:
    """Folders of finished models below one, and what kind each is."""
    found: dict[Path, str] = {}
    for depth in range(1, _DEPTH + 1):
        for path in sorted(folder.glob("/".join(["*"] * depth + [SPEC_FILE]))):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                found[path.parent] = str(read_object(path).get("kind"))
    return found


def _choose(folder: Path, models: dict[Path, str], kind: Kind) -> Path:
    """The one model of a kind; the adapter of a stage is not one of its own."""
    right = [p for p, k in models.items() if k == kind and p.name != "adapter"]
    if len(right) > 1:
        own = [p for p in right if "aprm" in p.relative_to(folder).parts]
        right = own if len(own) == 1 else right
    if len(right) == 1:
        return right[0]
    listed = ", ".join(f"{p.relative_to(folder)} ({k})" for p, k in models.items())
    problem = f"{len(right)} models of the kind" if right else "no model of the kind"
    way_on = "name the folder of one" if right else _WANTED[kind]
    raise ModelFileError(f"{folder}: {problem} {kind!r}; there are {listed}: {way_on}")
