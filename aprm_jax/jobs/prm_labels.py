"""A PRM on labelled solutions: PRM800K, Math-Shepherd and whatever has a reader."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np

from aprm_jax.config import ConfigError
from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.data.labelled_domain import LabelledDomain, read_labelled
from aprm_jax.game.update import game_optimiser
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.training.loop import StepOutput, run_loop
from aprm_jax.training.mesh import batch_shards, shard_batch
from aprm_jax.verifiers.labelled import (
    THREE_CLASS,
    LabelledRow,
    LabelState,
    cut_to_fit,
    label_batch,
    make_label_update,
    merge,
    step_weights,
)
from aprm_jax.verifiers.objective import PrmObjective


def train_on_labels(context: Context, params: Any) -> Any:
    """Trains R from `params` on the solutions that the config names; returns it."""
    c = context.config.prm
    rows = labelled_rows(context)
    classes = 3 if c.reading == THREE_CLASS else 2
    try:
        weights = step_weights(rows, classes, c.balance)
    except ValueError as error:
        raise JobError(
            f"prm.data: {error}, so there is nothing to tell apart"
        ) from None
    tx = game_optimiser(
        c.learning_rate,
        warmup=c.warmup,
        total=c.updates,
        b1=c.b1,
        b2=c.b2,
        clip_norm=c.clip_norm,
        optimistic=False,  # one player alone: optimism would only add noise
    )
    objective = PrmObjective(c.objective, beta=c.beta, eta=c.eta)
    update = make_label_update(context.decoder, c.reading, objective, tx, context.mesh)
    # The reference must be a copy: the update donates its state.
    ref = jax.tree.map(lambda x: x + 0, params) if c.beta > 0 else None
    builder = context.builder
    multiple = max(2, batch_shards(context.mesh))

    @functools.lru_cache(maxsize=4)
    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([context.config.seed, 33, epoch])
        return rng.permutation(len(rows))

    def step_fn(state: LabelState, step: int, timer) -> StepOutput:
        with timer("data"):
            drawn = [
                int(order(index // len(rows))[index % len(rows)])
                for index in range(step * c.batch_size, (step + 1) * c.batch_size)
            ]
            chosen = [rows[i] for i in drawn]
            batch = label_batch(
                [builder.solution(r.question, r.steps, r.labels) for r in chosen],
                [weights[i] for i in drawn],
                builder,
                multiple,
            )
        with timer("update"):
            state, metrics = update(
                state, ref, shard_batch(context.mesh, batch), context.key(8, step)
            )
        return StepOutput(state, dict(metrics), batch)

    state = run_loop(
        LabelState(prm=params, opt=context.place(tx.init(params))),
        step_fn,
        workdir=context.directory,
        config=context.loop_config(c.updates),
        name=context.stage,
    )
    return state.prm


def labelled_rows(context: Context) -> list[LabelledRow]:
    """The rows to train on, cut to what fits, and a line about them in the log."""
    c = context.config
    solutions = labelled_solutions(context)
    kept, lost = cut_to_fit(solutions, context.builder, c.builder.max_steps)
    rows = merge(kept, neutral=c.prm.neutral, soft=c.prm.soft)
    if not rows:
        raise JobError(
            "prm.data: no labelled step fits a row: raise builder.buckets or "
            "builder.max_steps"
        )
    labels = np.array(
        [
            label
            for row in rows
            for label, first in zip(row.labels, row.first, strict=True)
            if first and not math.isnan(label)
        ]
    )
    log.info(
        "%s: %d rows of %d questions, %d labelled steps (%d below 0.5, %d above); "
        "%d labels do not fit",
        context.stage,
        len(rows),
        len({row.problem_id for row in rows}),
        len(labels),
        int((labels < 0.5).sum()),
        int((labels > 0.5).sum()),
        lost,
    )
    return rows


def labelled_solutions(context: Context) -> list[LabelledSolution]:
    """Those that `prm.data` names; the domain's own where it names none.

    Questions of the domain's dev split are left out wherever they come from.

    Raises:
      ConfigError: the domain has no labels, and `prm.data` names none.
      DataError: a source cannot be used.
    """
    c = context.config
    domain = context.domain
    held: set[str] = set()
    if isinstance(domain, LabelledDomain):
        held = {row.problem_id for row in domain.dev}
        if not c.prm.data:
            return list(domain.labelled)
    elif not c.prm.data:
        raise ConfigError(
            f"prm.negatives='labels' needs prm.data: the domain {domain.name!r} has "
            "no labels of its own"
        )
    out: list[LabelledSolution] = []
    for text in c.prm.data:
        read = read_labelled(
            text,
            quarantine_dir=context.root / "quarantine",
            max_bad_share=c.domain.max_bad_share,
        )
        out += [row for row in read if row.problem_id not in held]
    return out
