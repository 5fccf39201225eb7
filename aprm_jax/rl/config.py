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

    @property
    def pays_by_outcome(self) -> bool:
        """Whether known answers teach the policy, or what pays it."""
        pays = {"outcome", "first_error"} & set(self.rewards)
        return bool(pays) or self.implicit_learning_rate > 0

    def weight_of(self) -> dict[str, float]:
        """The weight of each source; all 1 where none are given."""
        weights = self.weights or (1.0,) * len(self.rewards)
        return dict(zip(self.rewards, weights, strict=True))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam under a clipped norm."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adam(self.schedule(), b1=self.b1, b2=self.b2),
        )

    def schedule(self) -> optax.Schedule:
        """The learning rate of each step: one curve over stages that follow on."""
        a_round = self.epochs * self.minibatches
        rounds = self.rounds_before + self.updates + self.rounds_after
        of_all = warmup_cosine(
            self.learning_rate, self.warmup * a_round, rounds * a_round
        )
        before = self.rounds_before * a_round
        return (lambda step: of_all(step + before)) if before else of_all
