"""A PRM without an adversary: corruptions, a solver's samples, or human labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from aprm_jax.config import ConfigError
from aprm_jax.data.steps import StepRow
from aprm_jax.game.rollouts import prm_batch, situations, static_rows
from aprm_jax.game.update import game_optimiser
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.prm_labels import train_on_labels
from aprm_jax.models import heads
from aprm_jax.search.solve import sample_solutions
from aprm_jax.training.learner import LearnerState
from aprm_jax.training.loop import StepOutput, run_loop
from aprm_jax.training.mesh import batch_shards, shard_batch
from aprm_jax.verifiers.monte_carlo import (
    LabelledStep,
    monte_carlo_labels,
    oracle_labels,
)
from aprm_jax.verifiers.objective import PrmObjective
from aprm_jax.verifiers.step_loss import make_prm_update


def run(context: Context) -> dict[str, float]:
    """Trains R, saves `model/`, and returns what to keep of the run."""
    context, c = context.of("prm"), context.config.prm
    params = initial_prm(context, c.init_from, "prm.init_from", c.reading)
    if c.negatives == "labels":
        context.save(train_on_labels(context, params), "prm", c.reading)
        return {}
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
    update = make_prm_update(
        context.decoder,
        c.reading,
        objective,
        tx,
        context.mesh,
        microbatches=c.microbatches,
    )
    # The reference must be a copy: the update donates its state.
    ref = jax.tree.map(lambda x: x + 0, params) if c.beta > 0 else None
    pool = _pool(context) if c.negatives != "static" else ()
    opt = context.place(tx.init(params))
    multiple = batch_shards(context.mesh) * c.microbatches
    size = -(-c.batch_size // multiple) * multiple

    def step_fn(state: LearnerState, step: int, timer) -> StepOutput:
        with timer("data"):
            clean, wrong = _rows(context, step, size, pool)
            longest = max(len(row) for row in [*clean, *wrong])
            length = context.builder.bucket(longest)
            batch = prm_batch(clean, wrong, (), context.builder, size, length)
        with timer("update"):
            state, metrics = update(
                state, ref, shard_batch(context.mesh, batch), context.key(5, step)
            )
        metrics = dict(metrics)
        del metrics["prm/accuracy_replayed"]  # nothing is replayed here
        return StepOutput(state, metrics, batch)

    state = run_loop(
        LearnerState(params, opt),
        step_fn,
        workdir=context.directory,
        config=context.loop_config(c.updates),
        name=context.stage,
    )
    context.save(state.params, "prm", c.reading)
    return {}


def initial_prm(context: Context, source: str, field: str, reading: str) -> Any:
    """A PRM to train: another PRM of the same reading, or a solver with a new head."""
    params, spec = context.load(source, field, "solver", "prm")
    if spec.kind == "prm":
        if spec.reading != reading:
            raise ConfigError(
                f"{field}={source!r} reads {spec.reading!r}, the config {reading!r}"
            )
        return params
    key = jax.random.wrap_key_data(context.key(4))
    d_model = context.decoder_config.d_model
    return context.place(heads.init_prm(key, params["backbone"], d_model, reading))


def _rows(
    context: Context, step: int, size: int, pool: Sequence[LabelledStep]
) -> tuple[list[StepRow], list[StepRow]]:
    """Half a batch of clean steps, and half of labelled ones that are mostly wrong."""
    c = context.config
    half = size // 2
    points = situations(context.domain, range(step * size, step * size + half), c.seed)
    builder = context.builder
    clean = [builder.step(p.question, p.prefix, p.step, 1.0) for p in points]
    rng = np.random.default_rng([c.seed, 31, step])
    if not pool:
        more = situations(
            context.domain, range(step * size + half, (step + 2) * size), c.seed
        )
        wrong = static_rows(more, context.domain, builder, rng, size - half)
    else:
        # Balanced over the label, as PAV does: half of them below 0.5.
        bad = [s for s in pool if s.label < 0.5]
        good = [s for s in pool if s.label >= 0.5]
        # Half of the batch is clean anyway: a pool of wrong steps alone will do.
        take = (size - half) * 3 // 4 if good else size - half
        chosen = [bad[int(i)] for i in rng.integers(len(bad), size=take)]
        rest = size - half - take
        chosen += [good[int(i)] for i in rng.integers(max(len(good), 1), size=rest)]
        wrong = [builder.step(s.question, s.prefix, s.step, s.label) for s in chosen]
    fits = builder.fits
    return [r for r in clean if fits(r)], [r for r in wrong if fits(r)]


def _pool(context: Context) -> list[LabelledStep]:
    """The solver's own samples, labelled as the config says."""
    c = context.config
    context = context.solver(c.prm.solver)
    solver, _ = context.load(c.prm.solver, "prm.solver", "solver")
    problems = [context.domain.train((1 << 40) + i) for i in range(c.prm.pool_problems)]
    common = dict(max_steps=c.builder.max_steps)
    groups = sample_solutions(
        context.sampler,
        solver["backbone"],
        context.domain,
        context.builder,
        [(p.question, ()) for p in problems],
        c.prm.pool_samples,
        context.key(6),
        **common,
    )
    solutions = [s for group in groups for s in group if s.finished]
    if c.prm.negatives == "oracle":
        pool = oracle_labels(solutions, context.domain.oracle)
    else:
        pool = monte_carlo_labels(
            solutions,
            problems,
            context.sampler,
            solver["backbone"],
            context.domain,
            context.builder,
            context.key(7),
            completions=c.prm.mc_completions,
            soft=c.prm.mc_soft,
            **common,
        )
    bad = sum(s.label < 0.5 for s in pool)
    log.info("%s: %d labelled steps, %d below 0.5", context.stage, len(pool), bad)
    if not bad:
        raise JobError(
            f"none of the solver's {len(pool)} labelled steps is wrong: raise "
            "prm.pool_problems or use another solver"
        )
    return pool
