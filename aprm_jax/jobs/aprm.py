"""The adversarial game, or the same with a frozen Generator."""

from __future__ import annotations

import json
from pathlib import Path

from aprm_jax.game.matrix import regulariser_warning
from aprm_jax.game.rounds import GameConfig, Rounds
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.prm import initial_prm
from aprm_jax.training.loop import run_loop


def run(context: Context) -> dict[str, float]:
    """Plays the game; saves R as `model/` and G as `generator/model/`."""
    c = context.config
    generator, _ = context.load(
        c.game.generator_from, "game.generator_from", "generator"
    )
    prm = initial_prm(context, c.game.prm_from, "game.prm_from", c.prm.reading)
    config = GameConfig.of(c.game)
    pay = config.rewards
    warning = regulariser_warning(
        config.beta_generator,
        config.eta_generator,
        config.beta_prm,
        config.eta_prm,
        (pay.generator_fooled, pay.generator_caught, pay.generator_still_correct),
        (pay.prm_wrong, pay.prm_right),
    )
    if warning:
        log.warning("%s: %s", context.stage, warning)
    samples = context.directory / "perturbations.jsonl"
    rounds = Rounds(
        context.arena,
        config,
        generator=generator,
        prm=prm,
        reading=c.prm.reading,
        seed=c.seed,
        train_generator=not c.game.freeze_generator,
        sink=lambda row: _append(samples, row),
    )
    state = run_loop(
        rounds.state,
        rounds.step_fn,
        workdir=context.directory,
        config=context.loop_config(c.game.updates),
        name=context.stage,
    )
    context.save(state.game.generator, "generator", folder="generator/model")
    context.save(state.game.prm, "prm", c.prm.reading)
    return {}


def _append(path: Path, row: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
