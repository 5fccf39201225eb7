"""`attack`: a fresh Generator against finished PRMs, wherever they are from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.fields import ConfigError, among_stages
from aprm_jax.config.job import Job, Lazy, Needs
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Who is attacked, by whom, and for how long; docs/results.md has the score."""

    verifiers: tuple[str, ...] = setting(
        ("aprm",),
        "PRMs, each attacked by an attacker of its own: a stage, a model's folder, an "
        "export, a PRM of the hub, a server's address (docs/endpoints.md)",
    )
    generator: str = setting(
        "generator", 'what the attacker starts from: stage, directory or "backbone"'
    )
    oracle_calls: int = setting(
        10_000, "budget: verdicts on the attacker's replies", least=1
    )
    points: int = setting(
        5, "measurements along the budget, beside that at the start", least=1
    )
    situations: int = setting(240, "of a measurement, at least", least=1)
    learning_rate: float = setting(2e-3, "of the attacker, its peak", above=0)
    bootstrap: int = setting(2000, "resamples of an interval", least=1)


def _validate(config: Config) -> None:
    verifiers = config.attack.verifiers
    if not verifiers:
        raise ConfigError("attack.verifiers is empty: name a PRM's stage or folder")
    if len(set(verifiers)) < len(verifiers):
        raise ConfigError(f"attack.verifiers: one stands there twice: {verifiers!r}")
    for name in verifiers:
        scheme = name.partition(":")[0]
        if scheme in ("likelihood", "scores", "oracle"):
            raise ConfigError(
                f"attack.verifiers: {name!r} is no PRM: an attack needs a model that "
                "scores what it has never seen, and learns from step labels"
            )
    if config.attack.points > config.attack.oracle_calls:
        raise ConfigError(
            f"attack.points ({config.attack.points}) are more than "
            f"attack.oracle_calls ({config.attack.oracle_calls})"
        )


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    yield "attack.generator", config.attack.generator
    yield from among_stages(config, "attack.verifiers", config.attack.verifiers)


def _pieces(config: Config) -> dict[str, Needs]:
    """A verifier's attack waits for nobody else's."""
    c = config.attack
    return {name: Needs(stages=(c.generator, name)) for name in c.verifiers}


JOB = Job(
    name="attack",
    place=48,
    purpose="attack any PRM with a fresh Generator, and say how well it holds",
    group="attack",
    settings=AttackConfig,
    run=Lazy("attack:run"),
    beside=True,
    pieces=_pieces,
    piece=Lazy("attack:piece"),
    check=Lazy("attack:check"),
    validate=_validate,
    sources=_sources,
    needs=(),
    reads=("game",),
    uses_problems=lambda config: True,
    judges=lambda config: True,
    once=("game", "lora", "prompt"),
    outputs=("parts", "results.json", "summary.json", "attack.html"),
    effort=6.0,
    redone="asked",
    less_memory="a smaller game.groups or game.generator_rows",
)
