"""The joint update beside gradients and optimiser steps taken one by one."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_game
from tiny_game import DECODER, EASY

from aprm_jax.game import batches
from aprm_jax.game.batches import BatchSize
from aprm_jax.game.ogda import ogda
from aprm_jax.game.rollouts import Situation
from aprm_jax.game.update import (
    GameState,
    GeneratorBatch,
    References,
    UpdateConfig,
    game_optimiser,
    generator_loss,
    make_update,
)
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.policy.logprobs import read_policy, read_replies
from aprm_jax.training import learner
from aprm_jax.training.learner import LearnerState
from aprm_jax.verifiers.objective import PrmObjective, prm_loss
from aprm_jax.verifiers.step_loss import PrmBatch

BUILDER = tiny_game.builder()
POINTS = (EASY, Situation("( 1 + 2 ) * 3", (), "3 * 3"))
REPLIES = (
    (0, "2 + 3", 2),
    (0, "2 + 9", 1),
    (0, "5 * 4", 1),
    (1, "3 * 4", 3),
    (1, "8", 1),
    (1, "1 + 6", 1),
)
KEY = jax.random.key_data(jax.random.key(7))
SCHEDULE: dict[str, Any] = {
    "warmup": 2,
    "total": 10,
    "b1": 0.0,
    "b2": 0.99,
    "clip_norm": 1.0,
}
OPTIMISERS = game_optimiser(1e-2, **SCHEDULE), game_optimiser(2e-2, **SCHEDULE)


def _draws(number: int) -> list:
    """Replies that depend on the step's number, with arbitrary log-probabilities."""
    out = []
    for group, text, count in REPLIES:
        text = text.replace("2 + 3", f"2 + {3 + number}")
        size = len(BUILDER.encode(text)) + 1
        rng = np.random.default_rng([number, len(out)])
        logprobs = -rng.exponential(size=size).astype(np.float32)
        out += [(group, tiny_game.reply(BUILDER, text, logprobs=logprobs))] * count
    return out


def _generator_batch(number: int = 0, **changes: Any) -> GeneratorBatch:
    """Merged replies: their weights are their counts."""
    return _batch_of(tiny_game.verified(_draws(number), POINTS, BUILDER), **changes)


def _batch_of(found: list, **changes: Any) -> GeneratorBatch:
    p = np.array([0.1 + 0.07 * len(x.reply.ids) for x in found], np.float32)
    rng, width = np.random.default_rng(0), 10
    return batches.generator_batch(
        found, p, tiny_game.TABLE, BUILDER, rng, 99, width=width, **changes
    )


def _prm_batch(number: int = 0, size: BatchSize | None = None) -> PrmBatch:
    clean = [BUILDER.step(p.question, p.prefix, p.step, 1.0) for p in POINTS]
    wrong = [BUILDER.step(EASY.question, (), f"2 + {n}", 0.0) for n in (3, 4 + number)]
    return batches.prm_batch(clean, wrong, wrong[:1], BUILDER, size)


def _state(head: str = "token") -> GameState:
    generator, prm = tiny_game.generator(), tiny_game.prm(head=head)
    return GameState(*map(learner.start, (generator, prm), OPTIMISERS))


def _refs(head: str = "token") -> References:
    """Other parameters than the players', so that no KL is 0."""
    return References(tiny_game.generator(2), tiny_game.prm(3, head))


def _close(got, expected, atol=1e-6, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=rtol),
        got,
        expected,
    )


