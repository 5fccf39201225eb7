"""`rl`: a solver learns by reinforcement from what a verifier or an oracle pays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.fields import ConfigError
from aprm_jax.config.job import Curves, Job, Lazy
from aprm_jax.config.rl import RLConfig
from aprm_jax.config.typed import Config
from aprm_jax.jobs.records.aprm import check_references
from aprm_jax.jobs.records.score import stage_sources

_AS_A_LOSS = {
    "k1": "as a loss its gradient is 0 in expectation: noise alone",
    "k3": "as a loss its gradient is that of the other KL, KL(start || policy)",
}


def _validate(config: Config) -> None:
    c = config.rl
    if not c.rewards:
        raise ConfigError("rl.rewards is empty: nothing would be learned")
    if len(set(c.rewards)) < len(c.rewards):
        raise ConfigError(f"rl.rewards names a reward twice: {c.rewards!r}")
    if c.weights and len(c.weights) != len(c.rewards):
        raise ConfigError(
            f"rl.weights has {len(c.weights)} weights for {len(c.rewards)} rl.rewards"
        )
    if c.group_size < 2 and c.estimator in ("grpo", "rloo"):
        raise ConfigError(
            f"rl.group_size must be at least 2 for rl.estimator={c.estimator!r}, which "
            f"compares the solutions of a problem, not {c.group_size}; with one a "
            "problem take 'reinforce++' or 'ppo'"
        )
    if 0 < c.dual_clip <= 1:
        raise ConfigError(f"rl.dual_clip is 0 or above 1, not {c.dual_clip}")
    if ("implicit" in c.rewards) != bool(c.implicit_from):
        raise ConfigError(
            "rl.rewards has 'implicit' where rl.implicit_from names a language model, "
            f"and only there: {c.rewards!r}, {c.implicit_from!r}"
        )
    if c.implicit_learning_rate and not c.implicit_from:
        raise ConfigError(
            f"rl.implicit_learning_rate={c.implicit_learning_rate} is of the language "
            "model that pays 'implicit': name it in rl.implicit_from, for instance "
            f"{c.solver_from!r}"
        )
    if c.prover_values and "progress" not in c.rewards:
        raise ConfigError(
            f"rl.prover_values={c.prover_values!r} is of progress alone, and "
            f"rl.rewards={c.rewards!r}"
        )
    if c.guard.prm and c.verifiers:
        raise ConfigError(
            f"rl.guard.prm={c.guard.prm!r} is the verifier: set rl.verifiers=()"
        )
    check_references(config, "rl", c.references)
    if c.references == "int8" and c.implicit_from:
        raise ConfigError(
            "rl.implicit_from pays what a language model and rl.references say apart: "
            "with 'int8' rounding would be paid; set rl.references='full'"
        )
    _check_kl(c)
    _check_best(c)
    _check_rollouts(config)


def _check_rollouts(config: Config) -> None:
    """A server that draws has what it needs, and draws what this process would."""
    c = config.rl.rollouts
    if not c.solver:
        return
    where = f"rl.rollouts.solver={c.solver!r}"
    if not config.solver.endpoint:
        raise ConfigError(f"{where} needs solver.endpoint, which is empty")
    if config.builder.line_stride:
        raise ConfigError(
            f"{where} needs builder.line_stride=0, not {config.builder.line_stride}: a "
            "server counts positions through"
        )
    if c.push == "folder":
        for name, value in (
            ("rl.rollouts.folder", c.folder),
            ("endpoint.model", config.endpoint.model),
        ):
            if not value:
                raise ConfigError(f'rl.rollouts.push="folder" needs {name}')
    elif not config.lora.rank or config.rl.solver_from != "backbone":
        raise ConfigError(
            'rl.rollouts.push="adapter" loads an adapter beside the model that '
            "solver.backbone names: set lora.rank above 0 and "
            'rl.solver_from="backbone", or push="folder"'
        )


def _check_best(c: RLConfig) -> None:
    """Which checkpoint is the best one, dev alone tells."""
    alarms = dataclasses.asdict(c.alarm)
    limits = [name for name in alarms if name != "rounds" and alarms[name]]
    if c.dev_every or not (limits or c.keep == "best"):
        return
    asked = "rl.keep='best' keeps"
    if limits:
        asked = f"rl.alarm.{limits[0]}={alarms[limits[0]]} stops and keeps"
    raise ConfigError(
        f"{asked} the best checkpoint on dev, which rl.dev_every=0 never looks at: it "
        "would be the solver of the start; set rl.dev_every to some rounds"
    )


def _check_kl(c: RLConfig) -> None:
    known = ("k1", "k2", "k3")
    if c.kl_estimator not in known:
        raise ConfigError(
            f"rl.kl_estimator must be one of {', '.join(known)}, not {c.kl_estimator!r}"
        )
    right = {"loss": "k2", "reward": "k1"}[c.kl_as]
    if c.kl_estimator == right:
        return
    why = "in the reward its gradient is biased"
    if c.kl_as == "loss":
        why = _AS_A_LOSS[c.kl_estimator]
    raise ConfigError(
        f"rl.kl_as={c.kl_as!r} with rl.kl_estimator={c.kl_estimator!r}: {why}. Take "
        f"{right!r}, whose gradient is that of KL(policy || start)"
    )


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    c = config.rl
    yield "rl.solver_from", c.solver_from
    yield from stage_sources(config, "rl")
    yield from stage_sources(config, "rl", "prover_values")
    if c.implicit_from:
        yield "rl.implicit_from", c.implicit_from
    if c.guard.prm:
        yield "rl.guard.prm", c.guard.prm
        yield "game.generator_from", config.game.generator_from


JOB = Job(
    name="rl",
    place=36,
    purpose="train a solver by reinforcement, against any verifier",
    group="rl",
    settings=RLConfig,
    run=Lazy("rl:run"),
    beside=True,
    together=True,
    check=Lazy("rl:check"),
    validate=_validate,
    sources=_sources,
    reads=("prm.head", "game"),
    outputs=("model", "adapter", "prm"),
    length="rl.updates",
    effort=8.0,
    shown=(
        ("right", "reward/oracle"),
        ("verifier", "reward/verifier"),
        ("KL", "policy/kl_sequence"),
        ("tokens", "rl/tokens"),
        ("dev", "dev/best"),
        ("loss", "policy/loss"),
    ),
    less_memory="a smaller rl.group_size or rl.groups, or more rl.microbatches",
    charts=(
        Curves(
            "Reward a solution",
            {
                "oracle": "reward/oracle",
                "verifier": "reward/verifier",
                "gap": "reward/gap",
            },
        ),
        Curves("Accuracy on dev", {"": "dev/accuracy"}, "percent"),
        Curves("KL to the start, nats a solution", {"": "policy/kl_sequence"}),
        Curves("Tokens a solution", {"": "rl/tokens"}),
        Curves("Steps a solution", {"": "rl/steps"}),
        Curves(
            "Habits that pay without being right",
            {
                "repeated": "rl/repeated",
                "empty": "rl/empty",
                "copied": "rl/copied",
                "alarm": "alarm",
            },
            "percent",
        ),
        Curves(
            "Solutions that nothing is learned from",
            {
                "left out": "rl/left_out",
                "paid alike": "rl/uniform",
                "not read": "rl/unread",
                "NaN or infinite": "rl/nonfinite_rewards",
                "alone in its group": "rl/alone",
                "round idle": "rl/idle",
            },
            "percent",
        ),
        Curves("Entropy, nats a token", {"": "policy/entropy_token"}),
        Curves(
            "|Δ log p| between sampler and trainer",
            {"mean": "policy/drift_mean", "max": "policy/drift_max"},
        ),
    ),
)
