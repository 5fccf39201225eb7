"""A round's perturbations cut into the batches that the two players learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32

from aprm_jax.config.game import RewardsConfig
from aprm_jax.data.rows import (
    StepBatch,
    StepRow,
    concatenate,
    one_of_few,
    packing,
)
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.game.rewards import generator_rewards
from aprm_jax.game.rollouts import Perturbation
from aprm_jax.game.update import GeneratorBatch
from aprm_jax.oracle.verdict import Label
from aprm_jax.verifiers.step_loss import PrmBatch

STEPS_A_ROW = 16  # at most, where several stand in one


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
