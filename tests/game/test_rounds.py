"""Whole rounds: same bits from the same seed, also from the middle on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_game

from aprm_jax.game import batches, rollouts
from aprm_jax.game import config as game_config
from aprm_jax.game import metrics as game_metrics
from aprm_jax.game.arena import Player
from aprm_jax.game.rounds import LoopState, Played
from aprm_jax.jobs.spent import CountedOracle
from aprm_jax.models import heads
from aprm_jax.oracle.verdict import Label, Verdict
from aprm_jax.sampling.sampler import Samples
from aprm_jax.training.metrics import to_scalar
from aprm_jax.training.timing import PhaseTimer


@functools.cache
def _place():
    """One arena: its compiled sampler serves all games."""
    return tiny_game.arena()


def _play(rounds, state: LoopState, steps) -> tuple[LoopState, list[dict]]:
    """Rounds `steps` from `state`; what they logged, without times."""
    logged = []
    for step in steps:
        output = rounds.step_fn(state, step, PhaseTimer())
        state = output.state
        logged.append({k: to_scalar(v) for k, v in output.metrics.items()})
    return state, logged


def test_the_learning_rates_of_a_game_count_its_epochs(monkeypatch):
    given, make = [], game_config.game_optimiser

    def spy(rate, **fields):
        given.append((fields["warmup"], fields["total"]))
        return make(rate, **fields)

    monkeypatch.setattr(game_config, "game_optimiser", spy)
    tiny_game.game_config(epochs=3, warmup=2, updates=20).optimisers()
    assert given == [(6, 60)] * 2


def _bits(tree):
    return jax.tree.map(np.array, tree)


@functools.cache
def _three_rounds():
    seen: list[dict] = []
    rounds = tiny_game.rounds(_place(), tiny_game.game_config(), sink=seen.append)
    before = _bits((rounds.refs.generator, rounds.refs.prm))
    state, logged = _play(rounds, rounds.state, range(3))
    return rounds, before, _bits(state), logged, seen


def _tokens(batch) -> int:
    return int((np.asarray(batch.rows.segment_ids) > 0).sum())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_round_says_what_it_computed(epochs):
    config = tiny_game.game_config(groups=2, epochs=epochs)
    rounds = tiny_game.rounds(_place(), config, train_generator=epochs > 1)
    played = rounds.play(rounds.state, 0, PhaseTimer())
    output = rounds.step_fn(rounds.state, 0, PhaseTimer())
    g, r = (_tokens(output.batch[player]) for player in ("generator", "prm"))
    scored = sum(len(row) for row in played.rows if row is not None)
    drawn = output.metrics["game/sampled_tokens"]
    drawn += sum(len(prompt.ids) for prompt in played.prompts[:2])
    # Both references are read in each epoch, and with two the iterate before them.
    by_generator, by_prm = (6 * 2 + 2 * 3) * g + 2 * drawn, (6 * 2 + 2 * 2) * r
    trained, read = 2 * g + 2 * r, 3 * g + 2 * r + drawn + scored
    if epochs == 1:  # and G is frozen
        by_generator, by_prm = 2 * drawn, (6 + 2) * r
        trained, read = r, drawn + scored + r
    by_prm += 2 * scored
    size = sum(x.size for x in jax.tree.leaves(tiny_game.generator()["backbone"]))
    embedding = tiny_game.generator()["backbone"]["embed"]["embedding"].size
    assert tiny_game.CONFIG.tie_embeddings
    flops = size * by_generator + (size - embedding) * by_prm
    names = ("trained_tokens", "read_tokens", "flops")
    found = [output.metrics[f"game/{name}"] for name in names]
    assert found == [trained, read, flops]


@functools.cache
def _three_imitating_rounds():
    config = tiny_game.game_config(generator_replay=3, replay_capacity=64)
    rounds = tiny_game.rounds(_place(), config)
    state, logged = _play(rounds, rounds.state, range(3))
    return config, _bits(state), logged


def test_int8_references_hold_players_nearly_where_full_ones_do():
    """Whatever began the game is then needed no more, and it goes on all the same."""
    config = tiny_game.game_config(references="int8")
    rounds = tiny_game.rounds(_place(), config)
    for ref in (rounds.refs.generator, rounds.refs.prm):
        leaves = jax.tree.leaves(ref["backbone"])
        assert sum(x.size for x in leaves if x.dtype == np.int8) > 0.9 * sum(
            x.size for x in leaves
        )
    state, first = _play(rounds, rounds.state, range(1))
    between = _bits(state)
    _, rest = _play(rounds, state, range(1, 2))
    _, _, _, full, _ = _three_rounds()
    for name in ("generator/kl_token", "prm/kl"):
        # They are no longer the references, but as near to them as int8 is.
        assert 0 < abs(first[0][name] - full[0][name]) < 5e-3
    assert first[0]["generator/reward"] == full[0]["generator/reward"]
    resumed = tiny_game.rounds(_place(), config)
    resumed.update = rounds.update  # compiled already
    _, again = _play(resumed, between, range(1, 2))
    np.testing.assert_equal(again, rest)


@pytest.mark.parametrize("imitating", [False, True])
def test_a_game_is_a_function_of_its_seed_and_can_go_on_from_the_middle(imitating):
    if imitating:
        config, expected, logged = _three_imitating_rounds()
        assert sum(buffer.size for buffer in expected.archive.buffers) > 1
        assert logged[-1]["generator/imitated_logprob"] < 0
    else:
        config = tiny_game.game_config()
        _, _, expected, logged, _ = _three_rounds()
    again = tiny_game.rounds(_place(), config)
    state, first = _play(again, again.state, range(1))
    # As a checkpoint does: arrays on the host, another game, the step's number.
    restored = _bits(state)
    _, rest = _play(again, state, range(1, 3))
    np.testing.assert_equal(first + rest, logged)
    resumed = tiny_game.rounds(_place(), config)
    resumed.update = again.update  # compiled already
    state, rest = _play(resumed, restored, range(1, 3))
    np.testing.assert_equal(rest, logged[1:])
    jax.tree.map(np.testing.assert_array_equal, _bits(state), expected)


def test_what_a_round_measures():
    _, _, state, logged, _ = _three_rounds()
    for metrics in logged:
        assert metrics["nonfinite"] == 0.0
        assert 0.0 <= metrics["generator/sampler_gap_max"] < 1e-4
        assert metrics["generator/sampler_gap_mean"] > 0.0 or (
            metrics["generator/sampler_gap_max"] == 0.0
        )
        rates = [
            metrics[f"game/{name}_rate"]
            for name in ("incorrect", "still_correct", "undecidable")
        ]
        assert sum(rates) == pytest.approx(1.0)
        for player in ("generator", "prm"):
            assert metrics[f"{player}/grad_norm"] > 0
    # In the first round both players are their references, and no KL is paid.
    for name in ("generator/kl_token", "prm/kl"):
        assert abs(logged[0][name]) < 1e-5 < abs(logged[2][name])
    assert any("game/fool_rate" in metrics for metrics in logged)
    assert 0 < state.replay.size <= 8
    assert len({metrics["generator/entropy_token"] for metrics in logged}) == 3


def test_references_survive_the_donation_of_the_state():
    rounds, before, state, _, _ = _three_rounds()
    jax.tree.map(
        np.testing.assert_array_equal,
        _bits((rounds.refs.generator, rounds.refs.prm)),
        before,
    )
    moved = jax.tree.map(
        lambda a, b: np.any(a != b), state.game.generator.params, before[0]
    )
    assert any(jax.tree.leaves(moved))


def test_logged_perturbations_are_plain_rows():
    _, _, _, _, seen = _three_rounds()
    assert {row["step"] for row in seen} == {0, 2}  # every second round
    for row in seen:
        assert row["label"] in ("correct", "incorrect", "undecidable")
        assert (row["p_correct"] is None) == (row["label"] == "undecidable")
        if row["p_correct"] is not None:
            assert 0.0 <= row["p_correct"] <= 1.0
    assert len(seen) <= 2 * 8


def _scripted(monkeypatch, reply: str):
    """The arena's sampler answers every prompt with one text."""
    place = _place()
    ids = [*place.builder.encode(reply), place.builder.step_id]

    def sample(params, prompts, key, *, temperature=1.0, stored=None):
        del params, key, temperature, stored
        n, width = len(prompts), place.sampler.max_new_tokens
        tokens = np.full((n, width), place.builder.pad_id, np.int32)
        tokens[:, : len(ids)] = ids
        return Samples(
            tokens=tokens,
            logprobs=np.zeros((n, width), np.float32),
            lengths=np.full(n, len(ids), np.int32),
            stopped=np.ones(n, bool),
        )

    monkeypatch.setattr(place.sampler, "sample", sample)
    return place