def _same(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@functools.cache
def _generator_loss(config: UpdateConfig):
    """Compiled: (params, reference, batch) to ((loss, metrics), gradient)."""

    def run(params, ref_params, batch):
        ref = read_replies(DECODER, ref_params, batch.rows, batch.columns).logprobs

        def loss(params, batch):
            return generator_loss(params, ref, batch, DECODER, config)

        value, metrics, gradient = learner.value_and_gradient(loss, params, batch)
        return (value, metrics), gradient

    return jax.jit(run)


def _prm_gradient(params, batch: PrmBatch, config: UpdateConfig, refs, key):
    rows = batch.rows

    def loss(params):
        logits = heads.step_logits(DECODER, params, rows, config.head)
        ref = heads.step_logits(DECODER, refs.prm, rows, config.head)
        labels, mask = jnp.asarray(rows.labels), jnp.asarray(rows.label_mask)
        draws = jax.random.uniform(key, labels.shape)
        return prm_loss(logits, ref, labels, mask, config.prm, draws)[0].mean()

    return jax.grad(loss)(params)


@functools.cache
def _update(config: UpdateConfig):
    """One compiled update for all tests of a config."""
    return make_update(DECODER, config, *OPTIMISERS)


_read_replies = jax.jit(read_replies, static_argnums=0)


def test_policy_gives_log_probability_entropy_and_value_at_the_replys_tokens():
    batch, params = _generator_batch(branch=False), tiny_game.generator()
    rows = batch.rows
    assert rows.ends is None

    @jax.jit
    def forward(params, rows):
        apply = functools.partial(DECODER.apply, {"params": params})
        hidden = apply(rows.tokens, rows.positions, rows.segment_ids)
        return hidden, apply(hidden, method=Decoder.logits)

    hidden, logits = forward(params["backbone"], rows)
    z = np.asarray(logits, np.float64)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    kernel, bias = (np.asarray(params["value_head"][n]) for n in ("kernel", "bias"))
    expected = np.zeros((3, *rows.tokens.shape))
    for b, t in np.argwhere(rows.step_ids >= 0):
        expected[0, b, t] = logp[b, t - 1, rows.tokens[b, t]]
        expected[1, b, t] = -(np.exp(logp[b, t - 1]) * logp[b, t - 1]).sum()
        expected[2, b, t] = (np.asarray(hidden)[b, t - 1] @ kernel + bias)[0]
    got = jax.jit(read_policy, static_argnums=0)(DECODER, params, rows)
    np.testing.assert_allclose(np.stack(got), expected, atol=1e-4)
    # The same by reply: its k-th token's place in the row, 0 past its end.
    of_replies = np.stack(_read_replies(DECODER, params, rows, batch.columns))
    for b, s, r in np.argwhere(batch.columns >= 0):
        column = batch.columns[b, s, r]
        assert rows.step_ids[b, column] == s
        np.testing.assert_allclose(
            of_replies[:, b, s, r], expected[:, b, column], atol=1e-4
        )
    assert not of_replies[:, batch.columns < 0].any()


@pytest.mark.parametrize(("advantage", "normalise"), [("group", False), ("gae", True)])
def test_a_prompt_that_replies_share_is_read_once_and_changes_nothing(
    advantage, normalise
):
    """Loss, metrics and gradient are those of a row a reply."""
    config = tiny_game.update_config(advantage=advantage, normalise_advantage=normalise)
    shared, apart = _generator_batch(), _generator_batch(branch=False)
    assert shared.rows.ends is not None and apart.rows.ends is None
    count = [(batch.rows.segment_ids > 0).sum() for batch in (shared, apart)]
    again = sum(
        (sum(g == group for g, *_ in REPLIES) - 1)
        * len(BUILDER.perturb_context(p.question, p.prefix, p.step))
        for group, p in enumerate(POINTS)
    )
    assert count[1] - count[0] == again
    run = _generator_loss(config)
    params, ref = tiny_game.generator(), _refs().generator
    (loss, metrics), gradient = run(params, ref, shared)
    (loss_2, metrics_2), gradient_2 = run(params, ref, apart)
    np.testing.assert_allclose(loss, loss_2, rtol=1e-5, atol=1e-6)
    _close(metrics, metrics_2, rtol=1e-4)
    _close(gradient, gradient_2, rtol=1e-4)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-2


@pytest.mark.parametrize(("advantage", "normalise"), [("group", False), ("gae", True)])
def test_merging_equal_replies_is_exact(advantage, normalise):
    """Counts as weights give the loss and the gradient of the replies one by one."""
    config = tiny_game.update_config(advantage=advantage, normalise_advantage=normalise)
    found = tiny_game.verified(_draws(0), POINTS, BUILDER)
    merged = _batch_of(found)
    assert sorted(w for w in merged.weight.ravel() if w) == [1, 1, 1, 1, 2, 3]
    apart = _batch_of(
        [dataclasses.replace(p, count=1) for p in found for _ in range(p.count)]
    )
    assert set(apart.weight.ravel()) == {0, 1} and apart.weight.sum() == 9
    run = _generator_loss(config)
    params, ref = tiny_game.generator(), _refs().generator
    (loss, metrics), gradient = run(params, ref, merged)
    (loss_2, metrics_2), gradient_2 = run(params, ref, apart)
    np.testing.assert_allclose(loss, loss_2, rtol=1e-5, atol=1e-6)
    _close(metrics, metrics_2)
    _close(gradient, gradient_2)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-2


@pytest.mark.parametrize(("advantage", "normalise"), [("group", False), ("gae", True)])
def test_replies_of_weight_zero_have_no_influence(advantage, normalise):
    config = tiny_game.update_config(advantage=advantage, normalise_advantage=normalise)
    batch = _generator_batch(size=BatchSize(multiple=3))
    off = batch.weight[..., None] == 0
    rng = np.random.default_rng(0)
    noise = rng.normal(size=batch.columns.shape).astype(np.float32)
    other = batch.replace(
        # Tokens of other replies, of prompts and of padding.
        columns=np.where(off, rng.integers(1, 40, batch.columns.shape), batch.columns),
        rewards=np.where(off, np.float32(77), batch.rewards),
        sampler_logprobs=np.where(off, noise, batch.sampler_logprobs),
    )
    run = _generator_loss(config)
    params, ref = tiny_game.generator(), _refs().generator
    (_, metrics), gradient = run(params, ref, batch)
    (_, metrics_2), gradient_2 = run(params, ref, other)
    _close(metrics, metrics_2)
    _close(gradient, gradient_2)


def test_tokens_that_a_solver_drew_count_by_their_truncated_importance():
    """G's gradient beside one of weighted log-probabilities, written down anew."""
    config = tiny_game.update_config()
    batch, params, ref = _generator_batch(), tiny_game.generator(), _refs().generator
    forced = np.zeros(batch.columns.shape, np.float32)
    forced[batch.columns >= 0] = np.tile([1, 0, 0], 99)[: (batch.columns >= 0).sum()]
    batch = batch.replace(forced=forced)

    def logprobs(params):
        return read_replies(DECODER, params, batch.rows, batch.columns).logprobs

    here, of_ref = (np.asarray(jax.jit(logprobs)(x), np.float64) for x in (params, ref))
    noise = np.random.default_rng(0).normal(size=here.shape)
    batch = batch.replace(sampler_logprobs=(here + noise).astype(np.float32))
    ratio = np.exp(here - batch.sampler_logprobs)
    weights = np.where(forced > 0, np.minimum(ratio, 2.0), 1.0)
    assert (ratio[forced > 0] > 2).any() and (ratio[forced > 0] < 1).any()
    mask = (batch.columns >= 0) * batch.weight[..., None]
    # Both regularisers of a forced token count by its importance too.
    paid = batch.rewards + weights * (0.1 * of_ref - (0.1 + 0.03) * here)
    totals = (paid * (batch.columns >= 0)).sum(-1)
    advantages = np.zeros_like(totals)
    for group in np.unique(batch.group):
        of_group = (batch.group == group) & (batch.weight > 0)
        mean = np.average(totals[of_group], weights=batch.weight[of_group])
        advantages[of_group] = totals[of_group] - mean
    by_token = mask * weights * advantages[..., None] / mask.sum()
    expected = jax.grad(lambda params: -jnp.sum(logprobs(params) * by_token))(params)
    (_, metrics), gradient = _generator_loss(config)(params, ref, batch)
    _close(gradient["backbone"], expected["backbone"], rtol=1e-3)
    # How far sampler and trainer are apart is said of tokens that G drew.
    gap = np.abs(here - batch.sampler_logprobs)
    own = np.average(gap, weights=mask * (1 - forced))
    np.testing.assert_allclose(metrics["sampler_gap_mean"], own, rtol=1e-4)


def test_generator_metrics_on_a_hand_checked_batch():
    batch, params, refs = _generator_batch(), tiny_game.generator(), _refs()
    config = tiny_game.update_config(advantage="gae")
    here, entropy, values = (
        np.asarray(x, np.float64)
        for x in _read_replies(DECODER, params, batch.rows, batch.columns)
    )
    of_ref = _read_replies(DECODER, refs.generator, batch.rows, batch.columns)
    ref = np.asarray(of_ref.logprobs, np.float64)
    weight = batch.weight[..., None] * (batch.columns >= 0)
    (_, metrics), _ = _generator_loss(config)(params, refs.generator, batch)
    gap = np.abs(here - batch.sampler_logprobs)
    expected = {
        "reward": np.average(batch.rewards.sum(-1), weights=batch.weight),
        "kl_sequence": np.average((here - ref).sum(-1), weights=batch.weight),
        "kl_token": np.average(here - ref, weights=weight),
        "entropy_token": np.average(entropy, weights=weight),
        "sampler_gap_mean": np.average(gap, weights=weight),
        "clipped": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    # The critic's loss: half the squared distance to lambda-returns, here by a loop.
    total = 0.0
    for b, s in np.argwhere(batch.weight):
        size = int((batch.columns[b, s] >= 0).sum())
        advantage = after = 0.0
        for t in reversed(range(size)):
            reward = 0.1 * ref[b, s, t] - (0.1 + 0.03) * here[b, s, t]
            reward += batch.rewards[b, s].sum() if t == size - 1 else 0.0
            residual = reward + 0.95 * after - values[b, s, t]
            advantage, after = residual + 0.95 * 0.9 * advantage, values[b, s, t]
            total += batch.weight[b, s] * 0.5 * advantage**2
    np.testing.assert_allclose(metrics["value_loss"], total / weight.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("advantage", "head", "objective"),
    [
        ("group", "token", PrmObjective("cross_entropy", beta=0.05, eta=0.07)),
        ("gae", "two_class", PrmObjective("ppo", eta=0.07)),
    ],
)
def test_three_steps_equal_both_players_steps_taken_apart(advantage, head, objective):
    """At each step both gradients are of the same iterate, then both players move."""
    config = tiny_game.update_config(advantage=advantage, head=head, prm=objective)
    update, refs = _update(config), _refs(head)
    start = _state(head)
    state, by_hand = _state(head), _state(head)

    @functools.partial(jax.jit, static_argnums=0)
    def step(player, gradient, opt, params):
        moves, opt = OPTIMISERS[player].update(gradient, opt, params)
        return optax.apply_updates(params, moves), opt, optax.tree.norm(gradient)

    prm_gradient = jax.jit(_prm_gradient, static_argnums=2)
    compiled = update._cache_size()
    for number in range(3):
        batches = _generator_batch(number), _prm_batch(number)
        key = jax.random.key_data(jax.random.key(number))
        _, g = _generator_loss(config)(
            by_hand.generator.params, refs.generator, batches[0]
        )
        r = prm_gradient(by_hand.prm.params, batches[1], config, refs, key)
        *generator, g_norm = step(0, g, by_hand.generator.opt, by_hand.generator.params)
        *prm, r_norm = step(1, r, by_hand.prm.opt, by_hand.prm.params)
        by_hand = GameState(LearnerState(*generator), LearnerState(*prm))
        state, metrics = update(state, refs, *batches, key)
        assert metrics["nonfinite"] == 0.0
        norms = metrics["generator/grad_norm"], metrics["prm/grad_norm"]
        _close(norms, (g_norm, r_norm), rtol=1e-4)
    assert update._cache_size() <= max(1, compiled)  # one program for all three steps
    # Adam's preconditioner turns rounding of a tiny gradient into a visible step.
    for player in ("generator", "prm"):
        got, want, first = (getattr(x, player).params for x in (state, by_hand, start))
        _close(got, want, atol=2e-4)
        assert _moved(got, first) > 1e-2


def _moved(after, before) -> float:
    """The largest change of any parameter."""
    change = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after, before)
    return max(jax.tree.leaves(change))


def test_gradient_change_is_measured_on_what_optimism_keeps():
    """R alone: both players share the code."""
    config = tiny_game.update_config(train_generator=False)
    tx = ogda(1e-2)
    update = make_update(DECODER, config, tx, tx)
    refs, batch = _refs(), _prm_batch()
    gradient = jax.jit(_prm_gradient, static_argnums=2)
    prm = jax.tree.map(lambda x: x + 0, tiny_game.prm())
    state = GameState(LearnerState(None), learner.start(prm, tx))
    gradients, change = [], np.nan
    for number in range(2):
        batch = _prm_batch(number)
        gradients.append(gradient(state.prm.params, batch, config, refs, KEY))
        state, metrics = update(state, refs, None, batch, KEY)
        change = metrics["prm/grad_change"]
    before, now = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(g)])
        for g in gradients
    )
    expected = np.linalg.norm(now - before) / np.linalg.norm(now)
    np.testing.assert_allclose(change, expected, rtol=1e-3)


