"""Rounds of the game: sample, verify, score, update; either player may be frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float32, Int32

from aprm_jax.data.rows import StepRow, TooLongError
from aprm_jax.game import batches, rollouts
from aprm_jax.game.archive import Archive
from aprm_jax.game.arena import Arena, stated_log_odds
from aprm_jax.game.config import GameConfig
from aprm_jax.game.explore import Explorer
from aprm_jax.game.metrics import logged, round_metrics
from aprm_jax.game.replay import ReplayBuffer
from aprm_jax.game.update import (
    GameState,
    GeneratorBatch,
    References,
    make_update,
)
from aprm_jax.models import lora, quantised
from aprm_jax.models.flops import Compute, forward_flops
from aprm_jax.oracle.verdict import Label
from aprm_jax.policy.logprobs import read_replies
from aprm_jax.training.learner import start
from aprm_jax.training.mesh import (
    batch_shards,
    on_mesh,
    shard_batch,
)
from aprm_jax.training.step_log import StepOutput
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.hard import hardest
from aprm_jax.verifiers.scoring import Scorer, prm_scorer
from aprm_jax.verifiers.step_loss import PrmBatch

_LONG = 256  # tokens of a row
_ARCHIVE = 8  # a kind of error has this part of the replay buffer's capacity for G


@flax.struct.dataclass
class LoopState:
    """What a game checkpoint holds.

    Attributes:
      game: the players.
      replay: perturbations of earlier rounds.
      archive: those that fooled R, for G; None where it imitates none.
      batch_rows: of G's and R's batches, the most so far: see `batches.BatchSize`.
    """

    game: GameState
    replay: ReplayBuffer
    archive: Archive | None
    batch_rows: Int32[np.ndarray, " 2"]


@dataclasses.dataclass(frozen=True)
class Played:
    """A round before anybody has learned from it.

    Attributes:
      prompts: its situations, those of G first.
      perturbations: G's distinct perturbations, with their verdicts.
      rows: each as R sees it; None where R must not.
      log_odds: R's, that each is correct; 0 where R must not see it.
      metrics: rates of the round.
      rng: chooses what the batches leave out.
      bonus: what G is paid for each besides; None for nothing.
      compute: of sampling and scoring, but for what only measures.
    """

    prompts: Sequence[rollouts.Prompt]
    perturbations: Sequence[rollouts.Perturbation]
    rows: Sequence[StepRow | None]
    log_odds: np.ndarray
    metrics: dict[str, float]
    rng: np.random.Generator
    bonus: Float32[np.ndarray, " N"] | None = None
    compute: Compute = dataclasses.field(default_factory=Compute)

    @property
    def p_correct(self) -> np.ndarray:
        """R's probability of correct for each."""
        return scipy.special.expit(self.log_odds)


