"""A PRM without an adversary: corruptions, a solver's samples, or human labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from aprm_jax.config import ConfigError
from aprm_jax.data.rows import StepRow, TooLongError
from aprm_jax.data.steps import RowFormat
from aprm_jax.game.batches import BatchSize, prm_batch
from aprm_jax.game.rollouts import situations, static_rows
from aprm_jax.game.update import game_optimiser
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.prm_labels import label_batches
from aprm_jax.jobs.records.prm import SAMPLED, VALUES, PrmConfig
from aprm_jax.jobs.solvers import open_solver
from aprm_jax.jobs.spent import CountedOracle, CountedSolver, Spent
from aprm_jax.models import heads, lora
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.flops import Compute, forward_flops
from aprm_jax.models.io import ModelSpec
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.training.ahead import Ahead
from aprm_jax.training.learner import LearnerState, start
from aprm_jax.training.loop import StepFn, run_loop
from aprm_jax.training.mesh import batch_shards, shard_batch
from aprm_jax.training.step_log import StepOutput
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.hard import hard_rows
from aprm_jax.verifiers.monte_carlo import (
    LabelledStep,
    monte_carlo_labels,
    oracle_labels,
    outcome_labels,
)
from aprm_jax.verifiers.objective import PrmObjective
from aprm_jax.verifiers.scoring import Scorer, prm_scorer
from aprm_jax.verifiers.step_loss import THREE_CLASS, PrmBatch, make_prm_update

OUTCOME = "outcome"  # negatives of whole solutions


def run(context: Context) -> dict[str, int]:
    """Trains R, saves `model/`, and returns what to keep of the run."""
    context, c = context.of("prm"), context.config.prm
    params, _ = initial_prm(context, c.init_from, "prm.init_from", c.head)
    size = whole_batch(context)
    if c.negatives in ("labels", VALUES):
        step_fn = update_step(context, params, label_batches(context, size), 8)
        params = train(context, params, step_fn)
        context.spent.add(Spent.of_metrics(context.directory, "prm"))
        how = "last" if c.negatives == VALUES else "min"
        context.save(params, "prm", c.head, aggregation=how)
        return {}
    pool = _pool(context) if c.negatives in SAMPLED else ()
    rows, judged = BatchSize(multiple=_shares(context)), dict[int, int]()
    scorer = Scorer(prm_scorer(context.decoder, c.head), context.builder, max_steps=1)
    batch_of = _batches(context, size, rows, pool, judged, scorer)
    step_fn = update_step(context, params, batch_of, 5, judged, scorer)
    params = train(context, params, step_fn)
    context.spent.add(Spent.of_metrics(context.directory, "prm"))
    aggregation = "last" if c.negatives == OUTCOME else "min"
    context.save(params, "prm", c.head, aggregation=aggregation)
    return {"labels": len(pool), "wrong_labels": _count_wrong(pool)} if pool else {}


def whole_batch(context: Context) -> int:
    """Rows of a batch: `prm.batch_size`, up to what devices and microbatches share."""
    shares = _shares(context)
    return -(-context.config.prm.batch_size // shares) * shares


def _shares(context: Context) -> int:
    """Parts that devices and microbatches cut a batch into."""
    return batch_shards(context.mesh) * context.config.prm.microbatches


def optimiser(c: PrmConfig) -> optax.GradientTransformation:
    """Adam of `config.prm`."""
    return game_optimiser(
        c.learning_rate,
        warmup=c.warmup,
        total=c.updates,
        b1=c.b1,
        b2=c.b2,
        clip_norm=c.clip_norm,
        optimistic=False,  # one player alone: optimism would only add noise
    )


def compiled_update(
    c: PrmConfig,
    decoder: Decoder,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    adapters: lora.LoraConfig | None = None,
) -> Callable[..., Any]:
    """The step of `config.prm`; see `step_loss.make_prm_update`."""
    return make_prm_update(
        decoder,
        c.head,
        PrmObjective(c.objective, beta=c.beta, eta=c.eta),
        tx,
        mesh,
        microbatches=c.microbatches,
        adapters=adapters,
    )


def train(context: Context, params: Any, step_fn: StepFn) -> Any:
    """R after all its updates; `step_fn` is of `update_step`, on the same `params`."""
    state = run_loop(
        first_state(context, params),
        step_fn,
        workdir=context.directory,
        config=context.loop_config(context.config.prm.updates),
        name=context.stage,
    )
    return lora.merged(params, state.params, lora.LoraConfig.of(context.config.lora))


def first_state(context: Context, params: Any) -> LearnerState:
    """What R's training begins with."""
    adapters = lora.LoraConfig.of(context.config.lora)
    trained = lora.player(context.key(9), params, adapters)
    return start(trained, optimiser(context.config.prm), context.mesh)