@pytest.mark.parametrize("frozen", ["generator", "prm"])
def test_a_frozen_player_keeps_its_bits_and_the_other_moves_as_before(frozen):
    batches = _generator_batch(), _prm_batch()
    out = {}
    for freeze in (False, True):
        update = _update(tiny_game.update_config(**{f"train_{frozen}": not freeze}))
        state = _state()
        for _ in range(2):
            state, _ = update(state, _refs(), *batches, KEY)
        out[freeze] = state
    other = "prm" if frozen == "generator" else "generator"
    _same(getattr(out[True], frozen), getattr(_state(), frozen))
    _close(getattr(out[True], other), getattr(out[False], other), atol=1e-4)
    for freeze, player in ((True, other), (False, frozen)):
        now, first = (getattr(x, player).params for x in (out[freeze], _state()))
        assert _moved(now, first) > 1e-3


@pytest.mark.parametrize("broken", ["generator", "prm"])
def test_a_batch_that_is_not_finite_changes_nothing(broken):
    """Neither player moves where one of them cannot."""
    update = _update(tiny_game.update_config())
    state, _ = update(_state(), _refs(), _generator_batch(), _prm_batch(), KEY)
    before = jax.tree.map(np.array, state)  # copies: the state will be donated
    generator_batch, prm_batch = _generator_batch(1), _prm_batch(1)
    if broken == "generator":
        rewards = generator_batch.rewards.copy()
        rewards[0] = np.nan
        generator_batch = generator_batch.replace(rewards=rewards)
    else:
        labels = prm_batch.rows.labels.copy()
        labels[0, 1] = np.inf
        rows = dataclasses.replace(prm_batch.rows, labels=labels)
        prm_batch = prm_batch.replace(rows=rows)
    state, metrics = update(state, _refs(), generator_batch, prm_batch, KEY)
    assert metrics["nonfinite"] == 1.0
    _same(state, before)
    # The next good batch is applied.
    state, metrics = update(state, _refs(), _generator_batch(), _prm_batch(), KEY)
    assert metrics["nonfinite"] == 0.0
    assert _moved(state.generator.params, before.generator.params) > 0