class Rounds:
    """A game between two given players; `step_fn` is the training loop's.

    Args:
      arena: where it is played.
      config: how.
      generator: G's parameters and reference; with LoRA the base of its adapter.
      prm: R's, likewise; {} where the arena has a verifier.
      head: R's, of `heads.HEADS`; of a verifier any.
      seed: of the problems, the sampling and the batches.
      train_generator: False freezes G.
      train_prm: False freezes R, as a fresh attacker meets it.
      sink: takes logged perturbations.
      explorer: helps G; None where it is on its own.
    """

    def __init__(
        self,
        arena: Arena,
        config: GameConfig,
        *,
        generator: Any,
        prm: Any,
        head: str,
        seed: int,
        train_generator: bool = True,
        train_prm: bool = True,
        sink: Callable[[dict], None] | None = None,
        explorer: Explorer | None = None,
    ):
        self.explorer = explorer
        self.arena, self.config, self.seed, self.sink = arena, config, seed, sink
        self.train_prm, self.train_generator = train_prm, train_generator
        if train_prm and arena.verifier is not None:
            raise ValueError("a verifier scores text, and does not learn")
        generator_tx, prm_tx = config.optimisers()
        self.update = make_update(
            arena.decoder,
            config.update(head, train_generator, train_prm),
            generator_tx,
            prm_tx,
            arena.mesh,
            prm_decoder=arena.prm_player.decoder,
        )
        # Of a verifier that is no model here, nobody knows what it computes.
        self._a_token = [
            forward_flops(params["backbone"], unembeds=unembeds) if params else 0.0
            for params, unembeds in ((generator, True), (prm, False))
        ]
        self._adapted = config.lora, None if arena.verifier is not None else config.lora
        fresh = ((generator, generator_tx), (prm, prm_tx))
        players = (
            start(lora.player(self._key(10, i), full, adapted), tx, arena.mesh)
            for i, ((full, tx), adapted) in enumerate(
                zip(fresh, self._adapted, strict=True)
            )
        )
        begun, int8 = GameState(*players), config.references == "int8"
        refs = quantised.held(generator, prm) if int8 else (generator, prm)
        self.refs = References(*refs)
        self.state = LoopState(
            game=begun,
            replay=ReplayBuffer.empty(
                config.replay_capacity, arena.prm_player.builder.buckets[-1]
            ),
            archive=Archive.empty(
                len(arena.kinds),
                max(1, config.replay_capacity // _ARCHIVE),
                arena.builder.buckets[-1],
            )
            if config.generator_replay and train_generator
            else None,
            batch_rows=np.zeros(2, np.int32),
        )
        self.scorer = Scorer(
            prm_scorer(arena.prm_player.decoder, head),
            arena.prm_player.builder,
            max_steps=1,
            # Few long rows are cheaper to read than many that are padding.
            batch_sizes=(4, 16, 128)
            if arena.prm_player.builder.buckets[0] >= _LONG
            else (16, 128),
        )
        self.old_logprobs = jax.jit(
            on_mesh(
                arena.mesh,
                lambda params, batch: (
                    read_replies(
                        arena.decoder, params, batch.rows, batch.columns
                    ).logprobs
                ),
            )
        )
        # Rows of both batches are dealt out to devices and microbatches.
        self.multiple = batch_shards(arena.mesh) * config.microbatches

    def step_fn(self, state: LoopState, step: int, timer: PhaseTimer) -> StepOutput:
        """One round: both players play it, then learn from it."""
        played = self.play(state, step, timer)
        before = self.scorer.tokens_read
        with timer("data"):
            generator_batch, prm_batch = self._batches(played, state)
        took = played.compute + self._read_by_prm(self.scorer.tokens_read - before)
        took += self._learned(generator_batch, prm_batch)
        with timer("update") as phase:
            game, updated = self._update(state.game, generator_batch, prm_batch, step)
            phase.wait(game)  # the next round samples from it: waiting costs nothing
        replay = state.replay
        if self.train_prm:
            replay = replay.add([row for row in played.rows if row is not None])
        archive = state.archive
        if archive is not None:
            archive = archive.add(
                played.perturbations,
                played.p_correct,
                self.arena.kinds,
                self.arena.builder,
            )
        every = self.config.sample_log
        if self.sink is not None and every and step % every == 0:
            for row in logged(step, played.perturbations, played.p_correct):
                self.sink(row)
        return StepOutput(
            LoopState(game, replay, archive, _row_counts(generator_batch, prm_batch)),
            played.metrics | dict(updated) | took.metrics("game"),
            {"generator": generator_batch, "prm": prm_batch},
        )

    def play(
        self, state: LoopState, step: int, timer: PhaseTimer, group_size: int = 0
    ) -> Played:
        """What G writes, the oracle's verdicts and R's scores; nobody learns.

        `group_size` is of the replies to a situation; 0 for the config's.
        """
        c, arena = self.config, self.arena
        before = arena.sampler.tokens_read, self.scorer.tokens_read
        rng = np.random.default_rng([self.seed, 41, step])
        with timer("data"):
            prompts = self._prompts(step)
            points = (prompt.situation for prompt in prompts)
            static = rollouts.static_rows(
                points,
                arena.corruptor,
                arena.oracle,
                arena.prm_player.builder,
                rng,
                c.static_probe,
            )
        queries = rollouts.OracleQueries(
            prompts, arena.oracle, arena.builder.replies, arena.prm_player.builder
        )
        with timer("sample"):  # and verify what has been drawn
            groups = rollouts.perturb(
                arena.sampler,
                self.players(state)[0]["backbone"],
                prompts[: c.groups],
                group_size or c.group_size,
                self._key(8, step),
                queries,
                self._openings(prompts[: c.groups], group_size or c.group_size, step),
            )
        with timer("verify"):
            perturbations = rollouts.verify(groups, prompts, queries)
            rows = rollouts.prm_rows(perturbations, arena.prm_player.builder)
        with timer("score"):
            log_odds, of_static = self._scores(state, perturbations, rows, static)
            rows = self.targeted(rows)
            bonus = self.explorer and self.explorer.bonus(perturbations)
        p_correct = scipy.special.expit(log_odds)
        metrics = round_metrics(
            perturbations,
            p_correct,
            rollouts.THRESHOLD,
            arena.kinds,
            arena.builder.replies.reasons,
        )
        tokens = sum(p.count * len(p.reply.ids) for p in perturbations)
        metrics["game/sampled_tokens"] = float(tokens)
        if of_static.size:
            p_static = scipy.special.expit(of_static)
            caught = p_static < rollouts.THRESHOLD
            metrics["prm/accuracy_static"] = float(np.mean(caught))
        if bonus is not None:
            metrics["game/bonus"] = float(bonus.mean())
        drawn = tokens + arena.sampler.tokens_read - before[0]
        read = self.scorer.tokens_read - before[1]
        if of_static.size:
            read -= sum(map(len, static))
        took = Compute.of(self._a_token[0], read=drawn) + self._read_by_prm(read)
        return Played(prompts, perturbations, rows, log_odds, metrics, rng, bonus, took)

    def _read_by_prm(self, tokens: int) -> Compute:
        return Compute.of(self._a_token[1], read=tokens)

    def _learned(self, generator_batch: GeneratorBatch, prm_batch: PrmBatch) -> Compute:
        """Of a round's updates, and of the references that they read.

        Replies' log-probabilities before the first of several are read once.
        """
        c, took = self.config, Compute()
        epochs = c.epochs
        if self.train_generator:
            tokens = generator_batch.rows.num_tokens
            read = tokens * (epochs + (epochs > 1))
            took += Compute.of(self._a_token[0], trained=tokens * epochs, read=read)
        if self.train_prm:
            tokens = prm_batch.rows.num_tokens * epochs
            read = tokens if c.beta_prm > 0 else 0
            took += Compute.of(self._a_token[1], trained=tokens, read=read)
        return took

    def _openings(
        self, prompts: Sequence[rollouts.Prompt], group_size: int, step: int
    ) -> list[rollouts.Opening] | None:
        """What the solver begins the replies with; None where it begins none."""
        if self.explorer is None or not self.explorer.config.forced:
            return None
        rng = np.random.default_rng([self.seed, 43, step])
        key = self._key(8, step, 1)
        return self.explorer.openings(prompts, group_size, key, rng)

    def targeted(self, rows: Sequence[StepRow | None]) -> list[Any]:
        """Rows with the labels that R learns by, see `config.right_targets`.

        A value model's target of a right step is its value, which the oracle does not
        know: the R that the game starts from says it.
        """
        if self.config.right_targets == "correct" or self.arena.verifier is not None:
            return list(rows)
        right = {i: r for i, r in enumerate(rows) if r is not None and r.labels[0] == 1}
        said = self.scorer.rows(self.refs.prm, right)
        valued = {
            i: dataclasses.replace(row, labels=scipy.special.expit(said[i]))
            for i, row in right.items()
        }
        return [valued.get(i, row) for i, row in enumerate(rows)]

    def players(self, state: LoopState) -> tuple[Any, Any]:
        """G and R as models, adapters applied."""
        (of_generator, of_prm), refs = self._adapted, self.refs
        return (
            lora.materialise(refs.generator, state.game.generator.params, of_generator),
            lora.materialise(refs.prm, state.game.prm.params, of_prm),
        )

    def scores(
        self, state: LoopState, points: Sequence[rollouts.Situation]
    ) -> Float32[np.ndarray, " N"]:
        """R's log-odds that the steps of situations are correct."""
        if self.arena.verifier is not None:
            return stated_log_odds(self.arena.verifier, points)
        builder = self.arena.prm_player.builder
        rows = {
            k: builder.step(point.question, point.prefix, point.step)
            for k, point in enumerate(points)
        }
        found = self.scorer.rows(self.players(state)[1], rows)
        return np.array([found[k][0] for k in rows], np.float32)

    def merged_players(self, state: LoopState) -> tuple[Any, Any]:
        """G and R as models in plain kernels, as folders of models hold them."""
        adapted, refs = self.config.lora, self.refs
        return (
            lora.merged(refs.generator, state.game.generator.params, adapted),
            lora.merged(refs.prm, state.game.prm.params, adapted),
        )

    def _key(self, *path: int) -> Any:
        key = jax.random.key(self.seed)
        for part in path:
            key = jax.random.fold_in(key, part)
        return jax.random.key_data(key)

    def _prompts(self, step: int) -> list[rollouts.Prompt]:
        """This round's (Q, S, s); those without room for a reply are left out."""
        builder, prm, c = self.arena.builder, self.arena.prm_player.builder, self.config
        wanted = max(c.groups, c.prm_clean, c.static_probe)
        room = builder.buckets[-1] - self.arena.sampler.max_new_tokens
        if self.explorer is not None:
            room -= self.explorer.longest
        start = step * 2 * wanted
        points = rollouts.situations(
            self.arena.problems, range(start, start + 2 * wanted), self.seed
        )
        prompts = [rollouts.Prompt.of(builder, point) for point in points]
        chosen = [
            prompt
            for prompt, p in zip(prompts, points, strict=True)
            if len(prompt.ids) <= room
            and prm.fits(prm.step(p.question, p.prefix, p.step))
        ]
        if len(chosen) < wanted:
            raise TooLongError(
                f"round {step}: only {len(chosen)} of {len(points)} training steps fit "
                f"the longest bucket ({builder.buckets[-1]} tokens) with "
                f"{self.arena.sampler.max_new_tokens} (builder.max_new_tokens) left "
                "for a reply; raise builder.buckets"
            )
        return chosen[:wanted]

    def _scores(self, state: LoopState, perturbations, rows, static: list[StepRow]):
        keyed = {i: row for i, row in enumerate(rows) if row is not None}
        if self.arena.verifier is not None:
            written = (perturbations[i] for i in keyed)
            points = [
                dataclasses.replace(p.situation, step=p.reply.text) for p in written
            ]
            log_odds = np.zeros(len(rows), np.float32)
            log_odds[list(keyed)] = stated_log_odds(self.arena.verifier, points)
            return log_odds, np.zeros(0, np.float32)
        prm = self.players(state)[1]
        keyed |= {-1 - i: row for i, row in enumerate(static)}
        scores = self.scorer.rows(prm, keyed)
        logits = [scores[i][0] if i in scores else 0.0 for i in range(len(rows))]
        of_static = [scores[-1 - i][0] for i in range(len(static))]
        return np.array(logits, np.float32), np.array(of_static, np.float32)

    def _batches(
        self, played: Played, state: LoopState
    ) -> tuple[GeneratorBatch, PrmBatch]:
        """What either player learns from."""
        c, arena = self.config, self.arena
        sizes = [
            batches.BatchSize(int(rows), self.multiple)
            for rows in np.asarray(state.batch_rows)
        ]
        mixture = self._mixture(played, state.replay)
        archive = state.archive
        imitated = archive and archive.sample(played.rng, c.generator_replay)
        generator_batch = batches.generator_batch(
            played.perturbations,
            played.p_correct,
            c.rewards,
            arena.builder,
            played.rng,
            c.generator_rows,
            width=arena.sampler.max_new_tokens,
            size=sizes[0],
            branch=arena.decoder.config.reads_branches,
            imitated=imitated,
            bonus=played.bonus,
            opened=self.explorer is not None and self.explorer.config.forced > 0,
        )
        return generator_batch, batches.prm_batch(
            *mixture, arena.prm_player.builder, sizes[1]
        )

    def _mixture(
        self, played: Played, replay: ReplayBuffer
    ) -> tuple[list[StepRow], list[StepRow], list[StepRow]]:
        """R's rows of a round: clean, fresh, replayed."""
        c, builder = self.config, self.arena.prm_player.builder
        clean = [
            builder.step(p.question, p.prefix, p.step, 1.0)
            for p in (prompt.situation for prompt in played.prompts[: c.prm_clean])
        ]
        clean = self.targeted(clean)
        replayed = replay.sample(played.rng, c.prm_replay)
        # Before the buffer has filled, fresh ones stand in for replayed ones.
        wanted = c.prm_fresh + c.prm_replay - len(replayed)
        hard = self._hardest(played, round(c.hard_share * wanted))
        rest = [None if i in set(hard) else r for i, r in enumerate(played.rows)]
        fresh = [
            *(row for i in hard if (row := played.rows[i]) is not None),
            *batches.fresh_rows(
                played.perturbations, rest, played.rng, wanted - len(hard)
            ),
        ]
        # A G that says few things leaves too few rows: those again, as often as drawn.
        missing = wanted - len(fresh)
        fresh += batches.fresh_rows(
            played.perturbations, played.rows, played.rng, missing
        )
        return clean, fresh, replayed

    def _hardest(self, played: Played, count: int) -> list[int]:
        """Indices of the wrong replies that R believes most, at most `count`."""
        # By the oracle, not by labels: a right step may be of little value.
        wrong = [
            row if p.verdict.label == Label.INCORRECT else None
            for p, row in zip(played.perturbations, played.rows, strict=True)
        ]
        return hardest(wrong, played.log_odds, count)

    def _update(self, game: GameState, generator_batch, prm_batch, step: int):
        mesh = self.arena.mesh
        generator_batch = shard_batch(mesh, generator_batch)
        prm_batch = shard_batch(mesh, prm_batch)
        if self.config.epochs > 1:
            full = lora.materialise(
                self.refs.generator, game.generator.params, self.config.lora
            )
            old = self.old_logprobs(full, generator_batch)
            generator_batch = dataclasses.replace(generator_batch, old_logprobs=old)
        metrics = []
        for epoch in range(self.config.epochs):
            key = self._key(9, step, epoch)
            game, found = self.update(game, self.refs, generator_batch, prm_batch, key)
            metrics.append(found)
        # An update that was skipped, in whichever epoch, is one of the round.
        skipped = jnp.max(jnp.stack([found["nonfinite"] for found in metrics]))
        return game, dict(metrics[-1]) | {"nonfinite": skipped}


def _row_counts(*batches: GeneratorBatch | PrmBatch) -> Int32[np.ndarray, " N"]:
    return np.array([len(batch.rows.tokens) for batch in batches], np.int32)
