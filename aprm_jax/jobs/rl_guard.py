"""The game as a guard of RL: R meets new errors of G and of the policy all along."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from aprm_jax.game.config import GameConfig
from aprm_jax.game.rounds import LoopState, Rounds
from aprm_jax.hf.builders import open_builder
from aprm_jax.jobs.aprm import kept_of
from aprm_jax.jobs.context import Context
from aprm_jax.models.lora import LoraConfig
from aprm_jax.rl.sources import paying
from aprm_jax.solvers.protocol import Solution
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.models import ModelVerifier, prm_verifier
from aprm_jax.verifiers.monte_carlo import oracle_labels
from aprm_jax.verifiers.named import ROWS
from aprm_jax.verifiers.protocol import Verifier


@dataclasses.dataclass(frozen=True)
class GameGuard:
    """Implements `rl.task.Guard` by rounds of the game.

    Attributes:
      context: of R's role.
      rounds: the game.
      read: R as a verifier, its parameters those of the start.
      head: R's.
      kept: what R has of the model that it started from, see `jobs.aprm.kept_of`.
      prover: another prover's values, where progress is paid by one.
      own_steps: whether the policy's steps, judged by `oracle`, are replayed to R.
      oracle: of the problems.
    """

    context: Context
    rounds: Rounds
    read: ModelVerifier
    head: str
    kept: dict[str, Any]
    prover: Verifier | None
    own_steps: bool
    oracle: StepOracle

    @classmethod
    def of(cls, context: Context, prover: Verifier | None = None) -> GameGuard:
        """The guard that a config names: `rl.guard`, and `game` for the rest."""
        c, role = context.config, context.of("prm")
        generator, _ = context.of("generator").load(
            c.game.generator_from, "game.generator_from", "generator"
        )
        prm, spec = role.load(c.rl.guard.prm, "rl.guard.prm", "prm")
        assert spec.head is not None
        arena = context.arena_of(spec)
        rounds = Rounds(
            arena,
            GameConfig.of(c.game, updates=c.rl.updates, lora=LoraConfig.of(c.lora)),
            generator=generator,
            prm=prm,
            head=spec.head,
            seed=c.seed,
            train_generator=not c.game.freeze_generator,
        )
        builder = open_builder(spec, role.tokenizer)
        kept = kept_of(role, spec, arena.prm_player.builder)
        says = {k: v for k, v in kept.items() if k in ("aggregation", "values")}
        # Its parameters are those of a round; as it begins, what the game keeps.
        begun = rounds.refs.prm
        read = prm_verifier(role.decoder, spec.head, begun, builder, **ROWS, **says)
        own, oracle = c.rl.guard.own_steps, context.domain.oracle
        return cls(role, rounds, read, spec.head, kept, prover, own, oracle)

    @property
    def state(self) -> LoopState:
        """Of the game before its first round."""
        return self.rounds.state

    def verifier(self, state: LoopState) -> Verifier:
        """R as it has become."""
        now = dataclasses.replace(self.read, params=self.rounds.players(state)[1])
        return paying(self.context.config.rl, now, self.prover)

    def play(
        self,
        state: LoopState,
        step: int,
        timer: PhaseTimer,
        solutions: Sequence[Solution],
    ) -> tuple[LoopState, dict[str, Any]]:
        """One round of the game, the policy's own steps in its replay first."""
        counts = {}
        if self.own_steps:
            rows = self._rows(solutions)
            counts = {"guard/own_steps": float(len(rows))}
            replay = state.replay.add(self.rounds.targeted(rows))
            state = dataclasses.replace(state, replay=replay)
        output = self.rounds.step_fn(state, step, timer)
        failed = float(output.metrics.get("nonfinite", 0.0))
        kept = {k: v for k, v in output.metrics.items() if k != "nonfinite"}
        return output.state, kept | counts | {"guard/nonfinite": failed}

    def _rows(self, solutions: Sequence[Solution]) -> list[Any]:
        """The steps that the oracle decides, up to each solution's first error.

        What was cut off is no step, and never reaches R.
        """
        # Of the game, whose replay takes them; R alone may read longer ones.
        builder = self.rounds.arena.prm_player.builder
        whole = [
            s if s.closed else dataclasses.replace(s, steps=s.steps[:-1])
            for s in solutions
        ]
        labelled = dict.fromkeys(oracle_labels(whole, self.oracle))
        rows = [
            builder.step(row.question, row.prefix, row.step, row.label)
            for row in labelled
        ]
        return [row for row in rows if builder.fits(row)]

    def save(self, state: LoopState) -> None:
        """R, beside the solver."""
        _, prm = self.rounds.merged_players(state)
        self.context.save(prm, "prm", self.head, folder="prm/model", **self.kept)
