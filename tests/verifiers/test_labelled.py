"""Labelled solutions as training rows: the tree, the weights, the loss, the update."""

from __future__ import annotations

import math
import tracemalloc

import jax
import numpy as np
import optax
import pytest
import scipy.special
import tiny

from aprm_jax.data.labelled import from_first_error, from_labels, from_ratings
from aprm_jax.data.rows import pack
from aprm_jax.data.steps import StepBuilder
from aprm_jax.models import heads, lora
from aprm_jax.models.decoder import Decoder
from aprm_jax.training import learner
from aprm_jax.verifiers.labelled import (
    class_targets,
    class_weights,
    label_batch,
    merge,
    prefix_tree,
)
from aprm_jax.verifiers.objective import PrmObjective
from aprm_jax.verifiers.step_loss import (
    PrmBatch,
    make_prm_update,
    prepare_steps,
    step_loss,
)

NAN = math.nan
DECODER = Decoder(tiny.decoder())
CROSS_ENTROPY = PrmObjective("cross_entropy")
KEY = jax.random.key(0)


def labels_loss(params, ref, batch, decoder, head, objective, key):
    """The loss as a number, and the metrics' means."""
    prepared = prepare_steps(decoder, ref, PrmBatch(batch), head, objective, key)
    loss, metrics = step_loss(params, prepared, decoder, head, objective)
    return loss.mean(), {name: value.shown() for name, value in metrics.items()}


def flat(question, *rated):
    """PRM800K's flat form: the last step of each prefix is rated."""
    return [
        from_ratings(question, steps, [None] * (len(steps) - 1) + [rating])
        for steps, rating in rated
    ]


TREE = flat(
    "q",
    (("a",), 1),
    (("x",), -1),
    (("a", "b"), 0),
    (("a", "y"), -1),
    (("a", "b", "c"), 1),
    (("a", "b", "c"), 1),  # rated twice
)


def test_a_tree_is_one_row_a_leaf_and_one_label_a_step():
    rows = merge(TREE, neutral="correct", soft=False)
    assert [row.steps for row in rows] == [("x",), ("a", "y"), ("a", "b", "c")]
    assert [row.labels for row in rows] == [(0.0,), (1.0, 0.0), (1.0, 1.0, 1.0)]
    assert [row.first for row in rows] == [(True,), (True, True), (False, True, True)]
    tree, labels = prefix_tree(rows)
    assert {tree.steps(node): label for node, label in labels.items()} == {
        ("q", ("x",)): 0.0,
        ("q", ("a",)): 1.0,
        ("q", ("a", "y")): 0.0,
        ("q", ("a", "b")): 1.0,
        ("q", ("a", "b", "c")): 1.0,
    }


@pytest.mark.parametrize(
    ("neutral", "label"),
    [("correct", 1.0), ("incorrect", 0.0), ("ignore", NAN), ("class", 0.5)],
)
def test_what_a_neutral_rating_is(neutral, label):
    row = merge(TREE, neutral=neutral, soft=False)[-1]
    np.testing.assert_array_equal(row.labels, (1.0, label, 1.0))


def test_labels_of_one_step_are_averaged_and_a_tie_is_none():
    twice = flat("q", (("a",), 1), (("a",), 1), (("a",), -1), (("b",), 1), (("b",), -1))
    hard = {row.steps: row.labels for row in merge(twice, soft=False)}
    assert hard == {("a",): (1.0,)}  # the tie has no label, so its row is gone
    soft = {row.steps: row.labels for row in merge(twice, soft=True)}
    assert soft[("a",)] == (pytest.approx(2 / 3),) and soft[("b",)] == (0.5,)
    three = merge(
        flat("q", (("a",), 0), (("a",), 0), (("a",), 1)), neutral="class", soft=False
    )
    assert three[0].labels == (0.5,)


