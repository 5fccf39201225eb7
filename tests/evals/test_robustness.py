"""A fresh attacker against a frozen R: what is reported, and who learns."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_game

from aprm_jax.evals import robustness
from aprm_jax.game.rounds import Rounds
from aprm_jax.training.loop import StepOutput


def _searchable() -> SimpleNamespace:
    """Replies to three situations: a wrong one believed, one not, none wrong."""
    builder = tiny_game.builder()
    made = [  # group, label, R's log-odds
        (0, 0.0, -4.0),
        (0, 0.0, 0.5),
        (0, 1.0, 9.0),
        (1, 0.0, -0.1),
        (1, None, 9.0),  # the oracle cannot tell
        (1, 1.0, 9.0),
        (2, 1.0, 9.0),
    ]
    rows = [
        None if label is None else builder.step("1 + 2", (), f"{k}", label)
        for k, (_, label, _) in enumerate(made)
    ]
    found = [SimpleNamespace(group=group) for group, _, _ in made]
    odds = np.array([odds for *_, odds in made], np.float32)
    return SimpleNamespace(rows=rows, log_odds=odds, perturbations=found)


def test_both_rates_are_of_the_same_replies_summed(monkeypatch):
    """Rounds whose rates are known: sums of replies, never a mean of rounds' rates."""
    trained, probed = [], []

    def step_fn(self, state, step, timer):
        trained.append(step)
        return StepOutput(state, {"game/fool_rate": 0.5}, None)

    def play(self, state, step, timer, group_size=0):
        if group_size:
            return _searchable()
        probed.append(step)
        late = len(probed) > robustness.PROBED
        wrong = 0.8 if len(probed) % 2 else 0.2  # of the round's replies
        metrics = {
            "game/incorrect_rate": wrong,
            "game/success_rate": 0.4 * wrong if late and wrong > 0.5 else 0.0,
            "game/still_correct_rate": 0.1,
        }
        return SimpleNamespace(metrics=metrics)

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
    assert out["fool_rate"] == pytest.approx(0.4 * 1.6 / 2.0)
    assert out["success_rate"] == pytest.approx(0.4 * 1.6 / 4)
    assert out["still_correct_rate"] == pytest.approx(0.1)
    assert probed[:4] == probed[4:]  # the same problems before and after
    assert trained == [*range(7)] and not set(trained) & set(probed)
    assert out["searched_fool_rate"] == 0.5
    assert seen == [(step, {"game/fool_rate": 0.5}) for step in range(1, 8)]


def test_nothing_wrong_is_no_rate(monkeypatch):
    rates = dict.fromkeys(robustness._SHARES, 0.0)
    played = SimpleNamespace(
        metrics=rates, rows=[None], log_odds=np.ones(1), perturbations=[]
    )
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
