"""One round's perturbations: sample, verify, score, and cut into the two batches."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from aprm_jax.config.game import RewardsConfig
from aprm_jax.data.replies import Reply, ReplyFormat
from aprm_jax.data.rows import (
    StepBatch,
    StepRow,
    concatenate,
    one_of_few,
    packing,
)
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.game.rewards import generator_rewards
from aprm_jax.game.update import GeneratorBatch
from aprm_jax.oracle.verdict import Label, Verdict
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.tasks.protocols import Corruptor, Problems, StepOracle
from aprm_jax.verifiers.step_loss import PrmBatch

STEPS_A_ROW = 16  # at most, where several stand in one
THRESHOLD = 0.5  # R's verdict in the game is a draw from p; 0.5 is its mode
TOO_LONG = "too_long"  # for R's rows; of some builders also a reason of their own


@dataclasses.dataclass(frozen=True)
class Situation:
    """A point to perturb: question Q, correct prefix S, correct next step s."""

    question: str
    prefix: tuple[str, ...]
    step: str


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A situation as G reads it: ids up to where its reply begins."""

    situation: Situation
    ids: tuple[int, ...]

    @classmethod
    def of(cls, builder: StepBuilder, point: Situation) -> Prompt:
        """What `builder` makes of a situation."""
        ids = builder.perturb_context(point.question, point.prefix, point.step)
        return cls(point, tuple(ids))


@dataclasses.dataclass(frozen=True)
class Opening:
    """What a reply begins with that another model drew.

    Attributes:
      ids: of the tokens.
      logprobs: that model's.
    """

    ids: tuple[int, ...] = ()
    logprobs: Float32[np.ndarray, " T"] = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.float32), compare=False
    )

    def reply(self, rest: Reply, room: int) -> Reply:
        """The whole reply, of at most `room` tokens, from what G went on with."""
        ids = (*self.ids, *rest.ids)
        return Reply(
            ids[:room],
            np.concatenate([self.logprobs, rest.logprobs])[:room],
            rest.stopped and len(ids) <= room,
            forced=min(len(self.ids), room),
        )


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Equal replies of one group, merged: they have one gradient, `count` times it.

    Attributes:
      prompt: what was perturbed.
      group: index of the prompt in its round.
      reply: as it was drawn first; its `reason` may be TOO_LONG too.
      count: how often it was drawn.
      verdict: the oracle's, or the rule's on what is not one step.
    """

    prompt: Prompt
    group: int
    reply: Reply
    count: int
    verdict: Verdict

    @property
    def situation(self) -> Situation:
        """What was perturbed, in words."""
        return self.prompt.situation


@dataclasses.dataclass(frozen=True)
class BatchSize:
    """How many rows a batch has; an update is compiled for each number.

    Attributes:
      least: as many as earlier rounds had: what is compiled is used again.
      multiple: devices and microbatches, which rows are dealt out to.
    """

    least: int = 0
    multiple: int = 1

    def of(self, count: int) -> int:
        """Rows of a batch that holds `count`."""
        size = max(self.least, one_of_few(count, self.multiple))
        # Those rounds may have been played on other devices.
        return -(-size // self.multiple) * self.multiple


def situations(
    problems: Problems, indices: Sequence[int], seed: int
) -> list[Situation]:
    """One step of each training problem, chosen by (seed, index) alone."""
    out = []
    for index in indices:
        problem = problems.train(index)
        rng = np.random.default_rng([seed, 11, index])
        k = int(rng.integers(len(problem.steps)))
        out.append(Situation(problem.question, problem.steps[:k], problem.steps[k]))
    return out


def perturb(
    sampler: Sampler,
    generator_backbone: Any,
    prompts: Sequence[Prompt],
    group_size: int,
    key: Any,
    queries: OracleQueries,
    openings: Sequence[Opening] | None = None,
) -> list[list[Reply]]:
    """Draws `group_size` replies to each prompt, at temperature 1, untruncated.

    `queries` asks the oracle about each reply while others are still sampled. Each
    goes on from its opening, where there are `openings`.
    """
    count = group_size * len(prompts)
    opened = openings or [Opening()] * count
    ids = [(*prompts[i // group_size].ids, *opened[i].ids) for i in range(count)]

    def reply(samples: Samples, i: int) -> Reply:
        drawn = samples.reply(i)
        return opened[i].reply(drawn, sampler.max_new_tokens) if openings else drawn

    def submit(samples: Samples, rows: Sequence[int]) -> None:
        for i in rows:
            queries.submit(i // group_size, reply(samples, i))

    samples = sampler.sample(generator_backbone, ids, key, stored=submit)
    replies = [reply(samples, i) for i in range(count)]
    return [replies[i : i + group_size] for i in range(0, len(ids), group_size)]


def verify(
    groups: Sequence[Sequence[Reply]],
    prompts: Sequence[Prompt],
    queries: OracleQueries,
) -> list[Perturbation]:
    """Merges the equal replies to each prompt, and waits for the verdicts on them."""
    for group, replies in enumerate(groups):
        for reply in replies:
            queries.submit(group, reply)
    out = []
    for group, replies in enumerate(groups):
        counts = Counter(reply.ids for reply in replies)
        first = {reply.ids: reply for reply in reversed(replies)}
        for ids, count in counts.items():
            reply, verdict = queries.result(group, first[ids])
            out.append(Perturbation(prompts[group], group, reply, count, verdict))
    return out


class OracleQueries:
    """What the oracle says of a round's replies, each distinct one asked about once.

    An oracle that has a `submit` answers in the background. A reply that is not one
    closed step, or does not fit R's rows, is undecidable by rule: it never reaches R,
    and pays G as a failure to corrupt.

    Args:
      prompts: what is replied to.
      oracle: of the problems.
      replies: how they are read.
      rows: R's.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        oracle: StepOracle,
        replies: ReplyFormat,
        rows: RowFormat,
    ):
        self._prompts, self._replies, self._rows = prompts, replies, rows
        self._ask = getattr(oracle, "submit", oracle.judge)
        self._submitted: dict[
            tuple[int, tuple[int, ...]], tuple[Reply, Verdict | Future[Verdict]]
        ] = {}

    def submit(self, group: int, reply: Reply) -> None:
        """Asks about a reply to prompt `group`."""
        if (group, reply.ids) in self._submitted:
            return
        point = self._prompts[group].situation
        read, rows = self._replies.read(reply), self._rows
        if not read.reason and not rows.fits(
            rows.step(point.question, point.prefix, read.text)
        ):
            read = dataclasses.replace(read, reason=TOO_LONG)
        if read.reason:
            why = f"the reply is not one step: {read.reason}"
            verdict = Verdict(Label.UNDECIDABLE, "unfinished", why)
        else:
            verdict = self._ask(point.question, point.prefix, point.step, read.text)
        self._submitted[group, reply.ids] = read, verdict

    def result(self, group: int, reply: Reply) -> tuple[Reply, Verdict]:
        """A reply that was asked about, read, and its verdict; waits for that."""
        read, verdict = self._submitted[group, reply.ids]
        if isinstance(verdict, Future):
            verdict = verdict.result()
        return dataclasses.replace(reply, text=read.text, reason=read.reason), verdict


