"""A PRM on labelled solutions: PRM800K, Math-Shepherd and whatever has a reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aprm_jax.config import ConfigError
from aprm_jax.data.epochs import PackedEpochs
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.data.labelled_texts import read_labelled
from aprm_jax.data.rows import StepRow
from aprm_jax.data.trees import STEP_TOKENS, tree_rows
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.held_out import note_held_out
from aprm_jax.jobs.records.prm import VALUES
from aprm_jax.jobs.tree_data import value_solutions
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.training.ahead import Ahead
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.labelled import (
    class_weights,
    label_batch,
    merge,
    prefix_tree,
)
from aprm_jax.verifiers.step_loss import THREE_CLASS, PrmBatch


def label_batches(
    context: Context, size: int
) -> Callable[[Any, int, PhaseTimer], PrmBatch]:
    """Batches of `size` packed rows of the solutions that the config names."""
    c = context.config.prm
    rows, labels = labelled_rows(context)
    try:
        weights = class_weights(labels, 3 if c.head == THREE_CLASS else 2, c.balance)
    except ValueError as error:
        raise JobError(
            f"prm.data: {error}, so there is nothing to tell apart"
        ) from None
    return packed_batches(context, size, rows, weights)


def packed_batches(
    context: Context,
    size: int,
    rows: Sequence[StepRow],
    weights: np.ndarray,
    halves: bool = False,
) -> Callable[[Any, int, PhaseTimer], PrmBatch]:
    """Batches of `size` packed rows, again and again, each epoch in another order.

    `weights` are those of the classes; for `halves` see `label_batch`.
    """
    c = context.config.prm
    shape = {**row_shape(context), "batch_size": size}
    seed = (context.config.seed, 33)
    epochs = PackedEpochs(rows, shape["length"], shape["max_steps"], seed)

    def labelled_batch(step: int) -> PrmBatch:
        drawn = epochs.take(step * c.batch_size, c.batch_size)
        batch = label_batch(drawn, weights, context.builder, **shape, halves=halves)
        return PrmBatch(batch)

    batches = Ahead(labelled_batch, c.updates)

    def batch_of(prm: Any, step: int, timer: PhaseTimer) -> PrmBatch:
        del prm  # what it believes chooses nothing here
        with timer("data"):
            return batches(step)

    return batch_of


def row_shape(context: Context) -> dict[str, int]:
    """Tokens and steps of a packed row of labelled solutions."""
    length = context.builder.buckets[-1]
    most = max(context.config.builder.max_steps, length // STEP_TOKENS)
    return {"length": length, "max_steps": most}


def branches(context: Context) -> bool:
    """Whether the decoder reads rows that branch."""
    return context.decoder_config.reads_branches


def labelled_rows(context: Context) -> tuple[list[StepRow], np.ndarray]:
    """The rows to train on and the labels in them, and a line about both in the log."""
    c = context.config
    leaves = merge(
        labelled_solutions(context),
        neutral=c.prm.neutral,
        soft=c.prm.soft,
        cut=c.domain.label_cut,
    )
    tree, known = prefix_tree(leaves)
    trees = tree_rows(
        context.builder,
        tree,
        labels=known,
        branch=branches(context),
        **row_shape(context),
    )
    # A row that the repeated path alone fills, or unlabelled steps, teaches nothing.
    rows = [t.row for t in trees if not np.isnan(t.row.labels).all()]
    values = [row.labels for row in rows]
    labels = np.concatenate(values or [np.zeros(0, np.float32)]).astype(np.float64)
    labels = labels[~np.isnan(labels)]
    if not len(labels):
        raise JobError("prm.data: no labelled step fits a row: raise builder.buckets")
    log.info(
        "%s: %d solutions of %d questions in %d rows of %d tokens, %d labelled steps "
        "(%d below 0.5, %d above); %d do not fit",
        context.stage,
        len(leaves),
        len({leaf.problem_id for leaf in leaves}),
        len(rows),
        sum(len(row) for row in rows),
        len(labels),
        int((labels < 0.5).sum()),
        int((labels > 0.5).sum()),
        len(known) - len(labels),
    )
    return rows, labels


def check(context: Context) -> None:
    """Reads the labelled solutions of a PRM that learns from them; see below."""
    if context.config.prm.negatives == "labels":
        labelled_solutions(context)


def labelled_solutions(context: Context) -> list[LabelledSolution]:
    """Those that `prm.data` names; the domain's own where it names none.

    Of searches they are the whole solutions of the trees, with values.

    Questions of the domain's evaluation splits are left out wherever they come from.

    Raises:
      ConfigError: the domain has no labels, and `prm.data` names none.
      DataError: a source cannot be used.
    """
    c = context.config
    if c.prm.negatives == VALUES:
        return value_solutions(context, c.prm.data)
    domain = context.domain
    if not c.prm.data:
        if isinstance(domain, LabelledDomain):
            return list(domain.labelled)
        raise ConfigError(
            f"prm.negatives='labels' needs prm.data: the domain {domain.name!r} has "
            "no labels of its own"
        )
    read = [row for text in c.prm.data for row in read_labelled(text, **context.limits)]
    kept = [row for row in read if not domain.is_held_out(row.question)]
    note_held_out(context, "prm.data", len(read) - len(kept))
    if not kept:
        raise DataError(
            f"prm.data: every question of {', '.join(c.prm.data)} is held out to "
            "evaluate on: name other data"
        )
    return kept
