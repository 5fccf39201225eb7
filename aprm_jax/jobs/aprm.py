"""The adversarial game, or the same with a frozen Generator."""

from __future__ import annotations

import json

from aprm_jax.game.rounds import GameConfig, Rounds
from aprm_jax.game.update import GameState
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.prm import initial_prm
from aprm_jax.jobs.spent import Spent
from aprm_jax.models.lora import LoraConfig
from aprm_jax.theory.bounds import regulariser_warning
from aprm_jax.training.lines import LineLog
from aprm_jax.training.loop import run_loop

PERTURBATIONS = "perturbations.jsonl"


def run(context: Context) -> dict[str, float]:
    """Plays the game; saves R as `model/` and G as `generator/model/`."""
    c = context.config
    generator, _ = context.of("generator").load(
        c.game.generator_from, "game.generator_from", "generator"
    )
    prm = initial_prm(context.of("prm"), c.game.prm_from, "game.prm_from", c.prm.head)
    config = GameConfig.of(c.game, lora=LoraConfig.of(c.lora))
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
    samples = LineLog(context.directory / PERTURBATIONS)
    rounds = Rounds(
        context.arena,
        config,
        generator=generator,
        prm=prm,
        head=c.prm.head,
        seed=c.seed,
        train_generator=not c.game.freeze_generator,
        sink=lambda row: samples.append(json.dumps(row)),
    )
    state = run_loop(
        rounds.state,
        rounds.step_fn,
        workdir=context.directory,
        config=context.loop_config(c.game.updates),
        name=context.stage,
        samples=samples,
    )
    context.spent.add(Spent.of_metrics(context.directory, "game"))
    trained_generator, trained_prm = rounds.merged_players(state)
    context.of("generator").save(
        trained_generator, "generator", folder="generator/model"
    )
    context.of("prm").save(trained_prm, "prm", c.prm.head)
    if config.lora is not None:  # alone too, for `export.format="peft"`
        _save_adapters(context, state.game)
    return {}


def _save_adapters(context: Context, game: GameState) -> None:
    c = context.config
    context.of("generator").save(
        game.generator.params,
        "generator",
        folder="generator/adapter",
        on=c.game.generator_from,
    )
    context.of("prm").save(
        game.prm.params, "prm", c.prm.head, folder="adapter", on=c.game.prm_from
    )
