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


# Of a decode loop of its own, before sessions were.
EARLIER = [
    "45 11 11 11 11 22 55 55",
    "0 0 0 0 0 0 0 14",
    "54",
    "12 45 54",
    "4 36 6 18 2 2 40 50",
    "54",
    "45 11 32 42 42 42 42 37",
    "37 12 12 37 43 42 4 4",
    "17 10 19 0 0 0 44 25",
    "25 25 16 2 51 51 51 51",
    "32 31 48 8 13 53 17 17",
    "43 33 33 39 40 50 40 2",
]
EARLIER_LOGPROBS = (
    "-14.424902 -13.442883 -1.247606 -9.570802 -19.587791 -1.247606 "
    "-18.040855 -30.577831 -21.205753 -12.58357 -30.072374 -25.625546"
)


def test_a_key_draws_what_it_has_always_drawn():
    """If the random stream changes on purpose, published runs no longer repeat."""
    lines = [("1 + 2 * 3", ()), ("4 + 1 * 7 - 8", ("5 - 1",)), ("7 * 8", ("9",))]
    prompts = [BUILDER.context(*line) for line in lines] * 4
    samples = SAMPLER.sample(BACKBONE, prompts, jax.random.key(0))
    found = [
        " ".join(map(str, row[:n]))
        for row, n in zip(samples.tokens, samples.lengths, strict=True)
    ]
    assert found == EARLIER
    sums = samples.logprobs.sum(axis=1)
    expected = [float(x) for x in EARLIER_LOGPROBS.split()]
    np.testing.assert_allclose(sums, expected, atol=1e-4)


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