def _first_round(place):
    """Of a new game, by the update that three rounds have compiled."""
    trained, _, after, *_ = _three_rounds()
    rounds = tiny_game.rounds(place, tiny_game.game_config())
    rounds.update, rounds.scorer = trained.update, trained.scorer
    state = dataclasses.replace(rounds.state, batch_rows=after.batch_rows)
    return rounds.step_fn(state, 0, PhaseTimer())


def test_a_generator_that_says_one_thing_is_one_row_a_group(monkeypatch):
    place = _scripted(monkeypatch, "1 + + 1")
    output = _first_round(place)
    assert output.metrics["game/incorrect_rate"] == 1.0
    assert output.metrics["kind_share/malformed"] == 1.0
    assert output.metrics["game/distinct_rate"] == pytest.approx(1 / 6)
    weight = output.batch["generator"].weight
    assert weight[weight > 0].tolist() == [6.0] * 3
    # One row a group enters the buffer; R's batch repeats them.
    assert int(output.state.replay.added) == 3
    source = np.asarray(output.batch["prm"].source)
    labelled = np.asarray(output.batch["prm"].rows.label_mask) > 0
    assert labelled.sum() == 12 and (source[labelled] == 1).sum() == 8


def test_a_round_without_a_decided_perturbation_goes_on(monkeypatch):
    """Copies of an empty step: nothing is fresh, nothing is replayed."""
    place = _scripted(monkeypatch, "")
    output = _first_round(place)
    assert output.metrics["game/undecidable_rate"] == 1.0
    assert "game/fool_rate" not in output.metrics
    assert to_scalar(output.metrics["nonfinite"]) == 0.0
    assert np.isnan(to_scalar(output.metrics["prm/accuracy_fresh"]))
    assert int(output.state.replay.added) == 0


