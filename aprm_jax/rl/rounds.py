"""Rounds of RL: sample, grade, score, update; watched for hacks, resumable bitwise."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int32

from aprm_jax.config.errors import UserError
from aprm_jax.models import lora, quantised
from aprm_jax.models.decoder import Decoder
from aprm_jax.policy.logprobs import PolicyTokens, read_replies
from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.implicit import ImplicitPRM, OutcomeBatch
from aprm_jax.rl.monitor import gap, habits, over_the_limit
from aprm_jax.rl.payment import idle, payment_of
from aprm_jax.rl.sources import Graded, Said, said
from aprm_jax.rl.task import Guard, Rollouts, Sampled, Task
from aprm_jax.rl.trajectories import SolutionRows, collated, together, trajectory
from aprm_jax.rl.update import (
    Payment,
    PolicyBatch,
    Readings,
    in_rows,
    over_updates,
    policy_loss,
)
from aprm_jax.training import hosts
from aprm_jax.training.learner import LearnerState, by_microbatch, make_update, start
from aprm_jax.training.mesh import (
    batch_shards,
    on_mesh,
    shard_batch,
)
from aprm_jax.training.step_log import StepOutput
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.protocol import Verifier

ALARMS = ("gap", "kl", "repeated", "empty", "copied", "length", "drop")


class NothingLearnedError(UserError, RuntimeError):
    """Round after round there was nothing to learn from; the message says why."""


@flax.struct.dataclass
class Watch:
    """What the monitor remembers.

    Attributes:
      over: rounds in a row beyond a limit.
      idle: rounds in a row without anything to learn from.
      stopped: 1 + the index in `ALARMS` of what stopped the run; 0 while it goes on.
      first_tokens: tokens a solution in the first round; 0 before.
      dev: the last dev accuracy; -1 before.
      best: that of the best parameters; likewise.
      best_step: rounds behind them.
    """

    over: np.ndarray
    idle: np.ndarray
    stopped: np.ndarray
    first_tokens: np.ndarray
    dev: np.ndarray
    best: np.ndarray
    best_step: np.ndarray

    @classmethod
    def begun(cls) -> Watch:
        """Nothing seen yet."""
        zero, unknown = np.asarray(0, np.int64), np.asarray(-1.0, np.float64)
        return cls(
            zero, zero, zero, np.asarray(0.0, np.float64), unknown, unknown, zero
        )


@flax.struct.dataclass
class LoopState:
    """What a checkpoint holds.

    Attributes:
      policy: of `{"backbone"}`, or with LoRA `{"lora"}`; with a critic and
        `{"value_head"}`.
      watch: the monitor's.
      best: the policy's parameters of the best dev accuracy, on the host.
      behind: what the next round is sampled from, where that may be older.
      guard: the state of a verifier that goes on learning.
      implicit: that of a language model that pays and learns.
    """

    policy: LearnerState
    watch: Watch
    best: Any
    behind: Any = None
    guard: Any = None
    implicit: LearnerState | None = None


def compiled_update(
    config: RLConfig,
    decoder: Decoder,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    most_tokens: int,
) -> Callable[..., Any]:
    """The step of a policy; see `update.policy_loss` and `learner.make_update`."""
    loss = functools.partial(
        policy_loss, decoder=decoder, config=config, most_tokens=most_tokens
    )
    return make_update(
        loss,
        tx,
        mesh,
        microbatches=config.microbatches,
        prefix="policy/",
        summable=True,
    )


def dealt(
    config: RLConfig, shards: int
) -> tuple[list[list[int]], Int32[np.ndarray, "B K"]]:
    """Which of a round's solutions share a row, and the one in each place of the rows.

    Args:
      config: groups, minibatches and microbatches.
      shards: of the mesh.

    Returns:
      Indices of each row's; and of each place, -1 for none, rows up to a multiple of
      what they are dealt out to.
    """
    parts = config.minibatches * config.microbatches * shards
    rows = together(config.groups, config.group_size, parts)
    if config.minibatches > 1:  # they are dealt out solution by solution
        rows = [[i] for row in rows for i in row]
    count = -(-len(rows) // parts) * parts
    slots = np.full((count, max(map(len, rows))), -1, np.int32)
    for places, row in zip(slots, rows, strict=False):
        places[: len(row)] = row
    return rows, slots


class Rounds:
    """RL of one solver; `step_fn` is the training loop's.

    Args:
      task: what is solved.
      config: how.
      policy: the solver's parameters and reference, `{"backbone"}`, and with a critic
        `{"value_head"}`; with LoRA the base of its adapter.
      seed: of problems, sampling and batches.
      verifier: scores the steps; None where no reward needs one.
      guard: trains it further; then its verifier is the one that scores.
      implicit: the language model that pays "implicit" rewards.
      sink: takes logged solutions.
      rollouts: draws what is learned from; None for the task's own solver.
      threaded: whether rounds that overlap are sampled in a thread; by default where
        no device could be asked by two threads for what several do together, and
        none is the processor's own cores.
    """

    def __init__(
        self,
        task: Task,
        config: RLConfig,
        *,
        policy: Any,
        seed: int,
        verifier: Verifier | None = None,
        guard: Guard | None = None,
        implicit: ImplicitPRM | None = None,
        sink: Callable[[dict], None] | None = None,
        rollouts: Rollouts | None = None,
        threaded: bool | None = None,
    ):
        self.task, self.config, self.seed, self.sink = task, config, seed, sink
        self.guard, self._verifier, self.implicit = guard, verifier, implicit
        self._rollouts = rollouts
        if threaded is None:
            apart = jax.default_backend() != "cpu" and jax.device_count() == 1
            threaded = hosts.count() == 1 and (apart or rollouts is not None)
        self._pool = ThreadPoolExecutor(1, "sample") if threaded else None
        self._pending: tuple[int, Future[Sampled]] | None = None
        tx = config.optimiser()
        begun = start(lora.player(self._key(10), policy, config.lora), tx, task.mesh)
        int8 = config.references == "int8"
        [self.ref] = quantised.held(policy) if int8 else (policy,)
        self._update = compiled_update(
            config, task.decoder, tx, task.mesh, task.most_tokens
        )
        self._advantages = jax.jit(functools.partial(in_rows, config))
        self._read = jax.jit(on_mesh(task.mesh, self._read_tokens))
        self._together, self._slots = dealt(config, batch_shards(task.mesh))
        self.state = LoopState(
            policy=begun,
            watch=Watch.begun(),
            best=hosts.fetch(begun.params),
            behind=_copied(begun.params) if config.overlap or self._every > 1 else None,
            guard=None if guard is None else guard.state,
            implicit=None if implicit is None else implicit.state,
        )

    @staticmethod
    def finished(state: LoopState) -> bool:
        """Whether an alarm has ended the run."""
        return bool(state.watch.stopped)

    def model(self, trained: Any) -> Any:
        """Trained parameters as a model, adapters applied."""
        return lora.materialise(self.ref, trained, self.config.lora)

    def merged(self, trained: Any) -> Any:
        """The same in plain kernels, as folders of models hold them."""
        return lora.merged(self.ref, trained, self.config.lora)

    def step_fn(self, state: LoopState, step: int, timer: PhaseTimer) -> StepOutput:
        """One round."""
        with timer("sample"):
            sampled = self._sampled(state, step)
        behind = self._look_ahead(state, step)
        with timer("verify"):
            graded = self._graded(sampled, step)
        with timer("score"):
            word = self._said(state, sampled)
        metrics: dict[str, Any] = (
            {"nonfinite": 0.0}
            | habits(sampled.flat)
            | gap(graded.right, None if word is None else word.whole_read)
        )
        with timer("data"):
            payment, found = payment_of(self.config, graded, word, self.task.max_steps)
        metrics |= found
        batch, why = None, idle(metrics, payment)
        metrics["rl/idle"] = float(bool(why))
        if not why:
            with timer("update") as phase:
                state, batch, updated = self._learn(
                    state, payment, graded, sampled, step
                )
                phase.wait(state.policy)
            # The monitor looks at them, and the round is over anyway.
            metrics |= {k: float(v) for k, v in hosts.fetch(updated).items()}
        else:
            metrics |= self._unlearned(state, sampled)
        guard = state.guard
        if self.guard is not None:
            number = self._number(step)
            guard, played = self.guard.play(guard, number, timer, sampled.flat)
            metrics |= played
        state = dataclasses.replace(state, behind=behind, guard=guard)
        with timer("evaluate"):
            state, metrics = self._watched(state, metrics, step, why)
        self._log(sampled, graded, word, step)
        return StepOutput(state, metrics, batch)

    def _sampled(self, state: LoopState, step: int) -> Sampled:
        pending, self._pending = self._pending, None
        if pending is not None and pending[0] == step:
            return pending[1].result()
        return self._sample(self._source(state, step), step)

    @property
    def _every(self) -> int:
        """Rounds that are sampled from the same parameters."""
        return 1 if self._rollouts is None else self._rollouts.every

    def _source(self, state: LoopState, step: int) -> Any:
        """The parameters that a round is sampled from."""
        fresh = step % self._every == 0 and not self.config.overlap
        return state.policy.params if fresh else state.behind

    def _look_ahead(self, state: LoopState, step: int) -> Any:
        """The parameters that the next round is sampled from, as far as they are known.

        With rounds that overlap it begins here.
        """
        overlap = self.config.overlap
        if not overlap and self._every == 1:
            return None
        fresh = (step + overlap) % self._every == 0
        behind = _copied(state.policy.params) if fresh else state.behind
        if overlap and self._pool is not None and step + 1 < self.config.updates:
            future = self._pool.submit(self._sample, behind, step + 1)
            self._pending = step + 1, future
        return behind

    def _settle(self) -> None:
        """Waits for what is sampled ahead: tokenizers are for one thread at a time."""
        if self._pending is not None:
            self._pending[1].exception()

    def _sample(self, trained: Any, step: int) -> Sampled:
        c, task = self.config, self.task
        number = self._number(step)
        problems = [
            task.problems.train(index)
            for index in range(number * c.groups, (number + 1) * c.groups)
        ]
        key = self._key(8, number)
        if self._rollouts is None:
            backbone = self.model(trained)["backbone"]
            solutions = task.solve(backbone, problems, c.group_size, key)
        else:
            version = step // self._every
            solutions = self._rollouts.solve(
                trained, version, problems, c.group_size, key
            )
        rows = [trajectory(task.builder, s) for row in solutions for s in row]
        return Sampled(problems, solutions, rows)

    def _number(self, step: int) -> int:
        """Of a round among those of all stages that this one goes on from."""
        return step + self.config.rounds_before

    def _graded(self, sampled: Sampled, step: int) -> Graded:
        c, flat = self.config, sampled.flat
        right = self.task.right(sampled.problems, sampled.solutions).reshape(-1)
        rng = np.random.default_rng([self.seed, 43, self._number(step)])
        # A share above 0 is of one problem at least.
        count = max(round(c.verifiable_share * c.groups), c.verifiable_share > 0)
        chosen = rng.permutation(c.groups)[:count]
        paid = np.isin(np.arange(c.groups), chosen).repeat(c.group_size)
        lengths = [t.num_tokens if t else 0 for t in sampled.trajectories]
        return Graded(
            right,
            paid,
            np.array(lengths, np.float32),
            np.array([len(s.tokens) for s in flat], np.float32),
            self.task.most_tokens,
        )

    def _said(self, state: LoopState, sampled: Sampled) -> Said | None:
        verifier = self._verifier
        if self.guard is not None:
            verifier = self.guard.verifier(state.guard)
        if verifier is None:
            return None
        c = self.config
        return said(verifier, sampled.flat, "progress" in c.rewards, c.pay.unfinished)

    def _read_tokens(self, params: Any, rows: Any) -> PolicyTokens:
        decoder, parts = self.task.decoder, self.config.microbatches
        return by_microbatch(
            lambda part: read_replies(decoder, params, *part), rows, parts
        )

    def _learn(
        self,
        state: LoopState,
        payment: Payment,
        graded: Graded,
        sampled: Sampled,
        step: int,
    ) -> tuple[LoopState, PolicyBatch, dict[str, Any]]:
        """The round's updates, all by advantages as they were at its start."""
        c, task, policy = self.config, self.task, state.policy
        rows, placed = self._rows(sampled)
        payment = jax.tree.map(self._placed, payment)
        read = Readings(self._read({"backbone": self.ref["backbone"]}, placed).logprobs)
        # One update of one epoch learns at the very iterate that it is compared with.
        once = c.epochs * c.minibatches == 1
        if c.critic or not once or (c.kl_weight and c.kl_as == "reward"):
            tokens = self._read(self.model(policy.params), placed)
            read = dataclasses.replace(
                read, old_logprobs=tokens.logprobs, values=tokens.values
            )
        implicit, taught = state.implicit, {}
        if self.implicit is not None:
            if implicit is not None:
                known = payment.weight * self._placed(graded.paid)
                outcomes = OutcomeBatch(
                    rows,
                    self._placed(graded.right).reshape(self._slots.shape),
                    known.reshape(self._slots.shape),
                    read.ref_logprobs,
                )
                implicit, taught = self.implicit.learn(implicit, outcomes)
            paying = self.implicit.model(implicit)
            read = dataclasses.replace(
                read, implicit=self._read(paying, placed).logprobs
            )
        advantages, returns = self._advantages(rows.step_ids, payment, read)
        batch = PolicyBatch(
            read=rows,
            weight=payment.weight.reshape(self._slots.shape),
            advantages=advantages,
            ref_logprobs=read.ref_logprobs,
            old_logprobs=read.old_logprobs,
            returns=returns,
        )
        if not once:  # minibatches are dealt out on the host
            batch = hosts.fetch(batch)
        metrics = []
        for epoch in range(c.epochs):
            for part in self._minibatches(batch, step, epoch):
                policy, found = self._update(
                    policy, shard_batch(task.mesh, part), self.ref
                )
                metrics.append(found)
        found = over_updates(metrics)
        wrong = jnp.maximum(found["nonfinite"], taught.get("nonfinite", 0.0))
        state = dataclasses.replace(state, policy=policy, implicit=implicit)
        return state, batch, found | taught | {"nonfinite": wrong}

    def _rows(self, sampled: Sampled) -> tuple[SolutionRows, Any]:
        """Solutions in rows, and of these what models read, on its devices."""
        task = self.task
        rows = collated(
            task.builder,
            [[sampled.trajectories[i] for i in row] for row in self._together],
            task.max_steps,
            len(self._slots),
            task.decoder.config.reads_branches,
        )
        return rows, shard_batch(task.mesh, (rows.rows, rows.columns))

    def _unlearned(self, state: LoopState, sampled: Sampled) -> dict[str, float]:
        """KL in a round without an update: where all is alike it may be largest."""
        if not any(sampled.trajectories):
            return {}
        rows, placed = self._rows(sampled)
        models = self.model(state.policy.params), {"backbone": self.ref["backbone"]}
        read = (hosts.fetch(self._read(model, placed).logprobs) for model in models)
        written = np.asarray(rows.columns) >= 0
        apart = np.where(written, np.subtract(*read), 0.0)
        return {
            "policy/kl_token": float(apart.sum() / written.sum()),
            "policy/kl_sequence": float(apart.sum() / written.any(axis=-1).sum()),
        }

    def _placed(self, x: Any) -> np.ndarray:
        """What solutions have, in the order of their places; 0 where there is none."""
        places = self._slots.ravel()
        out = np.asarray(x)[places]
        out[places < 0] = 0
        return out

    def _minibatches(self, batch: PolicyBatch, step: int, epoch: int):
        count = self.config.minibatches
        if count == 1:
            return [batch]
        rng = np.random.default_rng([self.seed, 42, self._number(step), epoch])
        # Those that weigh anything are dealt out evenly: none may be left with nothing.
        order = rng.permutation(len(batch.weight))
        nothing = ~batch.weight[order].any(axis=1)
        order = order[np.argsort(nothing, kind="stable")]
        parts = (
            jax.tree.map(lambda x, i=i: x[order[i::count]], batch) for i in range(count)
        )
        # One that weighs nothing would move nothing, and cost an update.
        return [part for part in parts if part.weight.any()]

    def _watched(
        self, state: LoopState, metrics: dict[str, Any], step: int, why: str
    ) -> tuple[LoopState, dict[str, Any]]:
        """Dev accuracy now and then, the best parameters so far, and the alarm."""
        c, watch, best = self.config, state.watch, state.best
        if c.dev_every and not step:  # a policy that only gets worse is no better
            before = self.accuracy(self.model(best))
            metrics["dev/before"] = before
            known = np.asarray(before, np.float64)
            watch = dataclasses.replace(watch, dev=known, best=known)
        last = step + 1 == c.updates
        looked = c.dev_every > 0 and ((step + 1) % c.dev_every == 0 or last)
        if looked:
            accuracy = self.accuracy(self.model(state.policy.params))
            metrics["dev/accuracy"] = accuracy
            watch = dataclasses.replace(watch, dev=np.asarray(accuracy, np.float64))
            if accuracy > watch.best:
                best = hosts.fetch(state.policy.params)
                watch = dataclasses.replace(
                    watch,
                    best=np.asarray(accuracy, np.float64),
                    best_step=np.asarray(step + 1, np.int64),
                )
        if watch.best >= 0:
            metrics["dev/best"] = float(watch.best)
        tokens = float(watch.first_tokens)
        drop = float(watch.best - watch.dev) if watch.best >= 0 else math.nan
        over = over_the_limit(metrics, c.alarm, tokens, drop)
        metrics["alarm"] = float(bool(over))
        rounds = int(watch.over) + 1 if over else 0
        if over == ["drop"] and not looked:  # it was counted when dev was looked at
            rounds = int(watch.over)
        stopped = 1 + ALARMS.index(over[0]) if over and rounds >= c.alarm.rounds else 0
        idle = int(watch.idle) + 1 if why else 0
        if c.max_idle and idle >= c.max_idle:
            raise NothingLearnedError(
                f"round {step + 1}: {idle} rounds in a row (rl.max_idle) had nothing "
                f"to learn from; of the last one {why}"
            )
        watch = dataclasses.replace(
            watch,
            over=np.asarray(rounds, np.int64),
            idle=np.asarray(idle, np.int64),
            stopped=np.asarray(stopped, np.int64),
            first_tokens=np.asarray(tokens or metrics["rl/tokens"], np.float64),
        )
        return dataclasses.replace(state, watch=watch, best=best), metrics

    def accuracy(self, model: Any) -> float:
        """The share of samples of the dev split that are right; each time as drawn."""
        c = self.config
        self._settle()
        problems = list(self.task.problems.problems("dev", c.dev_problems))
        key = self._key(9)
        solved = self.task.solve(model["backbone"], problems, c.dev_samples, key)
        return float(self.task.right(problems, solved).mean())

    def _key(self, *path: int) -> Any:
        key = jax.random.key(self.seed)
        for part in (70, *path):
            key = jax.random.fold_in(key, part)
        return jax.random.key_data(key)

    def _log(self, sampled: Sampled, graded: Graded, word: Said | None, step: int):
        """The first solution of a few problems, as plain rows."""
        every = self.config.sample_log
        if self.sink is None or not every or step % every:
            return
        for g, row in list(enumerate(sampled.solutions))[:4]:
            index = g * self.config.group_size
            scores = None if word is None else word.steps[index].tolist()
            self.sink(
                {
                    "step": step,
                    "question": row[0].question,
                    "steps": list(row[0].steps),
                    "correct": bool(graded.right[index]),
                    "scores": scores and [None if s != s else s for s in scores],
                }
            )


def _copied(tree: Any) -> Any:
    return jax.tree.map(lambda x: x + 0, tree)