def test_a_cut_says_which_shares_are_right():
    shares = [k / 8 for k in range(9)]
    rows = [from_labels("q", [f"s{k}"], [share]) for k, share in enumerate(shares)]
    # As the file says: no share is lost, none is moved.
    assert [row.labels for row in merge(rows, soft=True)] == [(x,) for x in shares]
    for cut in (0.125, 0.5, 0.75, 1.0):
        hard = [row.labels[0] for row in merge(rows, soft=False, cut=cut)]
        assert hard == [float(share >= cut) for share in shares]
    # Two that disagree, and meet at the cut, say nothing; elsewhere their mean says it.
    both = [from_labels("q", ["a"], [share]) for share in (0.25, 0.75)]
    assert merge(both, soft=False) == []
    assert merge(both, soft=False, cut=0.25)[0].labels == (1.0,)


def _merged_by_texts(solutions, soft):
    """`merge`, each step by the texts of all steps up to it."""
    values, leaves = {}, {}
    for s in solutions:
        for k, label in enumerate(s.labels):
            if not math.isnan(label):
                key = (s.question, s.steps[: k + 1])
                values.setdefault(key, []).append(label)
    inside = {(s.question, s.steps[:k]) for s in solutions for k in range(len(s.steps))}
    for s in solutions:
        if (s.question, s.steps) not in inside:
            leaves.setdefault((s.question, s.steps), s.problem_id)
    rows, seen = [], set()
    for (question, steps), name in leaves.items():
        path = [(question, steps[: k + 1]) for k in range(len(steps))]
        known = [float(np.mean(values.get(node, NAN))) for node in path]
        if not soft:
            known = [
                NAN if v == 0.5 or math.isnan(v) else float(v > 0.5) for v in known
            ]
        if not all(map(math.isnan, known)):
            first = [node not in seen for node in path]
            rows.append((question, steps, known, first, name))
            seen.update(path)
    return rows


@pytest.mark.parametrize("soft", [True, False])
def test_rows_are_those_of_steps_told_apart_by_all_texts_before_them(soft):
    rng = np.random.default_rng(0)
    solutions = []
    for k in range(300):
        steps = [f"s{rng.integers(2)}" for _ in range(rng.integers(0, 7))]
        labels = [float(rng.choice([0.0, 1.0, NAN])) for _ in steps]
        name = f"q{rng.integers(3)}"
        solutions.append(from_labels(name, steps, labels, problem_id=f"id{k}"))
    got = [
        (r.question, r.steps, list(r.labels), list(r.first), r.problem_id)
        for r in merge(solutions, soft=soft)
    ]
    assert repr(got) == repr(_merged_by_texts(solutions, soft)) and len(got) > 50


