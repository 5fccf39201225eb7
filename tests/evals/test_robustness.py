"""A fresh attacker against a frozen R: what is reported, and who learns."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.stats
import tiny_game

from aprm_jax.evals import robustness
from aprm_jax.game.rounds import Rounds
from aprm_jax.oracle.verdict import Label
from aprm_jax.training.step_log import StepOutput

WRONG, RIGHT = Label.INCORRECT, Label.CORRECT
POINT = SimpleNamespace(situation=None)


def _played(*replies: tuple[int, Label, float, int], groups: int = 3):
    """A round of (situation, verdict, R's log-odds, count) each."""
    return SimpleNamespace(
        prompts=[POINT] * groups,
        perturbations=[
            SimpleNamespace(
                group=group,
                count=count,
                verdict=SimpleNamespace(label=label, kind="sign", reason=""),
                situation=SimpleNamespace(question="1 + 2", prefix=(), step="3"),
                reply=SimpleNamespace(text="4"),
            )
            for group, label, _, count in replies
        ],
        log_odds=np.array([odds for _, _, odds, _ in replies], np.float32),
    )


# Three situations: a wrong one believed, one not, none wrong.
SEARCHABLE = _played(
    (0, WRONG, -4.0, 1),
    (0, WRONG, 0.5, 1),
    (0, RIGHT, 9.0, 1),
    (1, WRONG, -0.1, 1),
    (1, Label.UNDECIDABLE, 9.0, 1),  # the oracle cannot tell
    (1, RIGHT, 9.0, 1),
    (2, RIGHT, 9.0, 1),
)


def test_both_rates_are_of_the_same_replies_summed(monkeypatch):
    """Rounds whose rates are known: sums of replies, never a mean of rounds' rates."""
    trained, probed = [], []

    def step_fn(self, state, step, timer):
        trained.append(step)
        return StepOutput(state, {"game/fool_rate": 0.5}, None)

    def play(self, state, step, timer, group_size=0):
        if group_size:
            return SEARCHABLE
        probed.append(step)
        late = len(probed) > robustness.PROBED
        wrong = 8 if len(probed) % 2 else 2  # of the round's ten replies
        passed = 4 * wrong // 10 if late and wrong > 5 else 0
        return _played(
            (0, WRONG, 1.0, passed),
            (1, WRONG, -1.0, wrong - passed),
            (2, RIGHT, 1.0, 1),
            (2, Label.UNDECIDABLE, 0.0, 9 - wrong),
        )

    monkeypatch.setattr(Rounds, "step_fn", step_fn)
    monkeypatch.setattr(Rounds, "play", play)
    monkeypatch.setattr(robustness, "PROBED", 4)
    seen = []
    out = robustness.attack(
        tiny_game.arena(),
        tiny_game.game_config(updates=7),
        generator=tiny_game.generator(),
        prm=tiny_game.prm(),
        head="token",
        seed=1,
        progress=lambda step, rates: seen.append((step, rates)),
    )
    assert out["start_fool_rate"] == 0.0
    assert out["fool_rate"] == pytest.approx(6 / 20)
    assert out["success_rate"] == pytest.approx(6 / 40)
    assert out["still_correct_rate"] == pytest.approx(0.1)
    assert probed[:4] == probed[4:]  # the same problems before and after
    assert trained == [*range(7)] and not set(trained) & set(probed)
    assert out["searched_fool_rate"] == 0.5
    assert seen == [(step, {"game/fool_rate": 0.5}) for step in range(1, 8)]


def test_nothing_wrong_is_no_rate(monkeypatch):
    played = _played((0, RIGHT, 1.0, 2))
    monkeypatch.setattr(Rounds, "play", lambda *args, group_size=0: played)
    monkeypatch.setattr(
        Rounds, "step_fn", lambda self, state, *args: StepOutput(state, {}, None)
    )
    out = robustness.attack(
        tiny_game.arena(),
        tiny_game.game_config(updates=1),
        generator=tiny_game.generator(),
        prm=tiny_game.prm(),
        head="token",
        seed=1,
    )
    assert np.isnan(out["fool_rate"]) and np.isnan(out["start_fool_rate"])
    assert np.isnan(out["searched_fool_rate"])
    assert out["success_rate"] == 0.0


def _siege(fooled, wrong, accepted) -> robustness.Siege:
    """One whose second of two probes is the stronger one."""
    none = np.zeros(len(wrong), np.int64)
    probes = [
        robustness.Probe(none + 9, np.array(wrong), np.array(counts), none, {})
        for counts in (none, fooled)
    ]
    return robustness.Siege([0, 50], probes, None, np.array(accepted), 3, False)


@pytest.mark.parametrize(
    ("fooled", "wrong", "accepted", "score"),
    [
        ([1, 0], [2, 2], [True, True], 2 * 0.75 / 1.75),  # caught 0.75, all accepted
        ([0, 0], [2, 2], [True, False], 2 * 0.5 / 1.5),
        ([0, 0], [2, 2], [False, False], 0.0),  # refuses everything
        ([2, 2], [2, 2], [True, True], 0.0),  # accepts everything
        ([0, 0], [2, 2], [True, True], 1.0),
        ([0, 0], [0, 0], [True, True], np.nan),  # the attacker had nothing to show
    ],
)
def test_the_score_is_the_harmonic_mean_of_caught_and_accepted(
    fooled, wrong, accepted, score
):
    siege = _siege(fooled, wrong, accepted)
    found = robustness.robustness_score(siege, resamples=200)
    np.testing.assert_allclose(found.mean, score)
    if not np.isnan(score):
        assert siege.probes[siege.strongest].fool_rate == sum(fooled) / sum(wrong)
        assert found.low <= score <= found.high


def test_intervals_are_over_situations_not_over_replies():
    few = robustness.Probe(
        *(np.array(x) for x in ([100, 100], [100, 100], [100, 0], [0, 0])), {}
    )
    interval = few.interval(400)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("fooled", [0, 1])
def test_a_rate_of_none_or_all_is_as_sure_as_that_many_situations(fooled):
    wrong = np.array([6] * 30 + [0] * 10)
    probe = robustness.Probe(wrong + 1, wrong, fooled * wrong, 1 + 0 * wrong, {})
    exact = scipy.stats.binomtest(30 * fooled, 30).proportion_ci(0.95)
    found = probe.interval(50)
    assert (found.mean, found.low, found.high) == pytest.approx((fooled, *exact))


def test_a_score_of_shares_of_none_or_all_is_no_surer_than_they_are():
    none, all_ = np.zeros(240, int), np.ones(240, bool)
    probe = robustness.Probe(none + 8, none + 6, none, none + 2, {})
    low = scipy.stats.binomtest(240, 240).proportion_ci(0.95).low
    sure = robustness.Siege([0], [probe], None, all_, 1, False)
    found = robustness.robustness_score(sure, 100)
    # Both shares are at least that, and so is their harmonic mean.
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, low, 1.0))
    half = robustness.Siege([0], [probe], None, np.arange(240) < 120, 1, False)
    found = robustness.robustness_score(half, 100)
    right = scipy.stats.binomtest(120, 240).proportion_ci(0.95)
    ends = 2 * low * right.low / (low + right.low), 2 * right.high / (1 + right.high)
    assert (found.mean, found.low, found.high) == pytest.approx((2 / 3, *ends))