def prm_rows(
    perturbations: Sequence[Perturbation], builder: RowFormat
) -> list[StepRow | None]:
    """Each perturbation as R sees it; None where R must not."""
    rows: list[StepRow | None] = []
    for p in perturbations:
        if p.verdict.label == Label.UNDECIDABLE:
            rows.append(None)
            continue
        point, label = p.situation, float(p.verdict.label == Label.CORRECT)
        rows.append(builder.step(point.question, point.prefix, p.reply.text, label))
    return rows


def generator_batch(
    perturbations: Sequence[Perturbation],
    p_correct: Float32[np.ndarray, " N"],
    table: RewardsConfig,
    builder: StepBuilder,
    rng: np.random.Generator,
    most: int,
    *,
    width: int,
    size: BatchSize | None = None,
    branch: bool = True,
    imitated: Sequence[StepRow] | None = None,
    bonus: Float32[np.ndarray, " N"] | None = None,
    opened: bool = False,
) -> GeneratorBatch:
    """Up to `most` distinct perturbations, uniformly among those that do not fit.

    Args:
      perturbations: of one round.
      p_correct: R's probability of correct for each; ignored where undecidable.
      table: the rewards.
      builder: makes the rows.
      rng: chooses which are left out.
      most: replies that are learned from.
      width: R, no less than the tokens of any reply.
      size: gives B.
      branch: whether replies to one prompt share it; else each repeats it.
      imitated: rows of one reply each that G is to imitate besides; None for a game
        without.
      bonus: what each is paid besides; None for nothing.
      opened: whether replies may begin with what another model drew.
    """
    labels = np.array([int(p.verdict.label) for p in perturbations])
    reward = generator_rewards(table, labels, p_correct)
    if bonus is not None:
        reward = reward + bonus
    no_step = np.array([bool(p.reply.reason) for p in perturbations])
    reward = np.where(no_step, table.generator_still_correct, reward)
    learnable = np.flatnonzero((labels != Label.UNDECIDABLE) | no_step)
    chosen = np.sort(rng.permutation(learnable)[:most])
    together = _sharing([perturbations[i] for i in chosen], builder, branch)
    made = [_replies_row([perturbations[chosen[k]] for k in t]) for t in together]
    examples = imitated or ()
    rows = [*(builder.continuation(*ids) for ids in made), *examples]
    if not rows:  # nothing to learn from: a batch of padding, all weights 0
        rows = [builder.continuation([builder.bos_id], [builder.step_id])]
    batch, parts = _packed(rows, builder, size or BatchSize())
    columns = _columns(batch, width)
    rewards, sampler_logprobs, forced = (
        np.zeros(columns.shape, np.float32) for _ in range(3)
    )
    weight, imitation = (np.zeros(columns.shape[:2], np.float32) for _ in range(2))
    group = np.zeros(columns.shape[:2], np.int32)
    # Of those in the batch: a round may have more groups than it has places.
    groups = dict.fromkeys(perturbations[i].group for i in chosen)
    numbers = {number: k for k, number in enumerate(groups)}
    # Which perturbation each reply of a row is; None for what is imitated.
    replies = [[chosen[k] for k in t] for t in together] + [[None]] * len(examples)
    for b, part in enumerate(parts if replies else ()):
        for s, i in enumerate(i for row in part for i in replies[row]):
            if i is None:
                imitation[b, s] = 1.0
                continue
            p = perturbations[i]
            end = len(p.reply.ids)
            sampler_logprobs[b, s, :end] = p.reply.logprobs
            forced[b, s, : p.reply.forced] = 1.0
            weight[b, s], group[b, s] = p.count, numbers[p.group]
            rewards[b, s, end - 1] = reward[i]
    return GeneratorBatch(
        rows=batch,
        columns=columns,
        rewards=rewards,
        weight=weight,
        imitation=None if imitated is None else imitation,
        group=group,
        sampler_logprobs=sampler_logprobs,
        old_logprobs=None,
        forced=forced if opened else None,
    )


