"""What fooled R is kept by kind, and imitated where its kind still fools R."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny_game
from tiny_game import EASY

from aprm_jax.game import batches
from aprm_jax.game.archive import DECAY, Archive

BUILDER = tiny_game.builder(line_stride=16)
KINDS = ("wrong_result", "wrong_operation", "unchanged")
LENGTH = BUILDER.buckets[-1]


def _found(*texts: str):
    """Replies to `2 + 3 * 3`, whose right step is `2 + 9`."""
    draws = [(0, tiny_game.reply(BUILDER, text)) for text in texts]
    return tiny_game.verified(draws, [EASY], BUILDER)


def _replies(rows) -> set[str]:
    return {
        str(BUILDER.tokenizer.decode(row.tokens[row.step_ids >= 0], True))
        for row in rows
    }


FOUND = _found("2 + 8", "2 + 7", "2 + 6", EASY.step)
BELIEVED = np.array([0.9, 0.5, 0.4, 0.9], np.float32)


def _archive(capacity: int = 8) -> Archive:
    return Archive.empty(len(KINDS), capacity, LENGTH)


def test_wrong_replies_that_fooled_r_are_kept_under_their_kind():
    assert {p.verdict.kind for p in FOUND[:3]} <= {"wrong_result", "wrong_operation"}
    archive = _archive().add(FOUND, BELIEVED, KINDS, BUILDER)
    kept = [row for buffer in archive.buffers for row in buffer.sample(_rng(), 9)]
    assert _replies(kept) == {"2 + 8", "2 + 7"}  # neither the caught nor the right one
    row = kept[0]
    prompt = list(FOUND[0].prompt.ids)
    assert row.tokens[: len(prompt)].tolist() == prompt
    assert row.step_ids.tolist() == [-1] * len(prompt) + [0] * (len(row) - len(prompt))


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_kinds_fool_rate_is_a_running_mean_of_the_rounds_that_wrote_it():
    found = _found("2 + 8", "2 + 7")
    kind = [found[i].verdict.kind for i in range(2)]
    assert kind == ["wrong_result"] * 2
    archive = _archive().add(found, np.array([0.9, 0.1], np.float32), KINDS, BUILDER)
    assert archive.fool_rates == pytest.approx([DECAY + (1 - DECAY) / 2, 1, 1])
    archive = archive.add(found, np.zeros(2, np.float32), KINDS, BUILDER)
    assert archive.fool_rates[0] == pytest.approx(DECAY * (DECAY + (1 - DECAY) / 2))
    assert archive.buffers[0].size == 1  # nobody believed the second round's


def test_kinds_are_drawn_in_proportion_to_how_often_they_fool_r():
    archive = _archive(64)
    row = BUILDER.continuation(FOUND[0].prompt.ids, FOUND[0].reply.ids)
    full = archive.buffers[0].add([row] * 64)
    rates = np.array([0.6, 0.2, 1.0], np.float32)
    archive = Archive((full, full, archive.buffers[2]), rates)  # the third has none
    counts = np.zeros(2)
    for seed in range(200):
        expected = np.random.default_rng(seed).multinomial(20, [0.75, 0.25, 0])
        assert len(archive.sample(np.random.default_rng(seed), 20)) == 20
        counts += expected[:2]
    assert counts[0] / counts.sum() == pytest.approx(0.75, abs=0.02)
    assert _archive().sample(_rng(), 20) == []  # nothing has fooled R yet


def _batch(imitated):
    p = np.linspace(0.1, 0.9, len(FOUND), dtype=np.float32)
    return batches.generator_batch(
        FOUND, p, tiny_game.TABLE, BUILDER, _rng(), 99, width=10, imitated=imitated
    )


def test_what_is_imitated_stands_beside_what_was_drawn():
    example = BUILDER.continuation(FOUND[1].prompt.ids, FOUND[1].reply.ids)
    without, batch = _batch(None), _batch([example, example])
    assert without.imitation is None and batch.imitation is not None
    assert batch.imitation.sum() == 2 and batch.weight.sum() == without.weight.sum()
    assert not (np.asarray(batch.imitation) * batch.weight).any()
    for b, s in np.argwhere(np.asarray(batch.imitation) > 0):
        columns = batch.columns[b, s][batch.columns[b, s] >= 0]
        assert tuple(batch.rows.tokens[b, columns]) == FOUND[1].reply.ids


def test_imitation_is_one_more_draw_with_an_advantage_of_one():
    from aprm_jax.game.update import generator_loss
    from aprm_jax.policy.logprobs import read_replies

    config = tiny_game.update_config()
    params, ref = tiny_game.generator(), tiny_game.generator(2)
    example = BUILDER.continuation(FOUND[1].prompt.ids, FOUND[1].reply.ids)
    without, batch = _batch(None), _batch([example])

    def loss(batch):
        at = read_replies(tiny_game.DECODER, ref, batch.rows, batch.columns).logprobs

        def total(params):
            mean, metrics = generator_loss(params, at, batch, tiny_game.DECODER, config)
            return mean.total, (mean.weight, metrics)

        return jax.jit(jax.value_and_grad(total, has_aux=True))(params)

    def nll(params):
        found = read_replies(tiny_game.DECODER, params, batch.rows, batch.columns)
        mask = (batch.columns >= 0) * np.asarray(batch.imitation)[..., None]
        return -(found.logprobs * mask).sum()

    (before, (tokens, metrics)), gradient = loss(without)
    (after, (more, changed)), imitated = loss(batch)
    value, of_example = jax.jit(jax.value_and_grad(nll))(params)
    assert after == pytest.approx(float(before + value), rel=1e-5)
    assert more == tokens + len(FOUND[1].reply.ids)
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=2e-4, atol=1e-5),
        imitated,
        gradient,
        of_example,
    )
    assert changed["reward"].compute() == pytest.approx(metrics["reward"].compute())


def test_a_game_without_imitation_keeps_no_archive():
    place = tiny_game.arena(BUILDER)
    assert tiny_game.rounds(place, tiny_game.game_config()).state.archive is None
    config = tiny_game.game_config(generator_replay=4)
    frozen = tiny_game.rounds(place, config, train_generator=False)
    assert frozen.state.archive is None
