"""The config of a game, and what its parts are given of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from aprm_jax.config import game as schema
from aprm_jax.config.typed import extended
from aprm_jax.game.update import UpdateConfig, game_optimiser
from aprm_jax.models import lora
from aprm_jax.verifiers.objective import PrmObjective


@dataclasses.dataclass(frozen=True)
class GameConfig(schema.GameConfig):
    """`config.game` and `config.lora`, where None trains full parameters."""

    lora: lora.LoraConfig | None = None

    @classmethod
    def of(cls, fields: schema.GameConfig, **changes: Any) -> GameConfig:
        """From `config.game`; `changes` win."""
        return extended(cls, fields, **changes)

    def optimisers(
        self,
    ) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """OGDA of G and of R."""
        common: dict[str, Any] = {
            "warmup": self.warmup * self.epochs,  # of updates, as its total
            "total": self.updates * self.epochs,
            "b1": self.b1,
            "b2": self.b2,
            "clip_norm": self.clip_norm,
            "optimistic": self.optimistic,
            "factored": self.moments == "factored",
        }
        return (
            game_optimiser(self.generator_learning_rate, **common),
            game_optimiser(self.prm_learning_rate, **common),
        )

    def update(self, head: str, train_generator: bool, train_prm: bool) -> UpdateConfig:
        """The joint update's share."""
        return UpdateConfig(
            head=head,
            advantage=self.advantage,
            normalise_advantage=self.normalise_advantage,
            gae_lambda=self.gae_lambda,
            gamma=self.gamma,
            value_weight=self.value_weight,
            clip_ratio=self.clip_ratio,
            beta_generator=self.beta_generator,
            eta_generator=self.eta_generator,
            prm=PrmObjective(
                self.prm_objective,
                beta=self.beta_prm,
                eta=self.eta_prm,
                right=self.rewards.prm_right,
                wrong=self.rewards.prm_wrong,
                clip_ratio=self.clip_ratio,
            ),
            train_generator=train_generator,
            train_prm=train_prm,
            lora=self.lora,
            microbatches=self.microbatches,
        )
