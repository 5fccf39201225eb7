"""A local solver of random weights that writes many short steps, most of them whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tiny
from tiny_game import CONFIG

from aprm_jax.data.steps import StepBuilder
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.solvers.local import LocalSolver


class Endless:
    """A grader to whom no step concludes, so that searches stay wide."""

    def is_final(self, step: str) -> bool:
        del step
        return False


class Digits(Endless):
    """To whom a step that ends in a digit concludes, and is the answer."""

    def is_final(self, step: str) -> bool:
        return step[-1:].isdigit()

    def answer(self, steps: Sequence[str]) -> str | None:
        return steps[-1][-1:] or None

    def same_answer(self, given: str | None, expected: str) -> bool:
        return given == expected


def _backbone(config, builder, hostile) -> Any:
    """Random, but that about every second token is one that closes a step.

    One that is hostile writes special tokens, which are other tokens as text. All
    embeddings share their first number, which the head reads for some tokens.
    """
    params = tiny.backbone(config)
    embedding = params["embed"]["embedding"].at[:, 0].set(3.0)
    head = jax.random.normal(jax.random.key(5), (config.d_model, config.vocab_size))
    head = head.at[0].set(0.0)
    if not hostile:
        rare = np.array(builder.tokenizer.all_special_ids)
        head = head.at[0, rare].set(-2.0)
    closing = builder.replies.end_id
    head = head.at[:, closing].set(0.0).at[0, closing].set(1.4)
    return {**params, "embed": {"embedding": embedding}, "head": {"kernel": head}}


def solver(
    builder: StepBuilder, new: int = 6, grader: Any = None, hostile: bool = False
) -> LocalSolver:
    """With an LM head of its own; see `_backbone`."""
    config = dataclasses.replace(CONFIG, tie_embeddings=False)
    sampler = Sampler(
        config,
        stop_ids=builder.replies.stop_ids,
        pad_id=builder.pad_id,
        prompt_buckets=builder.buckets,
        max_new_tokens=new,
        batch_buckets=(4, 16),
        positions=builder.positions,
    )
    params = _backbone(config, builder, hostile)
    return LocalSolver(sampler, params, grader or Endless(), builder)
