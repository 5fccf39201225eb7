"""What a solver does for G: it begins replies, and says how plausible steps are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny
import tiny_game
from tiny_game import CONFIG, DECODER, EASY

from aprm_jax.config.game import ExploreConfig
from aprm_jax.data.replies import Reply
from aprm_jax.game import batches
from aprm_jax.game.explore import NATS, Explorer
from aprm_jax.game.rollouts import Opening, Prompt
from aprm_jax.models.decoder import Decoder
from aprm_jax.oracle.verdict import Label
from aprm_jax.training.timing import PhaseTimer

BUILDER = tiny_game.builder(line_stride=16)
SAMPLER = tiny_game.sampler(BUILDER)
# One that expects each token somewhat, so that steps are somewhat plausible.
SOLVER = {"backbone": jax.tree.map(lambda x: 0.5 * x, tiny.backbone(CONFIG, 7))}
PROMPTS = [Prompt.of(BUILDER, point) for point in tiny_game.POINTS[:4]]
KEY = jax.random.key_data(jax.random.key(3))
ROOM = SAMPLER.max_new_tokens


def _explorer(**fields) -> Explorer:
    config = ExploreConfig(solver="solver", **fields)
    return Explorer(config, SOLVER, BUILDER, DECODER, SAMPLER)


def _logprobs(context, ids) -> np.ndarray:
    """The solver's, of `ids` after `context`, in NumPy from its logits."""
    tokens = jnp.array([[*context, *ids]], jnp.int32)
    positions = jnp.asarray(BUILDER.positions(tokens[0].tolist()))[None]
    variables = {"params": SOLVER["backbone"]}
    hidden = DECODER.apply(variables, tokens, positions, jnp.ones_like(tokens))
    logits = DECODER.apply(variables, hidden, method=Decoder.logits)
    logp = scipy.special.log_softmax(np.asarray(logits, np.float64)[0], axis=-1)
    start = len(context)
    return np.array([logp[start + k - 1, i] for k, i in enumerate(ids)])


