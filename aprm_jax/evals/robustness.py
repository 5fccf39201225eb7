"""Evaluator of robustness: how often a fresh attacker fools a frozen R."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aprm_jax.game.rounds import Arena, GameConfig, Rounds
from aprm_jax.training.metrics import to_scalar
from aprm_jax.training.timing import PhaseTimer

SET = "robustness"
LAST_ROUNDS = 10  # the attacker's rates are means over so many rounds at its end
RATES = ("game/fool_rate", "game/success_rate", "game/still_correct_rate")


def attack(
    arena: Arena,
    config: GameConfig,
    *,
    generator: Any,
    prm: Any,
    reading: str,
    seed: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains a fresh attacker for `config.updates` rounds against a frozen R.

    Args:
      arena: where it is played.
      config: the attacker's game; its `updates` is the budget.
      generator: the attacker's start, the same for every R that is compared.
      prm: the R under attack; it does not learn.
      reading: how R reads its verdict.
      seed: of the attack; one that R was not trained with.
      progress: called with each round's number and rates.

    Returns:
      `fool_rate` (share of wrong perturbations that R calls correct, at 0.5),
      `success_rate` (share of all perturbations that are wrong and pass), each over the
      last rounds, and `start_*`, the same over the first round, before any training.
    """
    rounds = Rounds(
        arena,
        config,
        generator=generator,
        prm=prm,
        reading=reading,
        seed=seed,
        train_prm=False,
    )
    state, timer, history = rounds.state, PhaseTimer(), []
    for step in range(config.updates):
        output = rounds.step_fn(state, step, timer)
        state = output.state
        rates = {
            name: to_scalar(output.metrics[name])
            for name in RATES
            if name in output.metrics
        }
        history.append(rates)
        if progress:
            progress(step + 1, rates)
    out = {}
    for name in RATES:
        short = name.removeprefix("game/")
        last = [h[name] for h in history[-LAST_ROUNDS:] if name in h]
        out[short] = float(np.mean(last)) if last else float("nan")
        out[f"start_{short}"] = history[0].get(name, float("nan"))
    return out
