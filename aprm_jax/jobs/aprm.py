"""The adversarial game, or the same with a frozen Generator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aprm_jax.config import ConfigError
from aprm_jax.config import game as schema
from aprm_jax.data.steps import RowFormat
from aprm_jax.game.config import GameConfig
from aprm_jax.game.explore import Explorer
from aprm_jax.game.rounds import Rounds
from aprm_jax.game.update import GameState
from aprm_jax.hf import pretrained
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.prm import initial_prm
from aprm_jax.jobs.spent import Spent
from aprm_jax.models.io import ModelSpec
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
    prm, spec = initial_prm(
        context.of("prm"), c.game.prm_from, "game.prm_from", c.prm.head
    )
    _check_targets(c.game, spec)
    arena = context.arena_of(spec)
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
        arena,
        config,
        generator=generator,
        prm=prm,
        head=c.prm.head,
        seed=c.seed,
        train_generator=not c.game.freeze_generator,
        sink=lambda row: samples.append(json.dumps(row)),
        explorer=_explorer(context),
    )
    if config.references == "int8":
        del generator, prm
        pretrained.forget_weights()
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
    reads = kept_of(context.of("prm"), spec, arena.prm_player.builder)
    context.of("prm").save(trained_prm, "prm", c.prm.head, **reads)
    if config.lora is not None:  # alone too, for `export.format="peft"`
        _save_adapters(context, state.game, reads)
    return {}


def check(context: Context, stages: Mapping[str, str]) -> None:
    """Raises a ConfigError where the solver of `game.explore` cannot begin replies."""
    explore = context.config.game.explore
    if not explore.forced:
        return
    solver, generator = context.solver(explore.solver), context.of("generator")
    if solver.tokenizer.get_vocab() != generator.tokenizer.get_vocab():
        raise ConfigError(
            f"game.explore.forced={explore.forced}: replies of G begin with tokens "
            f"of game.explore.solver={explore.solver!r}, which has another "
            "tokenizer; name a solver with the Generator's, or set it to 0 and use "
            "game.explore.plausible, which asks for text alone"
        )


def _explorer(context: Context) -> Explorer | None:
    explore = context.config.game.explore
    if not explore.helped:
        return None
    solver = context.solver(explore.solver)
    params, _ = solver.load(explore.solver, "game.explore.solver", "solver")
    return Explorer(explore, params, solver.writer, solver.decoder, solver.sampler)


def _check_targets(game: schema.GameConfig, spec: ModelSpec) -> None:
    """What R starts from has something to say of right steps.

    Raises:
      ConfigError: it has not.
    """
    if game.right_targets == "reference" and spec.kind != "prm":
        raise ConfigError(
            f"game.right_targets='reference' takes the scores of game.prm_from="
            f"{game.prm_from!r}, and that is a {spec.kind}: name a PRM, such as a "
            "stage of job=pav"
        )


def kept_of(context: Context, spec: ModelSpec, rows: RowFormat) -> dict[str, Any]:
    """What the R of a game has of the model that it started from, for `Context.save`.

    Args:
      context: of R's role.
      spec: of that model.
      rows: how R read in the game.
    """
    kept: dict[str, Any] = {}
    if rows is not context.builder:
        kept = {"window": rows.window, "buckets": tuple(rows.buckets)}
    # Its scores go on meaning what they did.
    if context.config.game.right_targets == "reference":
        kept |= {"aggregation": spec.aggregation, "values": spec.values}
    return kept


def _save_adapters(context: Context, game: GameState, reads: dict[str, Any]) -> None:
    c = context.config
    context.of("generator").save(
        game.generator.params,
        "generator",
        folder="generator/adapter",
        on=c.game.generator_from,
    )
    context.of("prm").save(
        game.prm.params,
        "prm",
        c.prm.head,
        folder="adapter",
        on=c.game.prm_from,
        **reads,
    )
