"""A fresh attacker against a frozen R: what is reported, and who learns."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny_game

from aprm_jax.evals import robustness
from aprm_jax.game.rounds import Rounds
from aprm_jax.training.loop import StepOutput


def test_rates_are_of_the_first_and_the_last_rounds(monkeypatch):
    """Rounds whose rates are known; in some of them nothing was incorrect."""

    def step_fn(self, state, step, timer):
        metrics = {"game/success_rate": step / 100, "game/still_correct_rate": 0.5}
        if step % 2:
            metrics["game/fool_rate"] = np.float32(step / 10)
        return StepOutput(state, metrics, None)

    monkeypatch.setattr(Rounds, "step_fn", step_fn)
    monkeypatch.setattr(robustness, "LAST_ROUNDS", 4)
    seen = []
    out = robustness.attack(
        tiny_game.arena(),
        tiny_game.game_config(updates=7),
        generator=tiny_game.generator(),
        prm=tiny_game.prm(),
        reading="token",
        seed=1,
        progress=lambda step, rates: seen.append((step, sorted(rates))),
    )
    assert out["success_rate"] == pytest.approx(np.mean([3, 4, 5, 6]) / 100)
    assert out["fool_rate"] == pytest.approx((0.3 + 0.5) / 2)
    assert out["start_success_rate"] == 0.0 and np.isnan(out["start_fool_rate"])
    assert out["still_correct_rate"] == out["start_still_correct_rate"] == 0.5
    assert [step for step, _ in seen] == [*range(1, 8)]
    assert "game/fool_rate" not in seen[0][1] and "game/fool_rate" in seen[1][1]


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
        reading="token",
        seed=5,
    )
    # Both players outlive the attack, for the next R that is compared.
    jax.tree.map(np.testing.assert_array_equal, (generator, prm), start)
    jax.tree.map(np.testing.assert_array_equal, states[-1].game.prm, start[1])
    moved = jax.tree.map(
        lambda a, b: np.any(a != b), states[-1].game.generator, start[0]
    )
    assert any(jax.tree.leaves(moved))
    assert states[-1].replay.size == 0
    assert 0.0 <= out["still_correct_rate"] <= 1.0