def test_a_siege_measures_along_its_budget_and_ends_there(monkeypatch):
    asked, of_round = [], [30.0]

    def step_fn(self, state, step, timer):
        asked.append(step)
        return StepOutput(state, {"game/oracle_calls": of_round[0]}, None)

    monkeypatch.setattr(Rounds, "step_fn", step_fn)
    monkeypatch.setattr(Rounds, "play", lambda *args, group_size=0: SEARCHABLE)
    monkeypatch.setattr(robustness, "_accepted", lambda *args: np.ones(3, bool))

    def besiege(**options):
        asked.clear()
        return robustness.besiege(
            tiny_game.arena(),
            tiny_game.game_config(groups=4, group_size=10),
            generator=tiny_game.generator(),
            prm=tiny_game.prm(),
            head="token",
            seed=1,
            **options,
        )

    siege = besiege(budget=200, points=2, situations=5)
    assert list(siege.calls) == [0, 120, 210] and siege.rounds == len(asked) == 7
    assert len(siege.probes) == 3 and not siege.diverged
    assert siege.searched is not None and siege.searched.searched_rate == 0.5
    assert len(siege.probes[0].wrong) == 2 * 3  # two rounds of three situations
    # One that repeats itself asks for less than it may, and is given up on.
    of_round[0] = 2.0
    siege = besiege(budget=400, points=1, situations=1)
    assert len(asked) == 4 * 10 and list(siege.calls) == [0, 80]


def test_an_attacker_that_diverges_is_no_result():
    """The first step ruins the parameters, and later ones are not made."""
    out = robustness.attack(
        tiny_game.arena(),
        tiny_game.game_config(updates=3, warmup=0, generator_learning_rate=1e38),
        generator=tiny_game.generator(),
        prm=tiny_game.prm(),
        head="token",
        seed=2,
    )
    assert out["diverged"] == 1.0
    for name in ("fool_rate", "success_rate", "searched_fool_rate"):
        assert np.isnan(out[name])
    assert 0.0 <= out["start_success_rate"] <= 1.0


def test_the_attacker_learns_and_its_victim_does_not(monkeypatch):
    states = []
    play = Rounds.step_fn

    def step_fn(self, state, step, timer):
        states.append(jax.tree.map(np.array, state))
        output = play(self, state, step, timer)
        states.append(jax.tree.map(np.array, output.state))
        return output

    monkeypatch.setattr(Rounds, "step_fn", step_fn)
    generator, prm = tiny_game.generator(), tiny_game.prm()
    start = jax.tree.map(np.array, (generator, prm))
    out = robustness.attack(
        tiny_game.arena(),
        tiny_game.game_config(updates=2, epochs=2),
        generator=generator,
        prm=prm,
        head="token",
        seed=5,
    )
    # Both players outlive the attack, for the next R that is compared.
    jax.tree.map(np.testing.assert_array_equal, (generator, prm), start)
    jax.tree.map(np.testing.assert_array_equal, states[-1].game.prm.params, start[1])
    moved = jax.tree.map(
        lambda a, b: np.any(a != b), states[-1].game.generator.params, start[0]
    )
    assert any(jax.tree.leaves(moved))
    assert states[-1].replay.size == 0
    assert 0.0 <= out["still_correct_rate"] <= 1.0