def update_step(
    context: Context,
    params: Any,
    batch_of: Callable[[Any, int, PhaseTimer], PrmBatch],
    stream: int,
    judged: dict[int, int] | None = None,
    scorer: Scorer | None = None,
) -> StepFn:
    """One update of R on what `batch_of(R, step, timer)` gives.

    `params` are those that it starts from; `stream` tells the random keys apart;
    `judged` has the oracle's verdicts that the batch of a step needed, once it is made;
    `scorer` is what `batch_of` reads with.
    """
    c, adapters = context.config.prm, lora.LoraConfig.of(context.config.lora)
    update = compiled_update(c, context.decoder, optimiser(c), context.mesh, adapters)
    ref = params if adapters or c.beta > 0 else None
    a_token = forward_flops(params["backbone"], unembeds=False)
    refers = c.beta > 0 and c.head != THREE_CLASS

    def step_fn(state: LearnerState, step: int, timer: PhaseTimer) -> StepOutput:
        prm = lora.materialise(params, state.params, adapters)
        before = scorer.tokens_read if scorer else 0
        batch = batch_of(prm, step, timer)
        read = scorer.tokens_read - before if scorer else 0
        trained = batch.rows.num_tokens
        with timer("update"):
            state, metrics = update(
                state, ref, shard_batch(context.mesh, batch), context.key(stream, step)
            )
        read += trained if refers else 0
        took = Compute.of(a_token, trained=trained, read=read)
        metrics = dict(metrics) | took.metrics("prm")
        if judged:
            metrics["prm/oracle_calls"] = float(judged.pop(step))
        metrics.pop("prm/accuracy_replayed", None)  # nothing is replayed here
        if c.negatives == OUTCOME:  # rows of one source, right ones and wrong ones
            for source in ("clean", "fresh"):
                metrics.pop(f"prm/accuracy_{source}", None)
        return StepOutput(state, metrics, batch)

    return step_fn


def _batches(
    context: Context,
    size: int,
    rows: BatchSize,
    pool: Sequence[LabelledStep],
    judged: dict[int, int],
    scorer: Scorer,
) -> Callable[[Any, int, PhaseTimer], PrmBatch]:
    """Batches of `size` steps: right ones, and corruptions or the pool's samples.

    How many verdicts a step's corruptions needed stands in `judged`; `scorer` finds the
    hardest rows.
    """
    c = context.config.prm

    def draw(step: int) -> tuple[list[StepRow], list[StepRow], list[StepRow], int]:
        oracle = CountedOracle(context.domain.oracle)
        wrong, right, count = _labelled(context, step, size, pool, oracle)
        if not pool:
            judged[step] = oracle.calls
        return _clean(context, step, size), wrong, right, count

    batches = Ahead(draw, c.updates)

    def batch_of(prm: Any, step: int, timer: PhaseTimer) -> PrmBatch:
        with timer("data"):
            clean, wrong, right, count = batches(step)
        if c.hard_share > 0:
            with timer("score"):
                wrong = _hardest(scorer, prm, wrong, count, c.hard_share)
        with timer("data"):
            wrong = [*wrong, *right]
            if not clean and not wrong:
                raise TooLongError(
                    f"step {step}: none of its steps fits the longest bucket "
                    f"({context.builder.buckets[-1]} tokens); raise builder.buckets"
                )
            return prm_batch(clean, wrong, (), context.builder, rows)

    return batch_of


def initial_prm(
    context: Context, source: str, field: str, head: str
) -> tuple[Any, ModelSpec]:
    """A PRM to train: another PRM with that head, or a solver with a new head.

    The spec is of what was read.
    """
    params, spec = context.load(source, field, "solver", "prm")
    if spec.kind == "prm":
        if spec.head != head:
            raise ConfigError(
                f"{field}={source!r} has the head {spec.head!r}, the config {head!r}"
            )
        return params, spec
    key = jax.random.wrap_key_data(context.key(4))
    d_model = context.decoder_config.d_model
    made = heads.init_prm(key, params["backbone"], d_model, head)
    return context.place(made), spec


