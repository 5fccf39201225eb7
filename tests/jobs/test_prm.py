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
from aprm_jax.jobs.spent import CountedOracle
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


def _batches(context: Context, pool=()):
    score = prm_scorer(context.decoder, context.config.prm.head)
    scorer = Scorer(score, context.builder, max_steps=1)
    return prm._batches(context, SIZE, BatchSize(), pool, {}, scorer)


def test_a_batch_of_which_no_step_fits_is_explained():
    context = Context(tiny_run.config({"builder.buckets": (2,)}), Path("nowhere"), "p")
    batch_of = _batches(context)
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


class _Half:
    """Solves every problem rightly but for the last step of each second solution.

    Attributes:
      drawn: steps, of all calls.
    """

    def __init__(self, problems):
        self.drawn, self._steps = 0, {p.question: p.steps for p in problems}

    def solve(self, starts, count, key, **options):
        return [
            [self._solution(question, prefix, k % 2 == 1) for k in range(count)]
            for question, prefix in starts
        ]

    def _solution(self, question: str, prefix, wrong: bool) -> Solution:
        steps = self._steps[question]
        steps = (*prefix, *steps[len(prefix) :]) if prefix != steps else steps
        whole = (*steps[:-1], f"{steps[-1]} + 1") if wrong else steps
        self.drawn += len(whole) - len(prefix)
        return Solution(question, whole, True, ((1,),) * (len(whole) - len(prefix)))


def _asked(negatives: str, share: float, monkeypatch) -> tuple:
    """What three updates learned from, and what was asked for them.

    Returns:
      Verdicts; steps that the solver drew; labelled steps of each update by source and
      by label; the wrong steps themselves.
    """
    fields = {
        "prm.negatives": negatives,
        "prm.hard_share": share,
        "prm.hard_pool": 24,
        "prm.pool_problems": 12,
        "prm.mc_completions": 3,
        "prm.updates": 3,
        "builder.window": int(negatives != "outcome"),
    }
    context = Context(tiny_run.small(fields), Path("nowhere"), "prm")
    domain = context.domain
    counted = CountedOracle(domain.oracle)
    monkeypatch.setattr(domain, "oracle", counted)
    solver = _Half([domain.train((1 << 40) + i) for i in range(12)])
    monkeypatch.setattr(prm, "open_solver", lambda *args: solver)
    pool = prm._pool(context) if negatives != "static" else ()
    batch_of = _batches(context, pool)
    model = tiny_game.prm()
    batches = [batch_of(model, step, PhaseTimer()) for step in range(3)]
    mask = [np.asarray(batch.rows.label_mask) > 0 for batch in batches]
    counts = [
        (
            int((np.asarray(b.source)[m] == 0).sum()),
            int((np.asarray(b.rows.labels)[m] < 0.5).sum()),
        )
        for b, m in zip(batches, mask, strict=True)
    ]
    monkeypatch.undo()
    return counted.calls, solver.drawn, counts, [b.rows.tokens for b in batches]


@pytest.mark.parametrize("negatives", ["oracle", "monte_carlo", "outcome"])
def test_hard_rows_of_samples_ask_for_nothing_more(negatives, monkeypatch):
    plain, mined = (_asked(negatives, share, monkeypatch) for share in (0.0, 0.75))
    assert mined[:3] == plain[:3]
    verdicts, drawn, counts, rows = mined
    assert drawn > 0 and (verdicts > 0) == (negatives == "oracle")
    clean = 0 if negatives == "outcome" else SIZE // 2
    assert [count for count, _ in counts] == [clean] * 3
    assert all(a.tolist() != b.tolist() for a, b in zip(plain[3], rows, strict=True))


def test_hard_rows_of_corruptions_are_of_a_pool_that_no_share_changes(monkeypatch):
    """It is drawn for them: a plain PRM, which has none, asks for less."""
    plain, some, all_ = (
        _asked("static", share, monkeypatch) for share in (0.0, 0.25, 1.0)
    )
    assert some[:3] == all_[:3]
    # 24 wrong ones an update beside 8; the few that came out right were judged too.
    assert 3 * 24 <= some[0] < 3 * 24 * 1.5
    assert 3 * 8 <= plain[0] < 3 * 8 * 1.5
    assert plain[1:3] == some[1:3] == (0, [(SIZE // 2, SIZE // 2)] * 3)


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
