"""The settings of the game, which its job and `aprm_jax.game` share."""

from __future__ import annotations

import dataclasses

from aprm_jax.config.setting import setting

OBJECTIVES = ("expected", "ppo", "cross_entropy")  # of R
REFERENCES = ("full", "int8")


@dataclasses.dataclass(frozen=True)
class RewardsConfig:
    """What the players get, or pay, for a perturbation s' of a step; docs/method.md."""

    generator_fooled: float = setting(1.0, "s' incorrect, R says correct")
    generator_caught: float = setting(-1.0, "s' incorrect, R says incorrect")
    generator_still_correct: float = setting(-1.0, "s' correct")
    prm_right: float = setting(1.0, "R's verdict is right")
    prm_wrong: float = setting(0.0, "R's verdict is wrong")


@dataclasses.dataclass(frozen=True)
class ExploreConfig:
    """How a solver helps G to what it would not write by itself; docs/method.md."""

    solver: str = setting("", "stage or directory of the solver")
    forced: float = setting(
        0.0,
        "share of situations whose replies begin with what the solver writes there",
        least=0,
        most=1,
    )
    forced_tokens: int = setting(
        3, "of a reply, at most: from one to this many, drawn", least=1
    )
    plausible: float = setting(
        0.0,
        "paid besides for a wrong step all of whose tokens the solver expects; the "
        "less it expects one, the less",
        least=0,
    )

    @property
    def helped(self) -> bool:
        """Whether the solver has anything to do."""
        return self.forced > 0 or self.plausible > 0

    def opened(self, situations: int) -> int:
        """Of how many situations of a round the solver begins the replies."""
        return round(self.forced * situations)


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
    generator_replay: int = setting(
        48,
        "G's rows a round: replies that fooled R before, to imitate; more of those "
        "kinds of error that fool it still",
        least=0,
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
    right_targets: str = setting(
        "correct",
        "what R learns right steps by: 1, or, as a PAV needs, the score that the R "
        "which the game starts from gives them; wrong ones by 0 in any case",
        choices=("correct", "reference"),
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
    gae_lambda: float = setting(0.95, "gae: its lambda", least=0, most=1)
    gamma: float = setting(1.0, "gae: its discount", least=0, most=1)
    value_weight: float = setting(0.5, "of the value loss (gae)", least=0)
    clip_ratio: float = setting(0.2, "PPO's epsilon", above=0, most=1)
    epochs: int = setting(1, "more than one and optimism loses its meaning", least=1)
    microbatches: int = setting(
        1, "parts of a batch, one after the other: less memory", least=1
    )
    beta_generator: float = setting(
        0.05, "weight of KL(G || G_ref), per token, in reward units", least=0
    )
    eta_generator: float = setting(0.005, "weight of G's entropy", least=0)
    beta_prm: float = setting(0.05, "weight of KL(R || R_ref)", least=0)
    eta_prm: float = setting(0.05, "weight of R's entropy", least=0)
    prm_objective: str = setting(
        "cross_entropy", "what R minimises", choices=OBJECTIVES
    )
    generator_learning_rate: float = setting(
        1e-3, "of G, its peak; 0 = it does not learn", least=0
    )
    prm_learning_rate: float = setting(
        1e-3, "of R, its peak; 0 = it does not learn", least=0
    )
    warmup: int = setting(10, "rounds until the peak", least=0)
    b1: float = setting(0.0, "Adam's momentum in the game", least=0, below=1)
    b2: float = setting(0.99, "Adam's second moment", least=0, below=1)
    moments: str = setting(
        "full",
        "what the optimiser keeps: two copies of the parameters; factored: a quarter, "
        "second moments by rows and columns, the gradient before in bfloat16",
        choices=("full", "factored"),
    )
    references: str = setting(
        "full",
        "what is kept of the players as they began, for KL; int8: of weights a byte "
        "and a scale to each output channel, full parameters only",
        choices=REFERENCES,
    )
    clip_norm: float = setting(1.0, "largest norm of a player's gradient", above=0)
    optimistic: bool = setting(True, "False: plain simultaneous Adam, an ablation")
    sample_log: int = setting(
        25, "rounds between logged perturbations; 0 = none", least=0
    )
    rewards: RewardsConfig = dataclasses.field(default_factory=RewardsConfig)
    explore: ExploreConfig = dataclasses.field(default_factory=ExploreConfig)
