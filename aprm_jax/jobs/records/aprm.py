"""`aprm`: the game of Generator and PRM, or the same with a frozen Generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from aprm_jax.config.fields import ConfigError
from aprm_jax.config.job import Curves, Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.jobs.records.prm import CHARTS, OBJECTIVES


@dataclasses.dataclass(frozen=True)
class RewardsConfig:
    """What the players get for a perturbation s' of a step; docs/method.md."""

    generator_fooled: float = setting(1.0, "s' incorrect, R says correct")
    generator_caught: float = setting(-1.0, "s' incorrect, R says incorrect")
    generator_still_correct: float = setting(-1.0, "s' correct")
    prm_right: float = setting(1.0, "R's verdict is right")
    prm_wrong: float = setting(0.0, "R's verdict is wrong")


@dataclasses.dataclass(frozen=True)
class GameConfig:
    """The game of the Generator G and the PRM R."""

    generator_from: str = setting("generator", "stage or directory G starts from")
    prm_from: str = setting("prm_warmup", "stage or directory R starts from")
    updates: int = setting(300, "rounds: one joint update each", least=1)
    freeze_generator: bool = setting(False, "True: the frozen-Generator baseline")
    groups: int = setting(24, "(Q, S, s) a round", least=1)
    group_size: int = setting(8, "perturbations of each", least=1)
    generator_rows: int = setting(
        96, "distinct perturbations G learns from a round, at most", least=1
    )
    prm_clean: int = setting(24, "R's rows a round: clean correct steps", least=1)
    prm_fresh: int = setting(24, "R's rows a round: fresh perturbations", least=1)
    prm_replay: int = setting(16, "R's rows a round: replayed perturbations", least=0)
    hard_share: float = setting(
        0.75,
        "of R's fresh rows: wrong replies of the round that R believes most",
        least=0,
        most=1,
    )
    static_probe: int = setting(
        16, "static corruptions R is measured on, never trained on", least=0
    )
    replay_capacity: int = setting(4096, "perturbations kept", least=1)
    advantage: str = setting(
        "group", "how G's rewards are compared", choices=("group", "gae")
    )
    normalise_advantage: bool = setting(
        False, "divide by the batch's standard deviation"
    )
    gae_lambda: float = setting(0.95, "gae: its lambda")
    gamma: float = setting(1.0, "gae: its discount")
    value_weight: float = setting(0.5, "of the value loss (gae)")
    clip_ratio: float = setting(0.2, "PPO's epsilon")
    epochs: int = setting(1, "more than one and optimism loses its meaning", least=1)
    microbatches: int = setting(
        1, "parts of a batch, one after the other: less memory", least=1
    )
    beta_generator: float = setting(
        0.05, "weight of KL(G || G_ref), per token, in reward units"
    )
    eta_generator: float = setting(0.005, "weight of G's entropy")
    beta_prm: float = setting(0.05, "weight of KL(R || R_ref)")
    eta_prm: float = setting(0.05, "weight of R's entropy")
    prm_objective: str = setting(
        "cross_entropy", "what R minimises", choices=OBJECTIVES
    )
    generator_learning_rate: float = setting(1e-3, "of G, its peak", least=0)
    prm_learning_rate: float = setting(1e-3, "of R, its peak", least=0)
    warmup: int = setting(10, "rounds until the peak")
    b1: float = setting(0.0, "Adam's momentum in the game")
    b2: float = setting(0.99, "Adam's second moment")
    clip_norm: float = setting(1.0, "largest norm of a player's gradient")
    optimistic: bool = setting(True, "False: plain simultaneous Adam, an ablation")
    sample_log: int = setting(25, "rounds between logged perturbations")
    rewards: RewardsConfig = dataclasses.field(default_factory=RewardsConfig)


def _validate(config: Any) -> None:
    if config.game.advantage == "group" and config.game.group_size < 2:
        raise ConfigError(
            "game.group_size must be at least 2 for game.advantage='group', "
            f"not {config.game.group_size}"
        )


def _sources(config: Any) -> Iterator[tuple[str, str]]:
    yield "game.generator_from", config.game.generator_from
    yield "game.prm_from", config.game.prm_from


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
    validate=_validate,
    sources=_sources,
    reads=("prm.head",),
    outputs=("model", "generator", "adapter"),
    length="game.updates",
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
