"""The step builder that a model was trained with, or that its publishers prescribe."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from aprm_jax.data.prompted import PromptedGenerator, PromptedSolver
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.hf.prm_layouts import LayoutBuilder
from aprm_jax.models.io import ModelSpec


def open_builder(spec: ModelSpec, tokenizer: PreTrainedTokenizerFast) -> RowFormat:
    """How a model reads questions and steps."""
    if spec.layout is not None:
        return LayoutBuilder(spec.layout, tokenizer, spec.buckets)
    return open_writer(spec, tokenizer)


def open_writer(spec: ModelSpec, tokenizer: PreTrainedTokenizerFast) -> StepBuilder:
    """How a model is prompted besides, and how its replies are read."""
    if spec.prompt is not None and spec.kind == "solver":
        return PromptedSolver(tokenizer, spec.buckets, spec.prompt)
    if spec.prompt is not None:
        return PromptedGenerator(tokenizer, spec.window, spec.buckets, spec.prompt)
    return StepBuilder(tokenizer, spec.window, spec.buckets, spec.line_stride)