def _clean(context: Context, step: int, size: int) -> list[StepRow]:
    """The half of an update's rows that are correct steps of training solutions.

    An ORM has none: it learns from whole solutions alone.
    """
    if context.config.prm.negatives == OUTCOME:
        return []
    builder, first = context.builder, step * size
    points = situations(
        context.domain, range(first, first + size // 2), context.config.seed
    )
    rows = [builder.step(p.question, p.prefix, p.step, 1.0) for p in points]
    return [row for row in rows if builder.fits(row)]


def _labelled(
    context: Context,
    step: int,
    size: int,
    pool: Sequence[LabelledStep],
    oracle: StepOracle | None = None,
) -> tuple[list[StepRow], list[StepRow], int]:
    """What makes up the other half of an update.

    Of outcomes it is all of them, half right and half wrong. `oracle` judges
    corruptions; by default the domain's.

    Returns:
      Wrong steps in the order that they were drawn in; right ones, of a pool; how many
      of the wrong ones to learn from. With a hard share there are more than these.
    """
    c, builder = context.config, context.builder
    rng = np.random.default_rng([c.seed, 31, step])
    outcome = c.prm.negatives == OUTCOME
    wanted = size if outcome else size - size // 2
    if not pool:
        drawn = max(wanted, c.prm.hard_pool) if c.prm.hard_share > 0 else wanted
        first = step * size + size // 2
        # Some steps have no corruption, or a right one.
        indices = range(first, first + 3 * drawn)
        points = (situations(context.domain, [i], c.seed)[0] for i in indices)
        wrong = static_rows(
            points,
            context.domain,
            oracle or context.domain.oracle,
            builder,
            rng,
            drawn,
        )
        return wrong, [], wanted
    # Balanced over the label, as PAV does: half of them below 0.5.
    bad = [s for s in pool if s.label < 0.5]
    good = [s for s in pool if s.label >= 0.5]
    # Half of the batch is clean anyway: a pool of wrong steps alone will do.
    take = wanted * 3 // 4 if good else wanted
    if outcome:  # both labels alike
        take = wanted // 2
    drawn = max(take, c.prm.hard_pool) if c.prm.hard_share > 0 else take
    wrong = [bad[int(i)] for i in rng.integers(len(bad), size=drawn)]
    right = [good[int(i)] for i in rng.integers(max(len(good), 1), size=wanted - take)]
    return _fitting(builder, wrong), _fitting(builder, right), take


def _fitting(builder: RowFormat, part: Sequence[LabelledStep]) -> list[StepRow]:
    rows = [builder.step(s.question, s.prefix, s.step, s.label) for s in part]
    return [row for row in rows if builder.fits(row)]


def _count_wrong(pool: Sequence[LabelledStep]) -> int:
    return sum(step.label < 0.5 for step in pool)


def _hardest(
    scorer: Scorer, prm: Any, rows: list[StepRow], count: int, share: float
) -> list[StepRow]:
    """`count` of the rows, `share` of them those that R believes most."""
    scores = scorer.rows(prm, dict(enumerate(rows)))
    log_odds = np.array([scores[i][0] for i in range(len(rows))], np.float32)
    return hard_rows(rows, log_odds, count, share)


def _pool(context: Context) -> list[LabelledStep]:
    """The solver's own samples, labelled as the config says."""
    c = context.config
    solver = CountedSolver(open_solver(context, c.prm.solver, "prm.solver"))
    oracle = CountedOracle(context.domain.oracle)
    problems = [context.domain.train((1 << 40) + i) for i in range(c.prm.pool_problems)]
    common = dict(max_steps=c.builder.max_steps)
    groups = solver.solve(
        [(p.question, ()) for p in problems],
        c.prm.pool_samples,
        context.key(6),
        **common,
    )
    solutions = [s for group in groups for s in group if s.finished]
    if c.prm.negatives == "oracle":
        pool = oracle_labels(solutions, oracle)
    elif c.prm.negatives == OUTCOME:
        pool = outcome_labels(solutions, problems, context.domain)
    else:
        pool = monte_carlo_labels(
            solutions,
            problems,
            solver,
            context.domain,
            context.key(7),
            completions=c.prm.mc_completions,
            soft=c.prm.mc_soft,
            **common,
        )
    context.spent.add(Spent(oracle.calls))
    context.spent.add(solver.spent)
    bad = _count_wrong(pool)
    log.info("%s: %d labelled steps, %d below 0.5", context.stage, len(pool), bad)
    if c.prm.negatives == OUTCOME and bad == len(pool):
        raise JobError(
            f"none of the solver's {len(pool)} finished samples has the right answer: "
            "raise prm.pool_problems or prm.pool_samples, or use another solver"
        )
    if not bad:
        raise JobError(
            f"none of the solver's {len(pool)} labelled steps is wrong: raise "
            "prm.pool_problems or use another solver"
        )
    return pool
