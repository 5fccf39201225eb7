"""A round's perturbations, made by hand: merged, judged, batched and counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_game
from tiny_game import DOMAIN, EASY

from aprm_jax.config.game import RewardsConfig
from aprm_jax.data.replies import Reply
from aprm_jax.data.rows import TooLongError
from aprm_jax.data.steps import StepBuilder
from aprm_jax.game import batches, rollouts
from aprm_jax.game.batches import BatchSize
from aprm_jax.game.metrics import round_metrics
from aprm_jax.game.rollouts import (
    OracleQueries,
    Perturbation,
    Prompt,
    Situation,
    situations,
)
from aprm_jax.models.positions import causal_mask
from aprm_jax.oracle.verdict import Label, Verdict
from aprm_jax.sampling.sampler import Samples

BUILDER = tiny_game.builder(line_stride=16)
OTHER = Situation("( 1 + 2 ) * 3", (), "3 * 3")
STEP = BUILDER.step_id
KINDS = DOMAIN.kinds


def _reply(text: str) -> tuple[int, ...]:
    return (*BUILDER.encode(text), STEP)


def _draw(group: int, ids: tuple[int, ...], stopped: bool = True):
    return group, tiny_game.reply(BUILDER, "", ids=ids, stopped=stopped)


def _verify(draws, points=(EASY, OTHER), rows: StepBuilder = BUILDER):
    return tiny_game.verified(draws, points, BUILDER, rows)


def test_equal_replies_of_a_group_are_merged_with_their_counts():
    wrong, right = _reply("2 + 3"), _reply("2 + 9")
    draws = [_draw(0, wrong), _draw(0, right), _draw(0, wrong), _draw(0, wrong)]
    draws += [_draw(1, wrong), _draw(1, wrong)]
    found = _verify(draws)
    assert [(p.group, p.reply.text, p.count) for p in found] == [
        (0, "2 + 3", 3),
        (0, "2 + 9", 1),
        (1, "2 + 3", 2),
    ]
    assert [p.situation for p in found] == [EASY, EASY, OTHER]
    assert [p.verdict.label for p in found] == [0, 1, 0]
    assert found[1].verdict.kind == "copied"
    assert sum(p.count for p in found) == len(draws)
    for p in found:
        n = len(p.reply.ids)
        np.testing.assert_allclose(p.reply.logprobs, -0.1 * np.arange(1, n + 1))
    # The same ids, closed and cut off, are two replies only if their ids differ.
    assert len(_verify([_draw(0, wrong), _draw(0, wrong[:-1], False)])) == 2


def _no_oracle(monkeypatch):
    def judge(*args):
        raise AssertionError(f"the oracle was asked about {args}")

    monkeypatch.setattr(DOMAIN.oracle, "judge", judge)


def _is_no_step(found: Perturbation, reason: str):
    assert (found.verdict.label, found.verdict.kind) == (2, "unfinished")
    assert found.reply.reason == reason and reason in found.verdict.reason


@pytest.mark.parametrize(
    ("last", "reason"),
    [("room", "unfinished"), ("eos", "unfinished"), ("empty", "empty")],
)
def test_what_is_not_one_closed_step_is_undecidable_by_rule(monkeypatch, last, reason):
    _no_oracle(monkeypatch)
    body = BUILDER.encode("2 + 3")
    draw = {
        "room": _draw(0, body, False),
        "eos": _draw(0, (*body, int(DOMAIN.tokenizer.eos_token_id))),
        "empty": _draw(0, (STEP,)),
    }[last]
    (found,) = _verify([draw])
    _is_no_step(found, reason)
    assert rollouts.prm_rows([found], BUILDER) == [None]
    # It never reaches R, and G pays for it as for a step that is still correct.
    table = RewardsConfig(generator_still_correct=-0.75)
    batch = _generator_batch([found], np.ones(1, np.float32), table)
    assert batch.rewards[0].sum() == -0.75 and batch.weight[0].tolist()[:2] == [1, 0]


def test_a_reply_too_long_for_rs_rows_is_undecidable_by_rule(monkeypatch):
    _no_oracle(monkeypatch)
    tight = StepBuilder(DOMAIN.tokenizer, 1, (16,))
    long = _reply(" ".join("2 + " * 6 + "3"))
    (found,) = _verify([_draw(0, long)], rows=tight)
    _is_no_step(found, "too_long")
    with pytest.raises(TooLongError):
        tight.collate([tight.step(EASY.question, (), found.reply.text)])


@pytest.mark.parametrize("token", ["perturb_id", "bos_id", "pad_id", "step_id"])
def test_special_ids_inside_a_reply_never_reach_r(token):
    """`<step>` cannot: the sampler stops there. If it did, the text would end there."""
    special = getattr(BUILDER, token)
    reply = (*BUILDER.encode("2 +"), special, *BUILDER.encode("2"), STEP)
    found = _verify([_draw(0, reply)])
    assert found[0].verdict.label == Label.INCORRECT
    assert found[0].verdict.kind == "malformed"
    (row,) = rollouts.prm_rows(found, BUILDER)
    assert row is not None
    specials = [BUILDER.perturb_id, BUILDER.bos_id, BUILDER.pad_id, STEP]
    expected = [i for i in BUILDER.context(EASY.question, ()) if i in specials]
    assert [i for i in row.tokens if i in specials] == [*expected, STEP]
    # G learns from the ids that it drew, not from their text.
    batch = _generator_batch(found, np.ones(1, np.float32))
    assert batch.rows.tokens[0][batch.rows.step_ids[0] >= 0].tolist() == list(reply)


def _perturbation(text: str, label: Label, **changes) -> Perturbation:
    kind = {0: "wrong_result", 1: "correct", 2: "leap"}[int(label)]
    fields = {
        "prompt": Prompt.of(BUILDER, changes.pop("situation", EASY)),
        "group": 0,
        "reply": Reply(
            _reply(text),
            np.full(len(_reply(text)), -0.5, np.float32),
            stopped=True,
            text=text,
            reason=changes.pop("reason", ""),
        ),
        "count": 1,
        "verdict": Verdict(label, changes.pop("kind", kind)),
    }
    return Perturbation(**(fields | changes))


def _generator_batch(found, p_correct, table=tiny_game.TABLE, **changes):
    rng = changes.pop("rng", np.random.default_rng(0))
    fields = {"most": 6, "width": 12} | changes
    return batches.generator_batch(found, p_correct, table, BUILDER, rng, **fields)


HAND = [
    _perturbation("2 + 3", Label.INCORRECT, count=3),
    _perturbation("2 + 9", Label.CORRECT, count=2),
    _perturbation("4", Label.UNDECIDABLE, count=5),
    _perturbation("3 + 3", Label.INCORRECT, situation=OTHER, group=1),
    _perturbation("9", Label.UNDECIDABLE, reason="empty", group=1, situation=OTHER),
]
P_CORRECT = np.array([0.25, 0.9, 0.5, 0.75, 0.5], np.float32)


def test_rows_for_r_are_labelled_and_none_where_undecidable():
    rows = rollouts.prm_rows(HAND, BUILDER)
    assert [row is None for row in rows] == [False, False, True, False, True]
    assert [row.labels.tolist() for row in rows if row] == [[0.0], [1.0], [0.0]]
    for p, row in zip(HAND, rows, strict=True):
        if row:
            expected = BUILDER.step(p.situation.question, (), p.reply.text, 0.0)
            assert row.tokens.tolist() == expected.tokens.tolist()


def test_groups_are_numbered_within_a_batch_that_has_fewer_places_than_the_round():
    """Baselines are sums over at most B * S groups."""
    found = [
        dataclasses.replace(p, group=40 + p.group) for p in HAND if not p.reply.reason
    ]
    batch = _generator_batch(found, P_CORRECT[: len(found)])
    here = _generator_batch(
        [p for p in HAND if not p.reply.reason], P_CORRECT[: len(found)]
    )
    np.testing.assert_array_equal(batch.group, here.group)
    learned = batch.weight > 0
    assert set(batch.group[learned].tolist()) == {0, 1}
    assert batch.group.max() < batch.weight.size


@pytest.mark.parametrize("branch", [True, False])
def test_generator_batch_holds_what_can_be_learned_from(branch):
    batch = _generator_batch(HAND, P_CORRECT, branch=branch)
    # 4 of 5 (the undecidable one is left out); the rest is padding.
    kept = [HAND[i] for i in (0, 1, 3, 4)]
    rewards = dict(zip(map(id, kept), (0.25, -1, 0.75, -1), strict=True))
    places = {}
    for b, s in np.argwhere(batch.weight):
        places.setdefault(int(batch.group[b, s]), []).append((b, s))
    assert batch.old_logprobs is None
    assert batch.weight.sum() == 3 + 2 + 1 + 1 and (batch.weight > 0).sum() == 4
    for p in kept:
        b, s = places[p.group].pop(0)  # in the order of the perturbations
        columns = batch.columns[b, s][batch.columns[b, s] >= 0]
        assert batch.rows.tokens[b, columns].tolist() == list(p.reply.ids)
        assert batch.weight[b, s] == p.count
        last = len(columns) - 1
        assert np.flatnonzero(batch.rewards[b, s]).tolist() == [last]
        assert batch.rewards[b, s, last] == rewards[id(p)]
        assert (batch.sampler_logprobs[b, s, : last + 1] == -0.5).all()
        assert not batch.sampler_logprobs[b, s, last + 1 :].any()
        # What the reply sees is its prompt and itself, as a row of its own would.
        alone = BUILDER.continuation(p.prompt.ids, p.reply.ids)
        seen = _seen(batch.rows, b, columns[-1])
        assert batch.rows.tokens[b, seen].tolist() == alone.tokens.tolist()
        np.testing.assert_array_equal(batch.rows.positions[b, seen], alone.positions)
    assert not any(places.values())
    off = batch.weight == 0
    assert (batch.columns[off] == -1).all() and not batch.rewards[off].any()


def _seen(rows, b: int, column: int) -> list[int]:
    """The columns that a token of a row attends to."""
    ends = None if rows.ends is None else jnp.asarray(rows.ends)
    mask = causal_mask(jnp.asarray(rows.segment_ids), ends=ends)
    return np.flatnonzero(mask[b, column]).tolist()


def test_replies_share_their_prompt_as_far_as_a_row_holds_them():
    """A row of the longest bucket, and no more steps than a row may have."""
    many = [
        _perturbation(f"{a} + {b}", Label.INCORRECT)
        for a in range(2, 9)
        for b in range(2, 9)
    ]
    p_correct = np.full(len(many), 0.5, np.float32)
    batch = _generator_batch(many, p_correct, most=40)
    assert (batch.weight > 0).sum() == 40
    assert batch.rows.tokens.shape[1] == BUILDER.buckets[-1]
    assert batch.weight.shape[1] == batches.STEPS_A_ROW
    prompt, reply = len(many[0].prompt.ids), len(many[0].reply.ids)
    fit = min((BUILDER.buckets[-1] - prompt) // reply, batches.STEPS_A_ROW)
    held = (batch.weight > 0).sum(axis=1)
    assert held.tolist() == [*[fit] * (40 // fit), 40 % fit][: len(held)]
    # Nothing of the prompt stands twice in a row.
    assert (batch.rows.step_ids[0] == -1)[: prompt + fit * reply].sum() == prompt


def test_what_does_not_fit_is_left_out_uniformly():
    learnable = Counter()
    for seed in range(200):
        batch = _generator_batch(
            HAND, P_CORRECT, most=2, rng=np.random.default_rng(seed)
        )
        there = batch.weight > 0
        assert there.sum() == 2
        paid = batch.rewards.sum(axis=-1)[there]
        learnable.update(zip(batch.weight[there].tolist(), paid.tolist(), strict=True))
    assert set(learnable) == {(3, 0.25), (2, -1), (1, 0.75), (1, -1)}  # counts, pay
    assert min(learnable.values()) > 70  # 100 +- 7 each


def test_a_round_without_a_decided_perturbation_gives_a_batch_of_weight_zero():
    batch = _generator_batch([HAND[2]], P_CORRECT[:1], size=BatchSize(multiple=2))
    assert not batch.weight.any() and not batch.rewards.any()
    assert batch.rows.tokens.shape == (2, BUILDER.buckets[-1])


def test_fresh_rows_are_distinct_first_then_as_often_as_drawn():
    rows = rollouts.prm_rows(HAND, BUILDER)
    name = {id(row): i for i, row in enumerate(rows)}
    one_or_two = Counter()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        chosen = [name[id(r)] for r in batches.fresh_rows(HAND, rows, rng, 4)]
        assert set(chosen[:3]) == {0, 1, 3} and len(chosen) == 4
        one_or_two[chosen[3]] += 1
        assert len(batches.fresh_rows(HAND, rows, rng, 2)) == 2
    # The fourth is drawn by count: 3, 2 and 1 of 6.
    for i, share in ((0, 1 / 2), (1, 1 / 3), (3, 1 / 6)):
        assert abs(one_or_two[i] / 300 - share) < 0.1
    assert batches.fresh_rows([HAND[2]], [None], np.random.default_rng(0), 3) == []


def test_prm_batch_says_where_its_steps_come_from():
    rows = [row for row in rollouts.prm_rows(HAND, BUILDER) if row]
    batch = batches.prm_batch(
        rows[1:2], rows[:1], rows[2:], BUILDER, BatchSize(multiple=2)
    )
    known = batch.rows.label_mask > 0
    assert np.asarray(batch.source)[known].tolist() == [0, 1, 2]
    assert batch.rows.labels[known].tolist() == [1, 0, 0]
    assert batch.rows.tokens.shape[0] % 2 == 0
    # Each step sees its own context, as in a row of its own.
    expected = [rows[1], rows[0], rows[2]]
    for (b, s), row in zip(np.argwhere(known), expected, strict=True):
        last = np.flatnonzero(batch.rows.step_ids[b] == s)[-1]
        seen = _seen(batch.rows, b, last)
        assert batch.rows.tokens[b, seen].tolist() == row.tokens.tolist()


def _static_rows(points, count: int):
    rng = np.random.default_rng(0)
    return rollouts.static_rows(points, DOMAIN, DOMAIN.oracle, BUILDER, rng, count)


def test_static_rows_are_wrong_and_no_more_than_asked():
    points = tiny_game.POINTS
    rows = _static_rows(points, 99)
    assert 0 < len(rows) <= len(points)
    remaining = list(points)
    for row in rows:
        text = BUILDER.decode(row.tokens[row.step_ids >= 0])
        assert row.labels.tolist() == [0.0]
        # Its context is that of one of the points, in their order.
        context = row.tokens[row.step_ids < 0].tolist()
        while context != BUILDER.context(remaining[0].question, remaining[0].prefix):
            remaining.pop(0)
        point = remaining.pop(0)
        verdict = DOMAIN.oracle.judge(point.question, point.prefix, point.step, text)
        assert verdict.label == Label.INCORRECT
    few = _static_rows(points, 2)
    assert [r.tokens.tolist() for r in few] == [r.tokens.tolist() for r in rows[:2]]


def test_static_rows_that_do_not_fit_are_left_out(monkeypatch):
    def corrupt(self, rng, question, prefix, step):
        return "2 + 3" if question == EASY.question else "1 + 100"

    monkeypatch.setattr(type(DOMAIN), "corrupt", corrupt)
    points = [EASY, Situation("1 + 2 * 3", (), "1 + 6")]
    short, long = _static_rows(points, 2)
    assert len(short) < len(long)
    for size, kept in ((len(long), 2), (len(long) - 1, 1), (len(short) - 1, 0)):
        rows = tiny_game.builder(buckets=(size,))
        rng = np.random.default_rng(0)
        found = rollouts.static_rows(points, DOMAIN, DOMAIN.oracle, rows, rng, 2)
        assert len(found) == kept


def test_correct_corruptions_are_no_static_negatives(monkeypatch):
    monkeypatch.setattr(type(DOMAIN), "corrupt", lambda self, rng, q, p, step: step)
    assert _static_rows([EASY], 1) == []
    monkeypatch.setattr(type(DOMAIN), "corrupt", lambda self, rng, q, p, step: None)
    assert _static_rows([EASY], 1) == []


def test_round_metrics_of_a_case_made_by_hand():
    """Counts 3 wrong, 2 copied, 5 undecidable, 1 wrong that passes, 1 unfinished."""
    reasons = ("unfinished", "empty", "too_long")
    metrics = round_metrics(HAND, P_CORRECT, 0.5, KINDS, reasons)
    expected = {
        "game/incorrect_rate": 4 / 12,
        "game/still_correct_rate": 2 / 12,
        "game/undecidable_rate": 6 / 12,
        "game/success_rate": 1 / 12,
        "game/distinct_rate": 5 / 12,
        "game/oracle_calls": 4,  # the fifth reply is no step
        "game/copied_rate": 2 / 12,
        "game/fool_rate": 1 / 4,
        "game/caught_rate": 3 / 4,
        "kind_share/wrong_result": 1.0,
        "kind_caught/wrong_result": 3 / 4,
        "reply/one_step": 11 / 12,
        "reply/unfinished": 0.0,
        "reply/empty": 1 / 12,
        "reply/too_long": 0.0,
    }
    for name, value in expected.items():
        assert metrics.pop(name) == pytest.approx(value), name
    # Shares of equal words: 2 of 3, 3 of 3, 1 of 3 and 1, 2 of 3 ("3 * 3"), 0.
    distance = (3 * (1 - 4 / 6) + 2 * 0 + 5 * 1 + 1 * (1 - 4 / 6) + 1 * 1) / 12
    assert metrics.pop("game/edit_distance") == pytest.approx(distance)
    kinds = {name for name in metrics if name.startswith("kind_share/")}
    assert all(metrics.pop(name) == 0.0 for name in kinds)
    assert not metrics  # no rate at which a kind that does not occur was caught


def test_rates_of_nothing_are_left_out():
    metrics = round_metrics(HAND[1:3], P_CORRECT[1:3], 0.5, KINDS, ())
    assert metrics["game/incorrect_rate"] == metrics["game/success_rate"] == 0.0
    assert not any(
        name.startswith("kind_") or name in ("game/fool_rate", "game/caught_rate")
        for name in metrics
    )
    assert all(np.isfinite(list(metrics.values())))


def test_situations_depend_on_seed_and_index_alone():
    points = rollouts.situations(DOMAIN, range(20), seed=4)
    assert points[7:9] == rollouts.situations(DOMAIN, [7, 8], seed=4)
    assert points != rollouts.situations(DOMAIN, range(20), seed=5)
    for index, point in enumerate(points):
        problem = DOMAIN.train(index)
        assert problem.question == point.question
        k = len(point.prefix)
        assert problem.steps[: k + 1] == (*point.prefix, point.step)
    assert len({len(point.prefix) for point in points}) > 2


def test_perturb_gives_every_point_its_group():
    sampler = tiny_game.sampler(BUILDER)
    backbone = tiny_game.generator()["backbone"]
    key = jax.random.key(2)
    prompts = [Prompt.of(BUILDER, point) for point in (EASY, OTHER)]
    queries = OracleQueries(prompts, DOMAIN.oracle, BUILDER.replies, BUILDER)
    groups = rollouts.perturb(sampler, backbone, prompts, 3, key, queries)
    assert [len(replies) for replies in groups] == [3, 3]
    each = [
        BUILDER.perturb_context(p.question, p.prefix, p.step)
        for p in (EASY, OTHER)
        for _ in range(3)
    ]
    samples: Samples = sampler.sample(backbone, each, key)
    for i, reply in enumerate(reply for replies in groups for reply in replies):
        n = samples.lengths[i]
        assert reply.ids == tuple(samples.tokens[i, :n].tolist())
        assert len(reply.ids) == n
        np.testing.assert_array_equal(reply.logprobs, samples.logprobs[i, :n])
        assert reply.stopped == samples.stopped[i]


class _Recorder:
    """An oracle that answers in the background and notes when it was asked."""

    def __init__(self, events):
        self.events = events

    def submit(self, question, prefix, original, candidate) -> Future[Verdict]:
        self.events.append(candidate)
        future: Future[Verdict] = Future()
        future.set_result(DOMAIN.oracle.judge(question, prefix, original, candidate))
        return future

    judge = DOMAIN.oracle.judge


def test_the_oracle_is_asked_while_others_are_sampled(monkeypatch):
    sampler = tiny_game.sampler(BUILDER)
    texts = ["2 + 3", "2 + 9", "2 + 3", "3 * 2", "1 + 1", "3 * 2"]
    events: list[str] = []

    def sample(params, prompts, key, *, stored):
        del params, key
        n, width = len(prompts), sampler.max_new_tokens
        out = Samples(
            tokens=np.full((n, width), BUILDER.pad_id, np.int32),
            logprobs=np.zeros((n, width), np.float32),
            lengths=np.zeros(n, np.int32),
            stopped=np.ones(n, bool),
        )
        for chunk in ([3, 4, 5], [0, 1, 2]):
            for i in chunk:
                reply = _reply(texts[i])
                out.tokens[i, : len(reply)], out.lengths[i] = reply, len(reply)
            stored(out, chunk)
            events.append("stored")
        return out

    monkeypatch.setattr(sampler, "sample", sample)
    prompts = [Prompt.of(BUILDER, point) for point in (EASY, OTHER)]
    queries = OracleQueries(prompts, _Recorder(events), BUILDER.replies, BUILDER)
    key = jax.random.key(0)
    groups = rollouts.perturb(sampler, None, prompts, 3, key, queries)
    asked = ["3 * 2", "1 + 1", "stored", "2 + 3", "2 + 9", "stored"]
    assert events == asked
    found = rollouts.verify(groups, prompts, queries)
    assert events == asked  # nothing is asked twice
    expected = _verify([(g, r) for g, replies in enumerate(groups) for r in replies])
    assert [(p.reply, p.count, p.verdict) for p in found] == [
        (p.reply, p.count, p.verdict) for p in expected
    ]
    assert len({p.verdict.label for p in found}) > 1


def test_a_batch_divides_among_devices_that_earlier_rounds_did_not_have():
    size = BatchSize(least=6, multiple=4)
    assert [size.of(count) for count in (1, 4, 6, 8, 9)] == [8, 8, 8, 8, 12]
    assert BatchSize(least=10, multiple=5).of(7) == 10  # and does not grow by itself


def test_the_batches_of_300_rounds_have_few_shapes():
    """However long and many the replies are: each pair is compiled for."""
    rng = np.random.default_rng(0)
    points = list(situations(DOMAIN, range(40), seed=2))
    seen, rows_so_far = set(), (0, 0)
    for _ in range(300):
        chosen = [points[i] for i in rng.permutation(len(points))[:12]]
        found = [
            _perturbation(
                " ".join("2 + " * int(rng.integers(0, 2)) + str(rng.integers(2, 99))),
                Label.INCORRECT,
                situation=point,
                group=group,
            )
            for group, point in enumerate(chosen)
            for _ in range(int(rng.integers(3, 7)))
        ]
        p_correct = np.full(len(found), 0.5, np.float32)
        sizes = [BatchSize(least, 2) for least in rows_so_far]
        batch = _generator_batch(found, p_correct, most=48, rng=rng, size=sizes[0])
        rows = [row for row in rollouts.prm_rows(found, BUILDER) if row][:32]
        prm = batches.prm_batch(rows, (), (), BUILDER, sizes[1])
        rows_so_far = len(batch.rows.tokens), len(prm.rows.tokens)
        seen.add((batch.rows.tokens.shape, prm.rows.tokens.shape))
    assert len(seen) <= 3, seen