def _nothing(batch: GeneratorBatch | PrmBatch) -> Any:
    """A batch of which nothing is to be learned."""
    if isinstance(batch, GeneratorBatch):
        return batch.replace(weight=np.zeros_like(batch.weight))
    mask = np.zeros_like(batch.rows.label_mask)
    return batch.replace(rows=dataclasses.replace(batch.rows, label_mask=mask))


@pytest.mark.parametrize("idle", ["generator", "prm"])
def test_a_player_with_nothing_to_learn_from_stays_while_the_other_steps(idle):
    update = _update(tiny_game.update_config())
    state, _ = update(_state(), _refs(), _generator_batch(), _prm_batch(), KEY)
    before = jax.tree.map(np.array, state)
    again = functools.partial(jax.tree.map, jnp.array, before)
    batches = {"generator": _generator_batch(1), "prm": _prm_batch(1)}
    # As it would be with both: neither gradient is of the other's step.
    both, _ = update(again(), _refs(), *batches.values(), KEY)
    batches[idle] = _nothing(batches[idle])
    after, metrics = update(
        jax.tree.map(jnp.array, before), _refs(), *batches.values(), KEY
    )
    assert metrics["nonfinite"] == 0.0 == metrics[f"{idle}/grad_norm"]
    for player in ("generator", "prm"):
        expected = before if player == idle else both
        _same(getattr(after, player), getattr(expected, player))
    assert _moved(getattr(both, idle).params, getattr(before, idle).params) > 1e-3