class _Silent:
    """An oracle whose pool times out: it decides nothing."""

    def judge(self, question, prefix, step, candidate):
        del question, prefix, step, candidate
        return Verdict(Label.UNDECIDABLE, "timeout", "no answer in time")


def test_a_round_that_teaches_the_generator_nothing_leaves_it_alone(monkeypatch):
    place = dataclasses.replace(_scripted(monkeypatch, "1 + 1"), oracle=_Silent())
    trained, _, before, *_ = _three_rounds()
    rounds = tiny_game.rounds(place, tiny_game.game_config())
    rounds.update, rounds.scorer = trained.update, trained.scorer
    output = rounds.step_fn(jax.tree.map(jnp.array, before), 3, PhaseTimer())
    assert not output.batch["generator"].weight.any()
    after = _bits(output.state.game)
    jax.tree.map(np.testing.assert_array_equal, after.generator, before.game.generator)
    moved = jax.tree.map(
        lambda a, b: np.any(a != b), after.prm.params, before.game.prm.params
    )
    assert any(jax.tree.leaves(moved))


def test_static_corruptions_that_r_cannot_read_are_not_measured(monkeypatch):
    """R's rows are shorter than G's: as where a finished PRM is attacked."""
    prm = Player(tiny_game.builder(buckets=(23,)), tiny_game.DECODER)
    place = dataclasses.replace(_scripted(monkeypatch, "1 + 1"), prm=prm)
    rounds = tiny_game.rounds(place, tiny_game.game_config(static_probe=4))
    points = [prompt.situation for prompt in rounds._prompts(11)]
    assert all(
        prm.builder.fits(prm.builder.step(p.question, p.prefix, p.step)) for p in points
    )
    rng, domain = np.random.default_rng([5, 41, 11]), tiny_game.DOMAIN
    wide = tiny_game.builder()
    rows = rollouts.static_rows(points, domain, domain.oracle, wide, rng, 4)
    fitting = [row for row in rows if prm.builder.fits(row)]
    assert 0 < len(fitting) < len(rows)
    found = rounds.scorer.rows(rounds.refs.prm, dict(enumerate(fitting)))
    caught = np.mean([found[k][0] < 0 for k in found])
    metrics = rounds.play(rounds.state, 11, PhaseTimer()).metrics
    assert metrics["prm/accuracy_static"] == caught


