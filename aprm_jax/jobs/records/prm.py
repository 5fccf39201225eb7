"""`prm`: a process reward model (PRM) without an adversary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.fields import ConfigError, among_stages
from aprm_jax.config.game import OBJECTIVES
from aprm_jax.config.job import Curves, Job, Lazy
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config

VALUES = "values"  # negatives of search trees
SAMPLED = ("monte_carlo", "oracle", "outcome")  # negatives of the solver's samples
NEUTRAL = ("correct", "incorrect", "ignore", "class")


@dataclasses.dataclass(frozen=True)
class PrmConfig:
    """PRMs that no game trains, and how every PRM is read."""

    backbone: str = setting("", "as solver.backbone; existing PRMs too")
    d_model: int = setting(0, "as solver.d_model", least=0)
    init_from: str = setting(
        "solver", "a solver's backbone, or a PRM to go on from: stage or directory"
    )
    head: str = setting(
        "token",
        "the head: a logit of the vocabulary, or two or three classes",
        choices=("token", "two_class", "three_class"),
    )
    negatives: str = setting(
        "static",
        "where wrong steps come from: corruptions, the solver's samples labelled by "
        "completions or by the oracle, people's labels; outcome: an ORM, of samples "
        "labelled by their answers; values: of search trees, by the way to a right "
        "answer (ReST-MCTS*)",
        choices=("static", "monte_carlo", "oracle", "labels", "outcome", VALUES),
    )
    data: tuple[str, ...] = setting(
        (),
        'labels: "READER:SOURCE" each, () = the labelled domain\'s own; values: stages '
        "of job=search, or their files",
    )
    soft: bool = setting(
        True, "labels, values: as the data say; False cuts them at domain.label_cut"
    )
    neutral: str = setting(
        "correct", "labels: what a neutral rating is", choices=NEUTRAL
    )
    balance: bool = setting(
        True, "labels, values: every class has the same weight in the loss"
    )
    updates: int = setting(400, "updates in all", least=1)
    batch_size: int = setting(
        64,
        "an update: steps, half of them clean; labels, values: packed rows",
        least=1,
    )
    microbatches: int = setting(
        1, "parts of a batch, one after the other: less memory", least=1
    )
    objective: str = setting("cross_entropy", "what R minimises", choices=OBJECTIVES)
    learning_rate: float = setting(1e-3, "of Adam, its peak", above=0)
    warmup: int = setting(20, "updates until the peak", least=0)
    b1: float = setting(
        0.5,
        "Adam's momentum; with 0.9 optimism is lost (game/ogda.py)",
        least=0,
        below=1,
    )
    b2: float = setting(0.99, "Adam's second moment", least=0, below=1)
    clip_norm: float = setting(1.0, "largest norm of a gradient", above=0)
    beta: float = setting(0.0, "weight of KL(R || R_ref)", least=0)
    eta: float = setting(0.0, "weight of R's entropy", least=0)
    hard_share: float = setting(
        0.0,
        "but labels, values: of the wrong steps of an update, those of hard_pool "
        "candidates that R believes most",
        least=0,
        most=1,
    )
    hard_pool: int = setting(
        84,
        "candidates of an update; as many verdicts as a round of the game asks for",
        least=1,
    )
    pool_problems: int = setting(
        400,
        "of negatives that are sampled: problems the solver is sampled on",
        least=1,
    )
    pool_samples: int = setting(
        4, "of negatives that are sampled: solutions a problem", least=1
    )
    mc_completions: int = setting(
        8, "monte_carlo: completions from every prefix", least=1
    )
    mc_soft: bool = setting(
        True, "monte_carlo: label = share of right completions, else > 0"
    )
    solver: str = setting("solver", "stage or directory of the solver that is sampled")


def _validate(config: Config) -> None:
    """What labelled solutions need of each other's fields."""
    c = config.prm
    if (c.neutral == "class") != (c.head == "three_class"):
        raise ConfigError(
            f"prm.neutral={c.neutral!r} and prm.head={c.head!r}: a class "
            "of neutral steps needs prm.neutral='class' and prm.head='three_class'"
        )
    if c.negatives == "outcome" and config.builder.window:
        raise ConfigError(
            "prm.negatives='outcome' judges whole solutions: set builder.window=0 for "
            f"its stage, not {config.builder.window}"
        )
    plain = c.objective == "cross_entropy" and c.beta == c.eta == 0
    if c.head == "three_class" and not plain:
        raise ConfigError(
            "prm.head='three_class' learns by cross-entropy alone: "
            "prm.objective='cross_entropy', prm.beta=0 and prm.eta=0"
        )


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    yield "prm.init_from", config.prm.init_from
    if config.prm.negatives in SAMPLED:
        yield "prm.solver", config.prm.solver
    if config.prm.negatives == VALUES:
        yield from among_stages(config, "prm.data", config.prm.data)


# Of the game too, where G has lines beside R's.
CHARTS = (
    Curves(
        "Accuracy of R",
        {
            "clean": "prm/accuracy_clean",
            "fresh": "prm/accuracy_fresh",
            "replayed": "prm/accuracy_replayed",
            "static": "prm/accuracy_static",
            "right steps": "prm/accuracy_correct",
            "wrong steps": "prm/accuracy_incorrect",
        },
        "percent",
    ),
    Curves("Loss of R, nats", {"": "prm/loss"}),
    Curves(
        "Entropy, nats",
        {"G, a token": "generator/entropy_token", "R, a step": "prm/entropy"},
    ),
    Curves(
        "KL to the reference, nats",
        {"G, a token": "generator/kl_token", "R, a step": "prm/kl"},
    ),
    Curves("Reward", {"G": "generator/reward", "R": "prm/reward"}),
    Curves(
        "Gradient change, ‖g − g before‖ / ‖g‖",
        {"G": "generator/grad_change", "R": "prm/grad_change"},
    ),
)

JOB = Job(
    name="prm",
    place=20,
    purpose="train a PRM without an adversary: corruptions, samples, people's labels",
    group="prm",
    settings=PrmConfig,
    run=Lazy("prm:run"),
    beside=True,
    together=True,
    check=Lazy("tree_data:check_values"),
    check_data=Lazy("prm_labels:check"),
    validate=_validate,
    sources=_sources,
    given=("prm.data",),
    judges=lambda config: config.prm.negatives == "static",
    length="prm.updates",
    effort=2.0,
    shown=(
        ("loss", "prm/loss"),
        ("accuracy on right", "prm/accuracy_correct"),
        ("on wrong", "prm/accuracy_incorrect"),
    ),
    less_memory="a smaller prm.batch_size or more prm.microbatches",
    charts=CHARTS,
)