def _sharing(
    perturbations: Sequence[Perturbation], builder: StepBuilder, branch: bool
) -> list[list[int]]:
    """Which perturbations share a row: replies to one prompt, as many as fit."""
    together: list[list[int]] = []
    group, free = -1, 0
    for i, p in enumerate(perturbations):
        size = len(p.reply.ids)
        shared = branch and p.group == group and size <= free
        if not shared or len(together[-1]) == STEPS_A_ROW:
            together.append([])
            group, free = p.group, builder.buckets[-1] - len(p.prompt.ids)
        together[-1].append(i)
        free -= size
    return together


def _packed(
    rows: Sequence[StepRow], builder: RowFormat, size: BatchSize
) -> tuple[StepBatch, list[list[int]]]:
    """Rows of the longest bucket that hold `rows`, and which of them each holds."""
    length = builder.buckets[-1]
    parts = packing(rows, length, STEPS_A_ROW)
    batch = builder.collate(
        [concatenate([rows[i] for i in part]) for part in parts],
        length=length,
        max_steps=STEPS_A_ROW,
        batch_size=size.of(len(parts)),
    )
    return batch, parts


def _replies_row(perturbations: Sequence[Perturbation]) -> list[Sequence[int]]:
    """The prompt of some perturbations, and their replies."""
    return [perturbations[0].prompt.ids, *(p.reply.ids for p in perturbations)]


def _columns(rows: StepBatch, width: int) -> Int32[np.ndarray, "B S R"]:
    """Where each step's tokens stand in their row; -1 past its end."""
    out = np.full((*rows.labels.shape, width), -1, np.int32)
    for b, s in np.argwhere(rows.step_mask > 0):
        at = np.flatnonzero(rows.step_ids[b] == s)
        out[b, s, : len(at)] = at
    return out


def fresh_rows(
    perturbations: Sequence[Perturbation],
    rows: Sequence[StepRow | None],
    rng: np.random.Generator,
    count: int,
) -> list[StepRow]:
    """`count` of a round's decided perturbations, drawn as often as G drew them."""
    known = [i for i, row in enumerate(rows) if row is not None]
    if not known:
        return []
    weight = np.array([perturbations[i].count for i in known], np.float64)
    # One pass over the merged list: expand by count, shuffle, keep distinct rows
    # first so that a collapsed G does not fill R's batch with one sentence.
    order = rng.permutation(np.repeat(np.arange(len(known)), weight.astype(int)))
    first = list(dict.fromkeys(int(i) for i in order))
    chosen = first[:count]
    rest = [int(i) for i in order][: max(0, count - len(chosen))]
    picked = [rows[known[i]] for i in [*chosen, *rest]]
    return [row for row in picked if row is not None]