def test_several_epochs_clip_against_the_policy_that_drew():
    """With `old_logprobs` the ratio is not 1."""
    batch, params = _generator_batch(), tiny_game.generator()
    config = tiny_game.update_config()
    here = _read_replies(DECODER, params, batch.rows, batch.columns).logprobs
    run, ref = _generator_loss(config), _refs().generator
    (at_once, _), gradient = run(params, ref, batch)
    same = batch.replace(old_logprobs=here)
    (loss, metrics), gradient_2 = run(params, ref, same)
    np.testing.assert_allclose(loss, at_once, rtol=1e-5)
    _close(gradient, gradient_2)
    assert metrics["clipped"] == 0.0
    reply = batch.columns >= 0
    old = np.where(reply, np.asarray(here) + 0.5, 0).astype(np.float32)
    (_, metrics), _ = run(params, ref, batch.replace(old_logprobs=jnp.array(old)))
    assert metrics["clipped"] == 1.0  # exp(-0.5) < 1 - 0.2 at every token


def test_accuracy_by_source_and_nothing_for_an_empty_one():
    update = _update(tiny_game.update_config())
    batch, params = _prm_batch(), tiny_game.prm()
    logits = jax.jit(heads.step_logits, static_argnums=(0, 3))(
        DECODER, params, batch.rows, "token"
    )
    right = (np.asarray(logits) > 0) == (batch.rows.labels > 0.5)
    known = batch.rows.label_mask > 0
    _, metrics = update(_state(), _refs(), _generator_batch(), batch, KEY)
    for index, (name, count) in enumerate(
        (("clean", 2), ("fresh", 2), ("replayed", 1))
    ):
        of_source = known & (np.asarray(batch.source) == index)
        assert of_source.sum() == count
        np.testing.assert_allclose(
            metrics[f"prm/accuracy_{name}"], right[of_source].mean(), rtol=1e-6
        )
    no_replay = batch.replace(source=np.minimum(batch.source, 1))
    _, metrics = update(_state(), _refs(), _generator_batch(), no_replay, KEY)
    assert np.isnan(metrics["prm/accuracy_replayed"])


def test_microbatches_give_the_step_of_the_whole_batch():
    """Groups and weights straddle the parts; advantages are the round's all the same.

    Means of the parts' means would differ: their weights do.
    """
    out = []
    for parts in (1, 3):
        config = tiny_game.update_config(
            advantage="gae",
            normalise_advantage=True,
            prm=PrmObjective("ppo", beta=0.05, eta=0.07),
            microbatches=parts,
        )
        update = make_update(DECODER, config, *OPTIMISERS)
        batches = (
            _generator_batch(size=BatchSize(multiple=3)),
            _prm_batch(size=BatchSize(multiple=3)),
        )
        assert len({w.sum() for w in np.split(batches[0].weight, 3)}) > 1
        state, metrics = update(_state(), _refs(), *batches, KEY)
        # Adam's state of the first step is the gradient's square: no preconditioner
        # turns rounding into a step of its own.
        out.append((state.generator.opt, state.prm.opt, metrics))
    _close(out[1], out[0], atol=1e-5, rtol=1e-3)