def _peak_of_merging(solutions: int, steps: int) -> int:
    """Bytes that `merge` and the tree of its rows hold at most."""
    found = [
        from_labels("q", [f"{s} {k}" for k in range(steps)], [1.0] * steps)
        for s in range(solutions)
    ]
    tracemalloc.start()
    prefix_tree(merge(found, soft=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_grows_with_the_steps_not_with_their_square():
    short, long = (_peak_of_merging(10, steps) for steps in (200, 800))
    assert long < 6 * short
    assert long < 10 * 800 * 2000  # bytes a step


def test_a_soft_label_of_a_half_is_no_neutral_rating():
    [row] = merge([from_labels("q", ["a"], [0.5])], neutral="incorrect", soft=True)
    assert row.labels == (0.5,)


def test_steps_behind_the_first_error_stay_unlabelled():
    [row] = merge([from_first_error("q", "abcd", 1)], soft=False)
    np.testing.assert_array_equal(row.labels, (1.0, 0.0, NAN, NAN))
    # And equal steps of another question are other steps.
    rows = merge([*flat("q", (("a",), 1)), *flat("r", (("a",), -1))], soft=False)
    assert [row.labels for row in rows] == [(1.0,), (0.0,)]


def test_class_targets_interpolate():
    np.testing.assert_allclose(
        class_targets(np.array([0.0, 0.25, 0.5, 1.0]), 3),
        [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]],
    )
    np.testing.assert_allclose(class_targets(np.array([0.3]), 2), [[0.7, 0.3]])


def test_balance_evens_the_classes():
    labels = np.array([0.0, 1.0, 1.0, 1.0, 0.75])
    np.testing.assert_array_equal(class_weights(labels, 2, balance=False), [1, 1])
    even = class_weights(labels, 2, balance=True)
    mass = class_targets(labels, 2).sum(axis=0)
    np.testing.assert_allclose(mass * even, [2.5, 2.5])
    three = class_weights(labels, 3, balance=True)
    np.testing.assert_allclose(class_targets(labels, 3).sum(axis=0) * three, 5 / 3)
    with pytest.raises(ValueError, match="neutral"):
        class_weights(np.array([0.0, 1.0]), 3, balance=True)
    with pytest.raises(ValueError, match="wrong"):
        class_weights(np.ones(3), 2, balance=False)


def _batch(builder, three=False):
    solutions = tiny.solutions()
    labels = (
        [(1.0, 0.25), (NAN, 1.0, 0.0), (0.5,)]
        if three
        else [(1.0, 0.25), (NAN, 1.0, 0.0), (0.75,)]
    )
    per_class = np.array([3.0, 0.5, 1.5] if three else [3.0, 0.5])
    weights = [
        class_targets(np.array(row), len(per_class)) @ per_class for row in labels
    ]
    rows = [
        builder.solution(q, s, v)
        for (q, s, _), v in zip(solutions, labels, strict=True)
    ]
    batch = label_batch(
        pack(rows, 64), per_class, builder, length=64, max_steps=8, batch_size=2
    )
    return solutions, labels, weights, batch


@pytest.mark.parametrize("head", heads.HEADS)
@pytest.mark.parametrize("window", [None, 1])
def test_the_loss_of_packed_rows_is_that_of_separate_steps(head, window):
    builder = StepBuilder(tiny.tokenizer(), window, (32, 64))
    three = head == "three_class"
    solutions, labels, weights, batch = _batch(builder, three)
    assert batch.tokens.shape == (2, 64)  # three solutions in one row, one of padding
    params = heads.init_prm(jax.random.key(1), tiny.backbone(DECODER.config), 16, head)
    loss, metrics = labels_loss(params, None, batch, DECODER, head, CROSS_ENTROPY, KEY)
    total = mass = 0.0
    for (question, steps, _), values, weight in zip(
        solutions, labels, weights, strict=True
    ):
        alone = builder.collate([builder.solution(question, steps)], length=64)
        if three:
            out = np.asarray(heads.step_class_logprobs(DECODER, params, alone))[0]
            np.testing.assert_allclose(np.exp(out).sum(-1), 1.0, rtol=1e-5)
            nll = -(class_targets(np.nan_to_num(values), 3) * out).sum(-1)
            odds = np.logaddexp(out[:, 1], out[:, 2]) - out[:, 0]
            got = np.asarray(heads.step_logits(DECODER, params, alone, head))[0]
            np.testing.assert_allclose(got, odds, atol=1e-4)
        else:
            logits = np.asarray(heads.step_logits(DECODER, params, alone, head))[0]
            p = scipy.special.expit(logits.astype(np.float64))
            y = np.nan_to_num(values)
            nll = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        known = ~np.isnan(values)
        total += float((weight * nll)[known].sum())
        mass += float(weight[known].sum())
    assert float(loss) == pytest.approx(total / mass, rel=1e-4)
    assert 0 <= float(metrics["accuracy"]) <= 1


def test_a_weight_of_zero_is_no_step():
    builder = StepBuilder(tiny.tokenizer(), None, (64,))
    rows = [builder.solution("1 + 2", ("3", "4"), (1.0, 0.0))]
    shape = {"length": 64, "max_steps": 2, "batch_size": 1}
    params = heads.init_prm(
        jax.random.key(1), tiny.backbone(DECODER.config), 16, "two_class"
    )
    one = label_batch(rows, np.array([0.0, 1.0]), builder, **shape)
    loss, metrics = labels_loss(
        params, None, one, DECODER, "two_class", CROSS_ENTROPY, KEY
    )
    alone = builder.collate([builder.solution("1 + 2", ("3",))])
    logit = float(heads.step_logits(DECODER, params, alone, "two_class")[0, 0])
    assert float(loss) == pytest.approx(float(np.logaddexp(0, -logit)), rel=1e-4)
    assert math.isnan(float(metrics["accuracy_incorrect"]))


@pytest.mark.parametrize("head", ["two_class", "three_class"])
def test_updates_learn_and_a_bad_one_is_not_applied(head):
    builder = StepBuilder(tiny.tokenizer(), None, (64,))
    batch = _batch(builder, head == "three_class")[-1]
    params = heads.init_prm(jax.random.key(1), tiny.backbone(DECODER.config), 16, head)
    tx = optax.adam(1e-2)
    update = make_prm_update(DECODER, head, CROSS_ENTROPY, tx)
    # Donation would delete the shared tree of `tiny`.
    params = jax.tree.map(lambda x: x + 0, params)
    state = learner.start(params, tx)
    losses = []
    for _ in range(12):
        state, metrics = update(state, None, PrmBatch(batch), KEY)
        losses.append(float(metrics["prm/loss"]))
    assert losses[-1] < losses[0] - 0.05 and metrics["nonfinite"] == 0
    assert update._cache_size() == 1
    before = jax.tree.map(np.asarray, state)
    bad = batch.replace(
        label_mask=np.where(batch.label_mask > 0, np.inf, 0.0).astype(np.float32)
    )
    state, metrics = update(state, None, PrmBatch(bad), KEY)
    assert metrics["nonfinite"] == 1
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state), before)