def test_a_frozen_prm_is_attacked_without_replay():
    rounds = tiny_game.rounds(
        _place(), tiny_game.game_config(epochs=2), train_prm=False
    )
    before = _bits((rounds.state.game.prm, rounds.state.replay))
    state, logged = _play(rounds, rounds.state, range(2))
    jax.tree.map(
        np.testing.assert_array_equal, _bits((state.game.prm, state.replay)), before
    )
    assert not any(name.startswith("prm/grad") for name in logged[0])
    assert logged[1]["generator/grad_norm"] > 0


def test_too_little_room_for_replies_is_explained():
    rows = tiny_game.builder(buckets=(12,))
    rounds = tiny_game.rounds(tiny_game.arena(rows), tiny_game.game_config())
    with pytest.raises(ValueError, match=r"raise builder\.buckets"):
        rounds.step_fn(rounds.state, 0, PhaseTimer())


def test_the_same_step_draws_the_same_problems_and_another_step_others():
    rounds = tiny_game.rounds(_place(), tiny_game.game_config())
    one, again, two = (rounds._prompts(step) for step in (3, 3, 4))
    assert one == again and not set(one) & set(two)


def _mixture(share: float):
    """A round that is played by hand, and what R's batch is made of."""
    config = tiny_game.game_config(hard_share=share)
    rounds = tiny_game.rounds(_place(), config)
    rounds.scorer = _three_rounds()[0].scorer
    points, builder = tiny_game.POINTS[:3], _place().builder
    texts = ["1 + 1", "2 + + 2", "3 * 3 + 3", "7", points[0].step, "1 + 1"]
    draws = [
        (group, tiny_game.reply(builder, text)) for group in range(3) for text in texts
    ]
    found = tiny_game.verified(draws, points, builder)
    rows = rollouts.prm_rows(found, builder)
    log_odds = np.linspace(-3, 3, len(found), dtype=np.float32)
    prompts = [rollouts.Prompt.of(builder, point) for point in points]
    played = Played(prompts, found, rows, log_odds, {}, np.random.default_rng(5))
    _, fresh, _ = rounds._mixture(played, rounds.state.replay)
    return played, fresh, config.prm_fresh + config.prm_replay


def test_without_a_hard_share_the_fresh_rows_are_those_that_g_drew():
    played, fresh, wanted = _mixture(0.0)
    rng = np.random.default_rng(5)
    rng.permutation(0)  # the empty replay buffer's draw
    expected = batches.fresh_rows(played.perturbations, played.rows, rng, wanted)
    assert [id(row) for row in fresh] == [id(row) for row in expected]


