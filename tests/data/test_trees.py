"""Rows that branch: every step reads as in a row of its own solution alone."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
import tiny

from aprm_jax.data.epochs import PackedEpochs
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.rows import TooLongError, pack
from aprm_jax.data.steps import StepBuilder
from aprm_jax.data.trees import TreeRow, steps_that_fit, tree_rows
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder

NAN = math.nan
DECODER = Decoder(tiny.decoder(num_layers=2))
# Two questions; candidates beside a path, a fork of forks, one solution twice.
SOLUTIONS = (
    ("1 + 2 * 3 =", ("1 + 6", "7")),
    ("1 + 2 * 3 =", ("1 + 6", "8 - 1", "7")),
    ("1 + 2 * 3 =", ("1 + 6", "8 - 1", "9", "5 + 4")),
    ("1 + 2 * 3 =", ("3 * 3", "9")),
    ("( 4 + 5 ) * 2 =", ("9 * 2", "1 8")),
    ("1 + 2 * 3 =", ("1 + 6", "7")),
    ("( 4 + 5 ) * 2 =", ("9 * 2", "1 9")),
)
PLAIN = ("7 - 7 =", ("0",))
# A step by what leads to it: the question, and the steps up to and with itself.
Node = tuple[str, tuple[str, ...]]
NODES = {(q, steps[: k + 1]) for q, steps in SOLUTIONS for k in range(len(steps))}


def _builder(window=None, stride=0, length=64) -> StepBuilder:
    return StepBuilder(tiny.tokenizer(), window, (length,), stride)


def _tree_rows(
    builder, solutions, *, labels=None, **options
) -> list[tuple[TreeRow, list[Node]]]:
    """The rows of some solutions, and what each of their nodes is."""
    tree, known = PrefixTree(), {}
    for question, steps in solutions:
        for node in tree.add(question, steps):
            if labels and tree.steps(node) in labels:
                known[node] = labels[tree.steps(node)]
    found = tree_rows(builder, tree, labels=known, **options)
    return [(row, [tree.steps(node) for node in row.nodes]) for row in found]


@jax.jit
def _read(params, batch):
    return (
        heads.token_logprobs(DECODER, params["backbone"], batch),
        heads.step_logits(DECODER, params, batch, "token"),
        heads.step_logits(
            DECODER, params | {"head": params["class"]}, batch, "two_class"
        ),
    )


def _params():
    backbone = tiny.backbone(DECODER.config)
    prm = heads.init_prm(jax.random.key(1), backbone, 16, "token")
    return prm | {"class": heads.init_class_head(jax.random.key(2), 16)}


def _readings(params, batch, rows) -> dict:
    """Node -> what the model says of its step: log-probabilities and verdicts."""
    logprobs, tokens, classes = (np.asarray(a) for a in _read(params, batch))
    return {
        node: np.array(
            [*logprobs[b, np.flatnonzero(step_ids == k)], tokens[b, k], classes[b, k]]
        )
        for b, (step_ids, nodes) in enumerate(rows)
        for k, node in enumerate(nodes)
    }


@pytest.mark.parametrize("stride", [0, 12])
@pytest.mark.parametrize("length", [24, 64])
def test_a_step_of_a_tree_reads_as_in_its_solution_alone(length, stride):
    builder, params = _builder(stride=stride, length=64), _params()
    found = _tree_rows(builder, SOLUTIONS, length=length, max_steps=16)
    assert {node for _, nodes in found for node in nodes} == NODES
    assert sum(len(nodes) for _, nodes in found) == len(NODES)  # each once
    assert max(len(tree.row) for tree, _ in found) <= length
    assert len(found) == 2 if length == 64 else len(found) > 3  # of the short ones
    # Packed with each other and with a row that does not branch; first fit keeps no
    # order, so steps are found again by their labels.
    nodes = [*NODES, PLAIN]
    numbered = _tree_rows(
        builder,
        SOLUTIONS,
        length=length,
        max_steps=16,
        labels={node: float(k) for k, node in enumerate(nodes)},
    )
    plain = builder.solution(*PLAIN, [len(nodes) - 1.0])
    packed = pack([plain, *(tree.row for tree, _ in numbered)], 64)
    rows = [(row.step_ids, [nodes[int(k)] for k in row.labels]) for row in packed]
    got = _readings(params, builder.collate(packed, max_steps=24), rows)
    alone = [*dict.fromkeys(SOLUTIONS), PLAIN]
    single = [builder.solution(q, steps) for q, steps in alone]
    expected = _readings(
        params,
        builder.collate(single, length=64, max_steps=24),
        [
            (row.step_ids, [(q, steps[: k + 1]) for k in range(len(steps))])
            for row, (q, steps) in zip(single, alone, strict=True)
        ],
    )
    assert got.keys() == expected.keys()
    for node, values in expected.items():
        np.testing.assert_allclose(got[node], values, atol=2e-4, err_msg=str(node))


def test_a_step_sees_what_leads_to_it_and_nothing_else():
    [(tree, nodes)] = _tree_rows(_builder(), SOLUTIONS[:4], length=64, max_steps=16)
    row = tree.row
    assert row.ends is not None
    for k, (question, steps) in enumerate(nodes):
        last = int(np.flatnonzero(row.step_ids == k)[-1])
        seen = [t for t in range(last + 1) if row.ends[t] >= last]
        alone = _builder().solution(question, steps)
        assert row.tokens[seen].tolist() == alone.tokens.tolist()
        assert row.positions[seen].tolist() == alone.positions.tolist()


def test_labels_stand_at_their_steps_once():
    labels = {node: k / 16 for k, node in enumerate(sorted(NODES))}
    del labels[("1 + 2 * 3 =", ("1 + 6", "7"))]
    for branch in (True, False):
        found = _tree_rows(
            _builder(),
            SOLUTIONS,
            length=64,
            max_steps=8,
            labels=labels,
            branch=branch,
        )
        pairs = [
            (node, float(label))
            for tree, nodes in found
            for node, label in zip(nodes, tree.row.labels, strict=True)
            if not np.isnan(label)
        ]
        assert len(pairs) == len(labels) and dict(pairs) == labels


@pytest.mark.parametrize("window", [None, 1])
def test_without_branches_each_solution_is_a_row(window):
    builder = _builder(window)
    found = _tree_rows(
        builder, SOLUTIONS, length=64, max_steps=16, branch=window is not None
    )
    leaves = {steps for _, steps in SOLUTIONS}
    assert {nodes[-1][1] for _, nodes in found} == leaves and len(found) == 6
    for tree, nodes in found:
        question, steps = nodes[-1]
        expected = builder.solution(question, steps)
        assert tree.row.ends is None
        np.testing.assert_array_equal(tree.row.tokens, expected.tokens)
        np.testing.assert_array_equal(tree.row.step_ids, expected.step_ids)


@pytest.mark.parametrize("branch", [True, False])
def test_what_does_not_fit_is_left_out_with_what_follows_it(branch):
    long = " + ".join("123456789")  # 17 tokens and <step>
    solutions = [
        ("1 + 1", ("2", long, "3")),
        ("1 + 1", ("2", "4", "5")),
        (f"{long} {long}", ("2",)),
    ]
    found = _tree_rows(_builder(), solutions, length=20, max_steps=16, branch=branch)
    steps = {node[1] for _, nodes in found for node in nodes}
    assert steps == {("2",), ("2", "4"), ("2", "4", "5")}
    assert steps_that_fit(_builder(), "1 + 1", ("2", long, "3"), 20) == 1
    assert steps_that_fit(_builder(), "1 + 1", ("2", "4", "5"), 20) == 3
    assert steps_that_fit(_builder(), long + long, ("2", "4"), 20) == 0
    few = _tree_rows(_builder(), solutions, length=20, max_steps=2, branch=branch)
    assert max(len(nodes) for _, nodes in few) == 2
    assert {node[1] for _, nodes in few for node in nodes} == steps - (
        set() if branch else {("2", "4", "5")}
    )


def test_a_sliding_window_cannot_read_branches():
    config = tiny.decoder(sliding_window=4, layer_pattern="l")
    [(tree, _)] = _tree_rows(_builder(), SOLUTIONS[:2], length=64, max_steps=8)
    batch = _builder().collate([tree.row])
    with pytest.raises(ValueError, match="sliding window"):
        heads.token_logprobs(Decoder(config), tiny.backbone(config), batch)


def _numbered(count: int):
    builder = _builder()
    rng = np.random.default_rng(0)
    return [
        builder.step("1 " * int(n), (), "2", k / count)
        for k, n in enumerate(rng.integers(1, 20, count))
    ]


def test_epochs_hold_every_row_once_in_another_order_each():
    rows = _numbered(50)
    epochs = PackedEpochs(rows, 40, 6, seed=(3,), window=16)
    labels: list[float] = []
    start = 0
    while len(labels) < 100:
        [row] = epochs.take(start, 1)
        assert len(row) <= 40 and len(row.labels) <= 6
        labels += row.labels.tolist()
        start += 1
    assert len(labels) == 100
    first, second = labels[:50], labels[50:]
    assert sorted(first) == sorted(second) == sorted(r.labels[0] for r in rows)
    assert first != second
    other = PackedEpochs(rows, 40, 6, seed=(4,), window=16)
    assert other.take(0, 5)[0].labels.tolist() != epochs.take(0, 5)[0].labels.tolist()


def test_packed_rows_are_found_again_by_number():
    rows = _numbered(30)
    straight = PackedEpochs(rows, 40, 6, seed=(3,), window=16).take(0, 40)
    fresh = PackedEpochs(rows, 40, 6, seed=(3,), window=16)
    again = [*fresh.take(25, 15)]  # later epochs first: a restored run begins there
    again = [*fresh.take(0, 25), *again]
    for a, b in zip(straight, again, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.labels, b.labels)
    with pytest.raises(ValueError, match="no rows"):
        PackedEpochs([], 40, 6, seed=(3,))
    with pytest.raises(TooLongError):
        PackedEpochs(rows, 8, 6, seed=(3,)).take(0, 1)
