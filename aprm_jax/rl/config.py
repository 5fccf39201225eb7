"""The settings of RL."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from aprm_jax.config import rl as schema
from aprm_jax.config.typed import extended
from aprm_jax.models import lora
from aprm_jax.training.schedules import warmup_cosine


@dataclasses.dataclass(frozen=True)
class RLConfig(schema.RLConfig):
    """`config.rl` and `config.lora`, where None trains full parameters."""

    lora: lora.LoraConfig | None = None

    @classmethod
    def of(cls, fields: schema.RLConfig, **changes: Any) -> RLConfig:
        """From `config.rl`; `changes` win."""
        return extended(cls, fields, **changes)

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
