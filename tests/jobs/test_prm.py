"""What a PRM without an adversary learns from, with hard rows and without."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_game
import tiny_run

import aprm_jax
from aprm_jax.config import ConfigError, validate, with_fields
from aprm_jax.data.rows import TooLongError
from aprm_jax.game.batches import BatchSize
from aprm_jax.game.rollouts import situations, static_rows
from aprm_jax.jobs import prm
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.solvers.protocol import Solution
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.monte_carlo import LabelledStep
from aprm_jax.verifiers.scoring import Scorer, prm_scorer

SIZE = 16
BAD = [LabelledStep("1 + 2 * 3", (), f"{k} + 6", 0.0, "") for k in range(2, 9)]
GOOD = [LabelledStep("1 + 2 * 3", (), "1 + 6", 1.0, "")]


def _context(share: float) -> Context:
    config = tiny_run.config({"prm.hard_share": share, "prm.hard_pool": 40})
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


def test_a_batch_of_which_no_step_fits_is_explained():
    context = Context(tiny_run.config({"builder.buckets": (2,)}), Path("nowhere"), "p")
    batch_of = prm._batches(context, SIZE, BatchSize(), (), {})
    with pytest.raises(TooLongError, match=r"step 0: .*raise builder\.buckets"):
        batch_of(None, 0, PhaseTimer())


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


def _outcome(root: Path) -> Context:
    fields = {
        "stages": ("solver:sft", "orm:prm"),
        "prm.negatives": "outcome",
        "prm.head": "two_class",
        "prm.updates": 60,
        "prm.batch_size": 16,
        "prm.learning_rate": 1e-2,
        "prm.warmup": 2,
        "builder.window": 0,
        "builder.buckets": (64,),
        "builder.line_stride": 0,
        "model.d_model": 32,
        "model.num_layers": 1,
        "model.num_heads": 2,
        "model.num_kv_heads": 1,
        "model.d_ff": 64,
        "metrics.tensorboard": False,
    }
    return Context(validate(tiny_run.config(fields)), root, "orm")


def test_an_orm_learns_from_whole_solutions_half_of_them_wrong():
    context = _outcome(Path("nowhere"))
    assert prm._clean(context, 3, SIZE) == []
    long = ("1 + 6", "7")
    pool = [LabelledStep("1 + 2 * 3", long[:1], "7", 1.0, "outcome")]
    pool += [LabelledStep("1 + 2 * 3", long[:1], f"{k}", 0.0, "") for k in (4, 5, 9)]
    wrong, right, count = prm._labelled(context, 3, SIZE, pool)
    assert count == len(wrong) == len(right) == SIZE // 2
    assert all(row.labels.tolist() == [0.0] for row in wrong)
    whole = context.builder.step("1 + 2 * 3", long[:1], "7", 1.0)
    assert _ids(right) == [whole.tokens.tolist()] * len(right)
    # The whole solution is there to be read, and its last step alone is scored.
    assert len(whole) == len(context.builder.solution("1 + 2 * 3", long))
    assert (whole.step_ids >= 0).sum() == len(context.builder.encode("7")) + 1


def test_an_orm_learns_which_answers_are_right(tmp_path, monkeypatch):
    context = _outcome(tmp_path)
    solver = dataclasses.replace(context, stage="solver")
    solver.save(
        {"backbone": tiny.backbone(context.decoder_config, spread=1.0)}, "solver"
    )
    pool = [
        LabelledStep(f"{a} + {b}", (f"{b} + {a}",), last, float(last == "7"), "outcome")
        for a, b in ((3, 4), (5, 2), (6, 1))
        for last in ("7", "8", "4")
    ]
    monkeypatch.setattr(prm, "_pool", lambda context: pool)
    assert prm.run(context) == {"labels": 9, "wrong_labels": 6}
    orm = aprm_jax.PRM.load(tmp_path / "orm")
    assert (orm.spec.aggregation, orm.spec.window) == ("last", None)
    for question, first in (("3 + 4", "4 + 3"), ("6 + 1", "1 + 6")):
        found = orm.rank(question, [[first, "8"], [first, "7"], [first, "4"]])
        assert found[0].index == 1 and found[0].score > 0.8 > 0.2 > found[1].score


def test_what_an_orm_cannot_learn_from_is_said(tmp_path, monkeypatch):
    context = _outcome(tmp_path)
    for field, value, said in (
        ("builder.window", 1, "judges whole solutions: set builder.window=0 .*, not 1"),
        ("prm.negatives", "outcomes", "Did you mean 'outcome'"),
    ):
        config = with_fields(context.config, {field: value})
        with pytest.raises(ConfigError, match=said):
            validate(config)

    class Wrong:
        """Never arrives at an answer."""

        def solve(self, starts, count, key, **options):
            return [[Solution(q, ("1 + 1",), True)] * count for q, _ in starts]

    monkeypatch.setattr(prm, "open_solver", lambda *args: Wrong())
    with pytest.raises(
        JobError, match="none of the solver's 1600 finished samples has"
    ):
        prm._pool(context)
