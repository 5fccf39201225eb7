"""Replies drawn by the sampler and read by the trainer stand at the same positions."""

from __future__ import annotations

import jax
import numpy as np
import tiny_game
from tiny_game import DECODER

from aprm_jax.models import heads
from aprm_jax.sampling.sampler import Samples

BUILDER = tiny_game.builder(None, (12, 24), line_stride=9)
BACKBONE = tiny_game.generator()["backbone"]
LINES = [
    ("1 + 2 * 3", ()),
    ("4 + 1 * 7 - 8", ("5 - 1", "6 - 1")),
    ("7 * 8", ("9",)),
    ("2", ()),
]
PROMPTS = [BUILDER.context(question, prefix) for question, prefix in LINES] * 4
SAMPLER = tiny_game.sampler(BUILDER, 8)
READ = jax.jit(heads.token_logprobs, static_argnums=0)


def _teacher_forced(samples: Samples) -> np.ndarray:
    """The training graph's log-probabilities of what was drawn."""
    replies = [samples.tokens[i, :n].tolist() for i, n in enumerate(samples.lengths)]
    rows = [BUILDER.continuation(p, r) for p, r in zip(PROMPTS, replies, strict=True)]
    logprobs = np.asarray(READ(DECODER, BACKBONE, BUILDER.collate(rows, length=32)))
    out = np.zeros_like(samples.logprobs)
    for i, (prompt, reply) in enumerate(zip(PROMPTS, replies, strict=True)):
        out[i, : len(reply)] = logprobs[i, len(prompt) : len(prompt) + len(reply)]
    return out


def test_log_probabilities_of_strided_lines_are_the_training_graphs():
    """Replies with special tokens in the middle too: they open no line there."""
    assert {len(p) <= 12 for p in PROMPTS} == {True, False}
    assert any(np.any(np.diff(BUILDER.positions(p)) > 1) for p in PROMPTS)
    inside: set[int] = set()
    for seed in range(4):
        samples = SAMPLER.sample(BACKBONE, PROMPTS, jax.random.key(seed))
        np.testing.assert_allclose(
            samples.logprobs, _teacher_forced(samples), atol=1e-4
        )
        for tokens, n in zip(samples.tokens, samples.lengths, strict=True):
            inside.update(tokens[: n - 1].tolist())
    assert inside & {BUILDER.perturb_id, BUILDER.bos_id}


def test_the_trainer_reads_a_perturbation_as_the_generator_draws_it():
    """Supervised rows and sampled replies agree on every id before and in a reply."""
    for point in tiny_game.POINTS:
        prompt = BUILDER.perturb_context(point.question, point.prefix, point.step)
        reply = [*BUILDER.encode("2 + 3"), BUILDER.step_id]
        drawn = BUILDER.continuation(prompt, reply)
        taught = BUILDER.perturbation(point.question, point.prefix, point.step, "2 + 3")
        assert drawn.tokens.tolist() == taught.tokens.tolist()
        assert drawn.step_ids.tolist() == taught.step_ids.tolist()
        # All but the closing token, from which nothing is predicted.
        assert drawn.positions[:-1].tolist() == taught.positions[:-1].tolist()
