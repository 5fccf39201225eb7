"""Evaluator of robustness: how often a fresh attacker fools a frozen R."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from aprm_jax.game.rounds import Arena, GameConfig, LoopState, Rounds
from aprm_jax.training.metrics import to_scalar
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.hard import hardest

SET, SEARCHED_RATE = "robustness", "searched_fool_rate"
RATES = ("game/fool_rate", "game/success_rate", "game/still_correct_rate")
PROBED = 5  # rounds that the attacker is measured on, before and after; no training
# What a probe adds up: of all replies, so many are wrong, wrong and believed, right.
_SHARES = ("game/incorrect_rate", "game/success_rate", "game/still_correct_rate")
SEARCHED = 64  # replies to a situation that a searching attacker takes the best of
_PROBES = 1 << 20  # the first of these rounds: far behind the last of any training


def attack(
    arena: Arena,
    config: GameConfig,
    *,
    generator: Any,
    prm: Any,
    head: str,
    seed: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains a fresh attacker for `config.updates` rounds against a frozen R.

    Args:
      arena: where it is played.
      config: the attacker's game; its `updates` is the budget.
      generator: the attacker's start, the same for every R that is compared.
      prm: the R under attack; it does not learn.
      head: R's, of `heads.HEADS`.
      seed: of the attack; one that R was not trained with.
      progress: called with each round's number and rates.

    Returns:
      `fool_rate` (share of wrong perturbations that R calls correct, at 0.5),
      `success_rate` (share of all perturbations that are wrong and pass) and
      `still_correct_rate`, after the training, and `start_*`, the same before it: both
      of the same problems, far behind those that it trains on, over all replies to
      them. `searched_fool_rate` is what the attacker achieves when it searches as
      well: the share of situations where R believes one of its `SEARCHED` replies that
      are wrong, among those where any is.
      NaN for a `fool_rate` where nothing was wrong. `diverged` is 1 where the last
      update of the attacker was not finite: the rates after the training are NaN then.
    """
    rounds = Rounds(
        arena,
        config,
        generator=generator,
        prm=prm,
        head=head,
        seed=seed,
        train_prm=False,
    )
    state, timer = rounds.state, PhaseTimer()
    before, diverged = _probe(rounds, state), False
    for step in range(config.updates):
        output = rounds.step_fn(state, step, timer)
        state = output.state
        diverged = to_scalar(output.metrics.get("nonfinite", 0.0)) > 0
        if progress:
            rates = {n: v for n, v in output.metrics.items() if n in RATES}
            progress(step + 1, {n: to_scalar(v) for n, v in rates.items()})
    start = {f"start_{name}": rate for name, rate in before.items()}
    if diverged:  # a broken attacker's replies say nothing about R
        after = dict.fromkeys((*before, SEARCHED_RATE), math.nan)
    else:
        after = _probe(rounds, state) | {SEARCHED_RATE: _searched(rounds, state)}
    return after | start | {"diverged": float(diverged)}


def _probe(rounds: Rounds, state: LoopState) -> dict[str, float]:
    """Rates of G as it is, over rounds that nobody learns from."""
    timer, totals = PhaseTimer(), dict.fromkeys(_SHARES, 0.0)
    for step in range(_PROBES, _PROBES + PROBED):
        metrics = rounds.play(state, step, timer).metrics
        for name in _SHARES:  # every round has as many replies
            totals[name] += metrics[name] / PROBED
    wrong, passed, right = (totals[name] for name in _SHARES)
    return {
        "fool_rate": passed / wrong if wrong else math.nan,
        "success_rate": passed,
        "still_correct_rate": right,
    }


def _searched(rounds: Rounds, state: LoopState) -> float:
    """How often the best of many wrong replies passes, where there is a wrong one."""
    best: list[float] = []
    for step in range(_PROBES, _PROBES + PROBED):
        played = rounds.play(state, step, PhaseTimer(), group_size=SEARCHED)
        odds: dict[int, float] = {}
        for i in hardest(played.rows, played.log_odds, len(played.rows)):
            odds.setdefault(played.perturbations[i].group, float(played.log_odds[i]))
        best += odds.values()
    return float(np.mean([odds >= 0.0 for odds in best])) if best else math.nan