def test_half_of_the_situations_begin_with_what_the_solver_writes_there():
    explorer = _explorer(forced=0.5, forced_tokens=4)
    openings = explorer.openings(PROMPTS, 6, KEY, np.random.default_rng(0))
    assert len(openings) == 24
    assert {len(o.ids) for o in openings[12:]} == {0}
    sizes = {len(o.ids) for o in openings[:12]}
    assert max(sizes) == 4 and len(sizes) > 2
    for i, opening in enumerate(openings[:12]):
        assert not set(opening.ids) & set(BUILDER.replies.stop_ids)
        point = PROMPTS[i // 6].situation
        expected = _logprobs(BUILDER.context(point.question, point.prefix), opening.ids)
        np.testing.assert_allclose(opening.logprobs, expected, atol=1e-4)
    # Each reply has an opening of its own, and the same draw gives it again.
    assert len({o.ids for o in openings[:6]}) > 1
    assert explorer.openings(PROMPTS, 6, KEY, np.random.default_rng(0)) == openings


def test_what_the_solver_has_no_room_for_is_left_to_g():
    explorer = _explorer(forced=1.0)
    short = tiny_game.sampler(BUILDER, prompt_buckets=(16,))
    explorer = Explorer(explorer.config, SOLVER, BUILDER, DECODER, short)
    long = dataclasses.replace(EASY, question="2 + 3 * 3 + " * 4 + "1")
    prompts = [PROMPTS[0], Prompt.of(BUILDER, long)]
    openings = explorer.openings(prompts, 3, KEY, np.random.default_rng(0))
    assert [bool(o.ids) for o in openings] == [True] * 3 + [False] * 3


def test_a_reply_goes_on_from_its_opening_and_knows_what_g_did_not_draw():
    def logprobs(*values):
        return np.array(values, np.float32)

    opening = Opening((5, 6), logprobs(-1, -2))
    rest = Reply((7, 8, 9), logprobs(-3, -4, -5), stopped=True)
    whole = opening.reply(rest, room=5)
    assert (whole.ids, whole.stopped, whole.forced) == ((5, 6, 7, 8, 9), True, 2)
    assert whole.logprobs.tolist() == [-1, -2, -3, -4, -5]
    cut = opening.reply(rest, room=4)  # its stop has no room
    assert (cut.ids, cut.stopped, cut.forced) == ((5, 6, 7, 8), False, 2)
    assert cut.logprobs.tolist() == [-1, -2, -3, -4]
    assert Opening().reply(rest, room=5) == rest


def test_a_wrong_step_is_paid_by_the_least_likely_of_its_tokens():
    texts = ("2 + 8", "5 * 3", EASY.step, "2 +")
    draws = [(0, tiny_game.reply(BUILDER, text)) for text in texts]
    found = tiny_game.verified(draws, [EASY], BUILDER)
    assert [p.verdict.label for p in found[:3]] == [
        Label.INCORRECT,
        Label.INCORRECT,
        Label.CORRECT,
    ]
    bonus = _explorer(plausible=0.5).bonus(found)
    assert bonus is not None
    context = BUILDER.context(EASY.question, EASY.prefix)
    for p, got in zip(found, bonus, strict=True):
        ids = (*BUILDER.encode(p.reply.text), BUILDER.step_id)
        least = _logprobs(context, ids).min()
        wrong = p.verdict.label == Label.INCORRECT
        expected = 0.5 * max(0.0, 1 + least / NATS) if wrong else 0.0
        assert got == pytest.approx(expected, abs=1e-5)
    assert (bonus[:2] > 0.01).all()
    assert _explorer(forced=0.5).bonus(found) is None


def test_the_bonus_is_added_to_what_the_verdicts_pay():
    draws = [(0, tiny_game.reply(BUILDER, text)) for text in ("2 + 8", "2 + 7")]
    found = tiny_game.verified(draws, [EASY], BUILDER)
    table, p = tiny_game.TABLE, np.array([0.25, 0.75], np.float32)
    rng, bonus = np.random.default_rng(0), np.array([0.5, 0.0], np.float32)
    batch = batches.generator_batch(
        found, p, table, BUILDER, rng, 9, width=ROOM, bonus=bonus
    )
    paid = np.sort(batch.rewards.sum(-1)[batch.weight > 0])
    assert paid.tolist() == [0.75, 0.75]  # 0.25 + 0.5, and 0.75


def _rounds(place, explorer=None, **changes):
    config = tiny_game.game_config(**changes)
    return tiny_game.rounds(place, config, explorer=explorer)


def test_in_a_round_the_solver_begins_what_it_should_and_the_batch_says_so():
    place = tiny_game.arena(BUILDER, sampler=SAMPLER)
    explorer = _explorer(forced=0.67, forced_tokens=2, plausible=1.0)
    rounds = _rounds(place, explorer, generator_rows=99)
    played = rounds.play(rounds.state, 0, PhaseTimer())
    assert played.bonus is not None
    groups = {p.group for p in played.perturbations if p.reply.forced}
    assert groups == {0, 1}  # of three
    assert played.metrics["game/bonus"] == pytest.approx(played.bonus.mean())
    batch, _ = rounds._batches(played, rounds.state)
    assert isinstance(batch.forced, np.ndarray)
    learned = [
        p
        for p in played.perturbations
        if p.verdict.label != Label.UNDECIDABLE or p.reply.reason
    ]
    assert batch.forced.sum() == sum(p.reply.forced for p in learned)
    tokens, starts = batch.columns >= 0, batch.forced[..., 0] == 1
    assert not (batch.forced * ~tokens).any() and starts.any()
    # The forced tokens stand at the beginning of their reply.
    assert (np.diff(batch.forced, axis=-1)[starts] <= 0).all()


def test_without_help_a_game_is_the_same_bit_for_bit():
    place = tiny_game.arena(BUILDER, sampler=SAMPLER)
    states = []
    for explorer in (None, _explorer()):
        rounds = _rounds(place, explorer)
        output = rounds.step_fn(rounds.state, 0, PhaseTimer())
        states.append(jax.tree.map(np.array, output.state))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_prompts_leave_room_for_the_longest_opening():
    place = tiny_game.arena(BUILDER, sampler=SAMPLER)
    longest = max(len(p.ids) for p in _rounds(place)._prompts(0))
    room = BUILDER.buckets[-1] - ROOM - longest
    explorer = _explorer(forced=0.5, forced_tokens=room + 1)
    assert explorer.longest == room + 1
    kept = _rounds(place, explorer)._prompts(0)
    assert max(len(p.ids) for p in kept) < longest