def prm_batch(
    clean: Sequence[StepRow],
    fresh: Sequence[StepRow],
    replayed: Sequence[StepRow],
    builder: RowFormat,
    size: BatchSize | None = None,
) -> PrmBatch:
    """R's mixture of one round, packed; where it comes from in the order of `SOURCES`.

    Args:
      clean: correct steps.
      fresh: steps of this round.
      replayed: of earlier ones.
      builder: pads the rows.
      size: gives B.
    """
    rows = [*clean, *fresh, *replayed]
    origin = np.repeat(np.arange(3), [len(clean), len(fresh), len(replayed)])
    batch, parts = _packed(rows, builder, size or BatchSize())
    source = np.zeros(batch.labels.shape, np.int32)
    for b, part in enumerate(parts):
        source[b, : len(part)] = origin[part]
    return PrmBatch(rows=batch, source=source)


def static_rows(
    points: Iterable[Situation],
    corruptor: Corruptor,
    oracle: StepOracle,
    builder: RowFormat,
    rng: np.random.Generator,
    count: int,
) -> list[StepRow]:
    """Up to `count` static corruptions that the oracle calls incorrect, labelled 0.

    Those that do not fit a row of `builder` are left out.
    """
    out = []
    for point in points:
        if len(out) == count:
            break
        text = corruptor.corrupt(rng, point.question, point.prefix, point.step)
        if text is None:
            continue
        verdict = oracle.judge(point.question, point.prefix, point.step, text)
        if verdict.label == Label.INCORRECT:
            out.append(builder.step(point.question, point.prefix, text, 0.0))
    return [row for row in out if builder.fits(row)]


def round_metrics(
    perturbations: Sequence[Perturbation],
    p_correct: Float32[np.ndarray, " N"],
    threshold: float,
    kinds: Sequence[str],
    reasons: Sequence[str],
) -> dict[str, float]:
    """Rates of one round, each perturbation weighted by how often it was drawn.

    Rates over a set that is empty are left out, never reported as 0.

    Args:
      perturbations: of one round, at least one.
      p_correct: R's probability of correct for each; ignored where undecidable.
      threshold: from which on R says correct.
      kinds: of errors, the oracle's: `kind_share/KIND`, `kind_caught/KIND`.
      reasons: why a reply may be no step, the builder's: `reply/REASON` is the share
        of each among all replies, `reply/one_step` that of the rest.
    """
    count = np.array([p.count for p in perturbations], np.float64)
    label = np.array([int(p.verdict.label) for p in perturbations])
    incorrect = count * (label == Label.INCORRECT)
    fooled = p_correct >= threshold
    total = count.sum()
    metrics = {
        "game/incorrect_rate": incorrect.sum() / total,
        "game/still_correct_rate": (count * (label == Label.CORRECT)).sum() / total,
        "game/undecidable_rate": (count * (label == Label.UNDECIDABLE)).sum() / total,
        "game/success_rate": (incorrect * fooled).sum() / total,
        "game/distinct_rate": len(perturbations) / total,
        "game/oracle_calls": sum(not p.reply.reason for p in perturbations),
    }
    copied = [p.count for p in perturbations if p.reply.text == p.situation.step]
    metrics["game/copied_rate"] = sum(copied) / total
    distance = [edit_distance(p.situation.step, p.reply.text) for p in perturbations]
    metrics["game/edit_distance"] = float((count * distance).sum() / total)
    for reason in ("", *dict.fromkeys((*reasons, TOO_LONG))):
        of_reason = count * np.array([p.reply.reason == reason for p in perturbations])
        metrics[f"reply/{reason or 'one_step'}"] = of_reason.sum() / total
    if incorrect.sum() > 0:
        metrics["game/fool_rate"] = (incorrect * fooled).sum() / incorrect.sum()
        metrics["game/caught_rate"] = 1.0 - metrics["game/fool_rate"]
        for kind in kinds:
            of_kind = incorrect * np.array(
                [p.verdict.kind == kind for p in perturbations]
            )
            metrics[f"kind_share/{kind}"] = of_kind.sum() / incorrect.sum()
            if of_kind.sum() > 0:
                metrics[f"kind_caught/{kind}"] = (
                    of_kind * ~fooled
                ).sum() / of_kind.sum()
    return {name: float(value) for name, value in metrics.items()}


def edit_distance(step: str, candidate: str) -> float:
    """Share of tokens that differ, 0 for a copy and 1 for nothing in common."""
    matcher = SequenceMatcher(None, step.split(), candidate.split(), autojunk=False)
    return 1.0 - matcher.ratio()
