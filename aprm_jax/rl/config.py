"""The settings of RL."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections
import optax

from aprm_jax.models import lora
from aprm_jax.rl.monitor import AlarmConfig
from aprm_jax.rl.sources import PayConfig
from aprm_jax.rl.update import UpdateConfig
from aprm_jax.training.schedules import warmup_cosine


@dataclasses.dataclass(frozen=True)
class RLConfig:
    """The fields of `config.rl`; see `aprm_jax.config` for their meaning.

    `lora` is `config.lora`; None trains full parameters.
    """

    updates: int
    groups: int
    group_size: int
    epochs: int
    minibatches: int
    microbatches: int
    rewards: tuple[str, ...]
    weights: tuple[float, ...]
    verifiable_share: float
    estimator: str
    gamma: float
    gae_lambda: float
    value_weight: float
    clip_low: float
    clip_high: float
    dual_clip: float
    aggregation: str
    uniform: str
    kl_weight: float
    kl_as: str
    importance_cap: float
    learning_rate: float
    warmup: int
    b1: float
    b2: float
    clip_norm: float
    overlap: bool
    max_idle: int
    dev_every: int
    dev_problems: int
    dev_samples: int
    sample_log: int
    pay: PayConfig
    alarm: AlarmConfig
    lora: lora.LoraConfig | None = None

    @classmethod
    def of(cls, fields: ml_collections.ConfigDict, **changes: Any) -> RLConfig:
        """From `config.rl`; `changes` win."""
        names = [f.name for f in dataclasses.fields(cls) if f.name != "lora"]
        values: dict[str, Any] = {name: fields[name] for name in names}
        values["pay"] = PayConfig(**fields.pay.to_dict())
        values["alarm"] = AlarmConfig(**fields.alarm.to_dict())
        return cls(**(values | changes))

    @property
    def critic(self) -> bool:
        """Whether values are learned beside the policy."""
        return self.estimator == "ppo"

    def weight_of(self) -> dict[str, float]:
        """The weight of each source; all 1 where none are given."""
        weights = self.weights or (1.0,) * len(self.rewards)
        return dict(zip(self.rewards, weights, strict=True))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam under a clipped norm."""
        steps = self.updates * self.epochs * self.minibatches
        warmup = self.warmup * self.epochs * self.minibatches
        schedule = warmup_cosine(self.learning_rate, warmup, steps)
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adam(schedule, b1=self.b1, b2=self.b2),
        )

    def update(self, most_tokens: int) -> UpdateConfig:
        """The update's share."""
        own = {f.name for f in dataclasses.fields(UpdateConfig)}
        shared = {k: getattr(self, k) for k in own & set(vars(self)) - {"weights"}}
        return UpdateConfig(
            weights=self.weight_of(),
            constant=float(most_tokens),
            implicit_beta=self.pay.implicit_beta,
            **shared,
        )