def test_hard_rows_are_the_wrong_replies_that_r_believes_most():
    played, fresh, wanted = _mixture(0.5)
    wrong = [
        i
        for i, p in enumerate(played.perturbations)
        if p.verdict.label == Label.INCORRECT
    ]
    best = sorted(wrong, key=lambda i: -played.log_odds[i])[: wanted // 2]
    assert [row.tokens.tolist() for row in fresh[: wanted // 2]] == [
        row.tokens.tolist() for i in best if (row := played.rows[i]) is not None
    ]
    assert len(fresh) == wanted
    assert not {id(played.rows[i]) for i in best} & {
        id(row) for row in fresh[wanted // 2 :]
    }


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_hard_rows_ask_for_no_more_verdicts_samples_or_updates(share):
    """Once a reply is drawn and judged it costs nothing to choose it."""
    trained, _, after, logged, _ = _three_rounds()
    oracle = CountedOracle(tiny_game.DOMAIN.oracle)
    place = dataclasses.replace(_place(), oracle=oracle)
    config = tiny_game.game_config(hard_share=share, static_probe=0)
    rounds = tiny_game.rounds(place, config)
    updates = []
    rounds.update = lambda *given: (updates.append(1), trained.update(*given))[1]
    rounds.scorer = trained.scorer
    state = dataclasses.replace(rounds.state, batch_rows=after.batch_rows)
    output = rounds.step_fn(state, 0, PhaseTimer())
    metrics = output.metrics
    for name in ("game/oracle_calls", "game/sampled_tokens", "game/distinct_rate"):
        assert metrics[name] == logged[0][name] > 0  # of a game by the default share
    assert oracle.calls == metrics["game/oracle_calls"]
    assert len(updates) == config.epochs
    batch = output.batch["prm"]
    labelled = np.asarray(batch.rows.label_mask) > 0
    sources = np.bincount(np.asarray(batch.source)[labelled], minlength=3)
    # The buffer is empty yet: fresh ones stand in for what would be replayed.
    assert sources.tolist() == [
        config.prm_clean,
        config.prm_fresh + config.prm_replay,
        0,
    ]
    weight = output.batch["generator"].weight
    assert (weight > 0).sum() == config.generator_rows


def _valuing():
    """A game whose R learns right steps by the reference, after its first updates."""
    rounds = tiny_game.rounds(
        _place(), tiny_game.game_config(right_targets="reference")
    )
    rounds.update, rounds.scorer = _three_rounds()[0].update, _three_rounds()[0].scorer
    return rounds, _play(rounds, rounds.state, range(2))[0]


def _values(prm, batch):
    """P(correct) by a PRM of each step of a batch."""
    logits = heads.step_logits(tiny_game.DECODER, prm, batch, "token")
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def test_clean_steps_are_learned_by_what_the_reference_says_of_them():
    rounds, state = _valuing()
    now = jax.tree.map(lambda x: x + 0, rounds.players(state)[1])  # it is donated
    batch = rounds.step_fn(state, 2, PhaseTimer()).batch["prm"]
    rows, source = batch.rows, np.asarray(batch.source)
    labelled, labels = np.asarray(rows.label_mask) > 0, np.asarray(rows.labels)
    clean = labelled & (source == 0)
    assert clean.sum() == rounds.config.prm_clean
    by_reference = _values(rounds.refs.prm, rows)[clean]
    np.testing.assert_allclose(labels[clean], by_reference, rtol=1e-5)
    assert np.abs(labels[clean] - _values(now, rows)[clean]).max() > 1e-4
    assert (labels[labelled & (source > 0)] == 0).all()


def test_right_replies_are_learned_by_their_value_and_are_no_hard_rows():
    rounds, state = _valuing()
    builder, points = _place().builder, tiny_game.POINTS[:3]
    draws = [
        (group, tiny_game.reply(builder, text))
        for group, point in enumerate(points)
        for text in ("1 + + 1", point.step)
    ]
    found = tiny_game.verified(draws, points, builder)
    right = [p.verdict.label == Label.CORRECT for p in found]
    assert right == [False, True] * 3
    rows = rounds.targeted(rollouts.prm_rows(found, builder))
    batch = builder.collate(rows, length=64, max_steps=1)
    said = _values(rounds.refs.prm, batch)[:, 0]
    labels = np.array([row.labels[0] for row in rows])
    np.testing.assert_allclose(labels, np.where(right, said, 0.0), rtol=1e-5)
    replayed = state.replay.add(rows).sample(np.random.default_rng(0), 8)
    assert set(labels[right].tolist()) <= {float(row.labels[0]) for row in replayed}
    # Of little value, and yet right: nothing that R should not have believed.
    rows = [dataclasses.replace(r, labels=0.1 * r.labels) for r in rows]
    prompts = [rollouts.Prompt.of(builder, point) for point in points]
    log_odds = np.array(right, np.float32)
    rng = np.random.default_rng(5)
    played = Played(prompts, found, rows, log_odds, {}, rng)
    assert rounds._hardest(played, 6) == [0, 2, 4]


@pytest.mark.parametrize(
    ("p_correct", "shown"),
    [(0.49996, 0.4999), (0.5, 0.5), (0.50004, 0.5), (0.12344, 0.1234)],
)
def test_a_logged_score_stays_on_its_side_of_one_half(p_correct, shown):
    assert game_metrics._shown(p_correct) == shown
