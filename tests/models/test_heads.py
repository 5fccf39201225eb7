"""Heads against NumPy, and properties that a reader of steps must have."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from aprm_jax.data.rows import StepBatch
from aprm_jax.data.steps import StepBuilder
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder

# Below 1,024 entries all logits are computed, above only the chosen ones.
VOCABULARIES = (len(tiny.WORDS), 1100)

step_logits = jax.jit(heads.step_logits, static_argnums=(0, 3))


def _batch(window: int | None, **shape) -> StepBatch:
    builder = StepBuilder(tiny.tokenizer(), window, (64,))
    rows = [builder.solution(q, steps, labels) for q, steps, labels in tiny.solutions()]
    return builder.collate(rows, **shape)


def _hidden_logits(config, params, batch) -> tuple[np.ndarray, np.ndarray]:
    inputs = batch.tokens, batch.positions, batch.segment_ids
    hidden = jax.jit(Decoder(config).apply)({"params": params}, *inputs)
    hidden = np.asarray(hidden, np.float64)
    table = (
        np.asarray(params["embed"]["embedding"], np.float64).T
        if config.tie_embeddings
        else np.asarray(params["head"]["kernel"], np.float64)
    )
    return hidden, hidden @ table


def _tokens_of(batch, row: int, step: int) -> list[int]:
    return [t for t, s in enumerate(batch.step_ids[row]) if s == step]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("window", [None, 1])
def test_token_head_is_the_least_logit_of_the_steps_tokens(vocab, tied, window):
    config = tiny.decoder(vocab, tie_embeddings=tied)
    prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, "token")
    prm["head"] = {"scale": jnp.float32(0.5), "bias": jnp.float32(0.25)}
    batch = _batch(window, batch_size=4, max_steps=5)
    _, logits = _hidden_logits(config, prm["backbone"], batch)
    expected = np.zeros(batch.step_mask.shape)
    for b, s in np.argwhere(batch.step_mask):
        expected[b, s] = min(
            0.5 * logits[b, t - 1, batch.tokens[b, t]] + 0.25
            for t in _tokens_of(batch, b, s)
        )
    got = step_logits(Decoder(config), prm, batch, "token")
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [None, 1])
def test_two_class_head_is_the_difference_at_the_steps_end(window):
    config = tiny.decoder()
    prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, "two_class")
    prm["head"]["bias"] = jnp.array([0.5, -0.25])
    batch = _batch(window, batch_size=4, max_steps=5)
    hidden, _ = _hidden_logits(config, prm["backbone"], batch)
    kernel = np.asarray(prm["head"]["kernel"], np.float64)
    expected = np.zeros(batch.step_mask.shape)
    for b, s in np.argwhere(batch.step_mask):
        last = _tokens_of(batch, b, s)[-1]
        assert tiny.WORDS[batch.tokens[b, last]] == "<step>"
        wrong, right = hidden[b, last] @ kernel + (0.5, -0.25)
        expected[b, s] = right - wrong
    got = step_logits(Decoder(config), prm, batch, "two_class")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", heads.HEADS)
def test_a_packed_solution_scores_like_its_steps_one_by_one(head):
    config = tiny.decoder()
    prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, head)
    builder = StepBuilder(tiny.tokenizer(), 1, (64,))
    question, steps, _ = tiny.solutions()[1]
    whole = builder.collate([builder.solution(question, steps)])
    alone = builder.collate(
        [builder.step(question, steps[:k], step) for k, step in enumerate(steps)]
    )
    decoder = Decoder(config)
    np.testing.assert_allclose(
        step_logits(decoder, prm, whole, head)[0],
        step_logits(decoder, prm, alone, head)[:, 0],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("head", heads.HEADS)
def test_context_and_padding_cannot_be_mistaken_for_a_step(head):
    """Scores depend on the row alone, not on how far it is padded."""
    config = tiny.decoder()
    prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, head)
    decoder = Decoder(config)
    small = step_logits(decoder, prm, _batch(None, length=40), head)
    large = step_logits(
        decoder, prm, _batch(None, length=64, batch_size=5, max_steps=9), head
    )
    np.testing.assert_allclose(large[:3, :3], small, rtol=1e-4, atol=1e-4)
    assert not np.any(large[3:]) and not np.any(large[:, 3:])


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("tied", [True, False])
def test_gradient_reaches_the_output_row_of_the_worst_token_alone(vocab, tied):
    config = tiny.decoder(vocab, tie_embeddings=False)
    if tied:
        config = tiny.decoder(vocab)
    prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, "token")
    batch = _batch(None)
    _, logits = _hidden_logits(config, prm["backbone"], batch)
    worst = min(
        _tokens_of(batch, 0, 0), key=lambda t: logits[0, t - 1, batch.tokens[0, t]]
    )

    def score(prm):
        return step_logits(Decoder(config), prm, batch, "token")[0, 0]

    grad = jax.grad(score)(prm)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grad))
    chosen = batch.tokens[0, worst]
    if not tied:  # a tied embedding also has the gradient of the input side
        columns = np.abs(np.asarray(grad["backbone"]["head"]["kernel"])).sum(0)
        assert set(np.flatnonzero(columns)) == {chosen}
    unread = set(range(vocab)) - set(batch.tokens[0, : worst + 1].tolist())
    rows = np.abs(np.asarray(grad["backbone"]["embed"]["embedding"])).sum(1)
    assert not np.any(rows[sorted(unread)])


def test_masked_steps_give_no_gradient_and_no_nan():
    config = tiny.decoder()
    prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, "token")
    batch = _batch(None, batch_size=4, max_steps=6)
    masked = dataclasses.replace(batch, step_mask=np.zeros_like(batch.step_mask))

    def total(prm):
        return step_logits(Decoder(config), prm, masked, "token").sum()

    for leaf in jax.tree.leaves(jax.grad(total)(prm)):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("tied", [True, False])
def test_token_logprobs_are_log_softmax_at_the_steps_tokens(tied):
    config = tiny.decoder(tie_embeddings=tied)
    params = tiny.backbone(config)
    batch = _batch(1, batch_size=4)
    _, logits = _hidden_logits(config, params, batch)
    log_z = np.log(np.exp(logits).sum(-1))
    expected = np.zeros(batch.tokens.shape)
    for b, t in np.argwhere(batch.step_ids >= 0):
        expected[b, t] = logits[b, t - 1, batch.tokens[b, t]] - log_z[b, t - 1]
    got = jax.jit(heads.token_logprobs, static_argnums=0)(
        Decoder(config), params, batch
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert np.all(np.asarray(got)[batch.step_ids >= 0] < 0)


def test_values_are_linear_in_hidden_and_float32():
    head = heads.init_value_head(jax.random.key(0), 8)
    head["bias"] = jnp.array([0.5])
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 8), jnp.bfloat16)
    got = heads.values(head, hidden)
    assert got.dtype == jnp.float32 and got.shape == (2, 3)
    expected = np.asarray(hidden, np.float64) @ np.asarray(head["kernel"])[:, 0] + 0.5
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_heads_run_in_bfloat16_and_return_float32():
    config = tiny.decoder(dtype="bfloat16")
    for head in heads.HEADS:
        prm = heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, head)
        got = step_logits(Decoder(config), prm, _batch(1), head)
        assert got.dtype == jnp.float32


def test_unknown_head_names_the_known_ones():
    config = tiny.decoder()
    with pytest.raises(ValueError, match="two_class"):
        heads.init_prm(jax.random.key(1), tiny.backbone(config), 16, "last")
