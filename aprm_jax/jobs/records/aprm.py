"""`aprm`: the game of Generator and PRM, or the same with a frozen Generator."""

from __future__ import annotations

from collections.abc import Iterator

from aprm_jax.config.fields import ConfigError
from aprm_jax.config.game import GameConfig
from aprm_jax.config.job import Curves, Job, Lazy
from aprm_jax.config.typed import Config
from aprm_jax.jobs.records.prm import CHARTS


def _validate(config: Config) -> None:
    if config.game.advantage == "group" and config.game.group_size < 2:
        raise ConfigError(
            "game.group_size must be at least 2 for game.advantage='group', "
            f"not {config.game.group_size}"
        )
    targets, objective = config.game.right_targets, config.game.prm_objective
    if targets == "reference" and objective != "cross_entropy":
        raise ConfigError(
            f"game.prm_objective={objective!r} learns verdicts, and the targets of "
            "game.right_targets='reference' are values: set "
            "game.prm_objective='cross_entropy'"
        )
    explore = config.game.explore
    if explore.helped and not explore.solver:
        raise ConfigError(
            "game.explore.solver must name the solver that game.explore.forced and "
            "game.explore.plausible ask: a stage, or a folder"
        )
    if explore.forced and not explore.opened(config.game.groups):
        raise ConfigError(
            f"game.explore.forced={explore.forced} of game.groups={config.game.groups} "
            "situations a round is none of them: raise either, or set it to 0"
        )
    check_references(config, "game", config.game.references)
    if config.game.moments == "factored" and (
        config.game.b1 or not config.game.optimistic
    ):
        raise ConfigError(
            "game.moments='factored' is of OGDA without a first moment: set game.b1=0 "
            "and game.optimistic=True"
        )


def check_references(config: Config, group: str, held: str) -> None:
    """Raises a ConfigError where adapters stand on what would be int8."""
    if held == "int8" and config.lora.rank:
        raise ConfigError(
            f"{group}.references='int8' is of full parameters: with lora.rank="
            f"{config.lora.rank} the reference is the base under the adapters, and "
            f"costs nothing; set lora.rank=0 or {group}.references='full'"
        )


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    yield "game.generator_from", config.game.generator_from
    yield "game.prm_from", config.game.prm_from
    if config.game.explore.helped:
        yield "game.explore.solver", config.game.explore.solver


_REPLIES = (  # data/prompts.py says what each is
    "unfinished",
    "empty",
    "too_long",
    "several",
    "unprintable",
    "refusal",
    "preamble",
)
_OF_THE_GAME = (
    Curves(
        "What became of perturbations",
        {
            "fool R": "game/success_rate",
            "still correct": "game/still_correct_rate",
            "undecidable": "game/undecidable_rate",
            "copied": "game/copied_rate",
        },
        "percent",
    ),
    Curves(
        "Replies of G that are not one step",
        {reason.replace("_", " "): f"reply/{reason}" for reason in _REPLIES},
        "percent",
    ),
    Curves("Share of wrong steps that fool R", {"": "game/fool_rate"}, "percent"),
)
_OF_SAMPLES = (
    Curves(
        "Edit distance and distinct replies",
        {"edit distance": "game/edit_distance", "distinct": "game/distinct_rate"},
    ),
    Curves(
        "|Δ log p| between sampler and trainer",
        {"mean": "generator/sampler_gap_mean", "max": "generator/sampler_gap_max"},
    ),
)

JOB = Job(
    name="aprm",
    place=30,
    purpose="play the game: a Generator learns to fool the PRM that learns from it",
    group="game",
    settings=GameConfig,
    run=Lazy("aprm:run"),
    check=Lazy("aprm:check"),
    beside=True,
    together=True,
    validate=_validate,
    sources=_sources,
    reads=("prm.head",),
    judges=lambda config: True,
    outputs=("model", "generator", "adapter"),
    length="game.updates",
    effort=6.0,
    shown=(
        ("fool rate", "game/fool_rate"),
        ("G reward", "generator/reward"),
        ("R reward", "prm/reward"),
        ("R loss", "prm/loss"),
        ("R accuracy on clean", "prm/accuracy_clean"),
        ("on fresh", "prm/accuracy_fresh"),
    ),
    less_memory="more game.microbatches or a smaller game.generator_rows",
    charts=(*_OF_THE_GAME, *CHARTS, *_OF_SAMPLES),
)