def test_adapters_learn_on_a_base_that_stays():
    builder = StepBuilder(tiny.tokenizer(), None, (64,))
    batch, head = PrmBatch(_batch(builder)[-1]), "two_class"
    base = heads.init_prm(jax.random.key(1), tiny.backbone(DECODER.config), 16, head)
    before = jax.tree.map(np.array, base)
    adapters, tx = lora.LoraConfig(2, 4.0), optax.adam(1e-2)
    update = make_prm_update(DECODER, head, CROSS_ENTROPY, tx, adapters=adapters)
    # Copies: the head of both trees is the same, and the update donates its state.
    trained = jax.tree.map(lambda x: x + 0, lora.player(KEY, base, adapters))
    state, losses = learner.start(trained, tx), []
    for _ in range(12):
        state, metrics = update(state, base, batch, KEY)
        losses.append(float(metrics["prm/loss"]))
    whole = lora.merged(base, state.params, adapters)
    args = (batch.rows, DECODER, head, CROSS_ENTROPY, KEY)
    start, end = (float(labels_loss(p, None, *args)[0]) for p in (base, whole))
    assert losses[0] == pytest.approx(start, rel=1e-5)
    assert end < losses[-1] < losses[0] - 0.05
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, base), before)


def test_a_reference_holds_the_prm_back():
    builder = StepBuilder(tiny.tokenizer(), None, (64,))
    batch = _batch(builder)[-1]
    make = lambda seed: heads.init_prm(  # noqa: E731
        jax.random.key(seed), tiny.backbone(DECODER.config), 16, "two_class"
    )
    held = PrmObjective("cross_entropy", beta=1.0)
    args = (batch, DECODER, "two_class")
    plain, metrics = labels_loss(make(1), None, *args, CROSS_ENTROPY, KEY)
    assert "kl" not in metrics
    same, metrics = labels_loss(make(1), make(1), *args, held, KEY)
    assert float(metrics["kl"]) == pytest.approx(0, abs=1e-6)
    assert float(same) == pytest.approx(float(plain), abs=1e-5)
    far, metrics = labels_loss(make(1), make(2), *args, held, KEY)
    assert float(far) - float(plain) == pytest.approx(float(metrics["kl"]), rel=1e-3)
    assert float(metrics["kl"]) > 1e-4
