"""What a PRM without an adversary learns from, with hard rows and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_game

from aprm_jax.config import default_config, set_field
from aprm_jax.game.rollouts import situations, static_rows
from aprm_jax.jobs import prm
from aprm_jax.jobs.context import Context
from aprm_jax.verifiers.monte_carlo import LabelledStep
from aprm_jax.verifiers.scoring import Scorer, prm_scorer

SIZE = 16
BAD = [LabelledStep("1 + 2 * 3", (), f"{k} + 6", 0.0, "") for k in range(2, 9)]
GOOD = [LabelledStep("1 + 2 * 3", (), "1 + 6", 1.0, "")]


def _context(share: float) -> Context:
    config = default_config()
    set_field(config, "prm.hard_share", share)
    set_field(config, "prm.hard_pool", 40)
    return Context(config, Path("nowhere"), "prm")


def _ids(rows):
    return [row.tokens.tolist() for row in rows]


def test_without_a_hard_share_as_many_corruptions_are_judged_as_are_learned_from():
    context = _context(0.0)
    clean = prm._clean(context, 3, SIZE)
    wrong, right, count = prm._labelled(context, 3, SIZE, ())
    first = 3 * SIZE + SIZE // 2
    points = situations(context.domain, range(first, 5 * SIZE), 0)
    rng = np.random.default_rng([0, 31, 3])
    domain, size = context.domain, SIZE // 2
    expected = static_rows(points, domain, domain.oracle, context.builder, rng, size)
    assert (_ids(wrong), right, count) == (_ids(expected), [], SIZE // 2)
    assert len(clean) == SIZE // 2


@pytest.mark.parametrize("pool", [(), BAD, BAD + GOOD], ids=["static", "bad", "both"])
def test_with_one_there_are_as_many_candidates_as_the_config_says(pool):
    wrong, right, count = prm._labelled(_context(0.75), 3, SIZE, pool)
    assert len(wrong) == 40
    assert all(row.labels[0] == 0 for row in wrong)
    assert all(row.labels[0] == 1 for row in right)
    assert count + len(right) == SIZE // 2


def test_the_hard_share_is_what_this_prm_believes_most():
    builder = tiny_game.builder()
    scorer = Scorer(prm_scorer(tiny_game.DECODER, "token"), builder, max_steps=1)
    model = tiny_game.prm()
    rows = [builder.step(s.question, s.prefix, s.step, s.label) for s in BAD]
    logits = scorer.rows(model, dict(enumerate(rows)))
    order = sorted(range(len(rows)), key=lambda i: -logits[i][0])
    kept = prm._hardest(scorer, model, rows, 4, 0.5)
    rest = [i for i in range(len(rows)) if i not in order[:2]][:2]
    assert _ids(kept) == _ids([rows[i] for i in [*order[:2], *rest]])
