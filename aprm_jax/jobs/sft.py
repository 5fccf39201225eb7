"""Supervised fine-tuning: a solver on solutions, or G on the perturbation format."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from aprm_jax.config.roles import alike
from aprm_jax.data.drawing import Epochs
from aprm_jax.data.epochs import PackedEpochs
from aprm_jax.data.learned import LearnedRows
from aprm_jax.data.loader import PackedBatches, load_batches
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.prepared import check_builder, open_split, read_metadata
from aprm_jax.data.problem import Problem
from aprm_jax.data.rows import StepBatch, StepRow, TooLongError, pack
from aprm_jax.data.trees import tree_rows
from aprm_jax.game.rollouts import Situation, situations
from aprm_jax.jobs import tree_data
from aprm_jax.jobs.backbones import BACKBONE
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.held_out import note_held_out
from aprm_jax.jobs.prepare import prepared_folder
from aprm_jax.jobs.prm_labels import branches, row_shape
from aprm_jax.jobs.records.sft import SftConfig
from aprm_jax.jobs.spent import CountedOracle, Spent
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.flops import Compute, forward_flops
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.training.ahead import Ahead
from aprm_jax.training.learner import LearnerState, Loss, make_update, start
from aprm_jax.training.loop import run_loop
from aprm_jax.training.masked import MeanMetric, SumMetric
from aprm_jax.training.mesh import batch_shards, init_sharded, shard_batch
from aprm_jax.training.schedules import warmup_cosine
from aprm_jax.training.step_log import StepOutput

# A batch, how many rows did not fit it, and where prepared data go on.
Drawn = tuple[StepBatch, int, np.ndarray]


@flax.struct.dataclass
class SftLoopState:
    """What a checkpoint holds."""

    sft: LearnerState
    position: np.ndarray  # int64 [2]: where prepared data go on, (window, packed row)


def language_loss(params: Any, batch: StepBatch, decoder: Decoder) -> Loss:
    """Cross-entropy of the steps' tokens, in nats."""
    logprobs = heads.token_logprobs(decoder, params["backbone"], batch)
    mean = MeanMetric.of(logprobs, jnp.asarray(batch.step_ids) >= 0)
    return -mean, {"tokens": SumMetric(mean.weight)}


def optimiser(c: SftConfig) -> optax.GradientTransformation:
    """AdamW of `config.sft`."""
    return optax.chain(
        optax.clip_by_global_norm(c.clip_norm),
        optax.adamw(
            warmup_cosine(c.learning_rate, c.warmup, c.updates),
            b2=0.98,
            weight_decay=c.weight_decay,
        ),
    )


def compiled_update(
    c: SftConfig,
    decoder: Decoder,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> Callable[..., Any]:
    """The step of `config.sft`; see `learner.make_update`."""
    loss = functools.partial(language_loss, decoder=decoder)
    return make_update(loss, tx, mesh, microbatches=c.microbatches)


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The data that the config names exist, or an earlier stage makes them.

    Raises:
      DataError: names the field and what would be right.
    """
    data = context.config.sft.data
    made = not data or earlier.get(data) == "prepare"
    if not made and not tree_data.is_search(context, earlier, data):
        read_metadata(prepared_folder(context))


def run(context: Context) -> dict[str, float]:
    """Trains, saves `model/`, and returns the last metrics."""
    c = context.config.sft
    perturbing = c.task == "perturb"
    context = context.of("generator" if perturbing else "solver")
    tx = optimiser(c)
    params = _initial(context)
    judged: dict[int, int] = {}
    batch_at = _batches(context, params["backbone"], judged)
    state = SftLoopState(
        sft=start(params, tx, context.mesh),
        position=np.zeros(2, np.int64),
    )
    update = compiled_update(c, context.decoder, tx, context.mesh)
    a_token = forward_flops(params["backbone"], unembeds=True)

    def step_fn(state: SftLoopState, step: int, timer) -> StepOutput:
        with timer("data"):
            batch, left_out, position = batch_at(step, state.position)
        with timer("update"):
            sft, metrics = update(state.sft, shard_batch(context.mesh, batch))
        metrics = dict(metrics) | {"left_out": float(left_out)}
        metrics |= Compute.of(a_token, trained=batch.num_tokens).metrics("sft")
        if judged:
            metrics["sft/oracle_calls"] = float(judged.pop(step))
        return StepOutput(SftLoopState(sft=sft, position=position), metrics, batch)

    state = run_loop(
        state,
        step_fn,
        workdir=context.directory,
        config=context.loop_config(c.updates),
        name=context.stage,
    )
    context.spent.add(Spent.of_metrics(context.directory, "sft"))
    kind = "generator" if perturbing else "solver"
    context.save(state.sft.params, kind)
    return {}


def _batches(
    context: Context, backbone: Any, judged: dict[int, int]
) -> Callable[[int, np.ndarray], Drawn]:
    """Batches by (step, position) of what the config learns from.

    `backbone` is whose samples G learns to write; `judged` gets the oracle's verdicts
    that the batch of a step needed.
    """
    c = context.config.sft
    searched = c.data and tree_data.tree_file(context, c.data) is not None
    if c.data and not searched:
        prepared = _prepared(context)

        def read(step: int, position: np.ndarray) -> Drawn:
            batch, *after = prepared.batch_at(*(int(i) for i in position))
            assert batch is not None  # it begins again where it ends
            return batch, 0, np.asarray(after, np.int64)

        return read
    if c.task == "perturb":
        pool = wrong_samples(context, backbone)
        draw = functools.partial(_perturbation_batch, context, pool, judged)
    elif searched:
        right = Epochs(
            tree_data.right_solutions(context, [c.data]), context.config.seed
        )
        draw = functools.partial(_solution_batch, context, right.__getitem__)
    elif (texts := _texts(context)) is not None:
        draw = functools.partial(_text_batch, context, texts)
    else:
        draw = functools.partial(_solution_batch, context, context.domain.corpus)
    drawn = Ahead(draw, c.updates)  # a function of the step alone
    return lambda step, position: (*drawn(step), position)


def _perturbation_batch(
    context: Context,
    pool: Sequence[tuple[Situation, str]],
    judged: dict[int, int],
    step: int,
) -> tuple[StepBatch, int]:
    size, oracle = context.config.sft.batch_size, CountedOracle(context.domain.oracle)
    rows = perturbation_rows(context, step, size, pool, oracle)
    judged[step] = oracle.calls
    return packed_batch(context, step, rows)


def _solution_batch(
    context: Context, solution: Callable[[int], Problem], step: int
) -> tuple[StepBatch, int]:
    size = context.config.sft.batch_size
    return packed_batch(context, step, _solution_rows(context, solution, step, size))


def _text_batch(
    context: Context, texts: PackedEpochs, step: int
) -> tuple[StepBatch, int]:
    size = context.config.sft.batch_size
    shards = batch_shards(context.mesh) * context.config.sft.microbatches
    num_rows = -(-size // shards) * shards
    drawn = texts.take(step * size, size)
    batch = context.builder.collate(drawn, batch_size=num_rows, **row_shape(context))
    return batch, 0


def packed_batch(
    context: Context, step: int, rows: Sequence[StepRow]
) -> tuple[StepBatch, int]:
    """A batch of the rows that fit, and how many do not."""
    builder, c = context.builder, context.config
    kept = [row for row in rows if builder.fits(row)]
    if not kept:
        raise TooLongError(
            f"step {step}: none of {len(rows)} rows fits the longest bucket "
            f"({builder.buckets[-1]} tokens); raise builder.buckets"
        )
    # Longest first: what is short fills what long rows leave free.
    kept.sort(key=len, reverse=True)
    packed = pack(kept, builder.buckets[-1])
    # Few shapes to compile: the number of packed rows is rounded up.
    shards = batch_shards(context.mesh) * c.sft.microbatches
    multiple = -(-2 // shards) * shards
    batch = builder.collate(
        packed,
        length=builder.buckets[-1],
        max_steps=c.builder.max_steps * c.sft.batch_size,
        batch_size=-(-len(packed) // multiple) * multiple,
    )
    return batch, len(rows) - len(kept)


def _prepared(context: Context) -> PackedBatches:
    """Batches of prepared data, without end: the same ones on every host.

    Shares of their own would be packed to different lengths, and another number of
    hosts could not go on from where these are.
    """
    c = context.config
    shards = batch_shards(context.mesh) * c.sft.microbatches
    if c.sft.batch_size % shards:
        raise JobError(
            f"sft.batch_size={c.sft.batch_size} packed rows cannot be shared by "
            f"{shards} shards and microbatches: set a multiple of {shards}"
        )
    folder = prepared_folder(context)
    return load_batches(
        folder,
        "train",
        context.builder,
        rows=_learned(context, folder),
        batch_size=c.sft.batch_size,
        length=context.builder.buckets[-1],
        seed=c.seed,
    )


def _learned(context: Context, folder: Path) -> LearnedRows:
    """What of prepared rows is learned, and lines about the rest in the log.

    Raises:
      JobError: nothing is.
    """
    cut, held = context.config.domain.label_cut, context.domain.held_out
    check_builder(folder, context.builder)
    rows = LearnedRows(open_split(folder, "train"), held, cut)
    note_held_out(context, "sft.data", rows.num_held_out)
    wrong = f"that are wrong (below domain.label_cut={cut:g}) or follow a wrong one"
    unlabelled = "at the ends of solutions that have no label"
    for name, count, what in (
        ("wrong_steps", rows.num_wrong, wrong),
        ("unlabelled_steps", rows.num_unlabelled, unlabelled),
    ):
        if count:
            context.left_out[name] = count
            log.info(
                "%s: sft.data: %d steps %s are not learned",
                *(context.stage, count, what),
            )
    if not rows:
        raise JobError(
            f"sft.data: {folder} has no right step of a question that the domain does "
            "not hold out: prepare other sources"
        )
    return rows


def _texts(context: Context) -> PackedEpochs | None:
    """The texts of a labelled domain, each step of them once; None for others."""
    domain = context.domain
    if not isinstance(domain, LabelledDomain):
        return None
    shape = row_shape(context)
    tree = PrefixTree()
    for text in domain.texts:
        tree.add(text.question, text.steps)
    trees = tree_rows(
        context.builder,
        tree,
        length=shape["length"],
        max_steps=shape["max_steps"],
        branch=branches(context),
    )
    if not trees:
        raise JobError(
            "no step of the training texts fits a row: raise builder.buckets"
        )
    log.info(
        "%s: %d steps of %d texts in %d rows of %d tokens",
        context.stage,
        len({node for row in trees for node in row.nodes}),
        len(domain.texts),
        len(trees),
        sum(len(row.row) for row in trees),
    )
    rows = [row.row for row in trees]
    return PackedEpochs(rows, seed=(context.config.seed, 34), **shape)


def _initial(context: Context) -> Any:
    c = context.config
    source = c.sft.init_from or (BACKBONE if context.source else "")
    if source:
        params, _ = context.load(source, "sft.init_from", "solver")
        params = {"backbone": params["backbone"]}
    else:
        row = np.zeros((1, 8), np.int32)

        def init(key):
            variables = context.decoder.init(
                jax.random.wrap_key_data(key), row, row, row + 1
            )
            return {"backbone": variables["params"]}

        params = init_sharded(context.mesh, init, context.key(1))
    if c.sft.task == "perturb":
        head = heads.init_value_head(
            jax.random.wrap_key_data(context.key(2)), context.decoder_config.d_model
        )
        # Values start at zero: before the game nothing is known of the rewards.
        params |= {"value_head": context.place(jax.tree.map(jnp.zeros_like, head))}
    return params


def _solution_rows(
    context: Context, solution: Callable[[int], Problem], step: int, size: int
) -> list[StepRow]:
    """`size` solutions; each step alone where it sees no others: they pack better."""
    builder, rows = context.builder, []
    for index in range(step * size, (step + 1) * size):
        problem = solution(index)
        steps = problem.steps[: context.config.builder.max_steps]
        if builder.window is None:
            rows.append(builder.solution(problem.question, steps))
            continue
        for k, text in enumerate(steps):
            rows.append(builder.step(problem.question, steps[:k], text))
    return rows


def perturbation_rows(
    context: Context,
    step: int,
    size: int,
    pool: Sequence[tuple[Situation, str]],
    oracle: StepOracle,
) -> list[StepRow]:
    """`size` wrong steps in G's format: of the pool, and corruptions.

    The oracle calls each of them wrong. `step` picks which.
    """
    c = context.config
    rng = np.random.default_rng([c.seed, 21, step])
    from_solver = rng.binomial(size, c.sft.solver_share) if pool else 0
    pairs = [pool[int(i)] for i in rng.integers(len(pool), size=from_solver)]
    indices = (int(i) for i in rng.integers(1 << 40, size=16 * size))
    for index in indices:
        if len(pairs) == size:
            break
        [point] = situations(context.domain, [index], c.seed)
        args = (point.question, point.prefix, point.step)
        text = context.domain.corrupt(rng, *args)
        if text is None:
            continue
        if oracle.judge(*args, text).label == Label.INCORRECT:
            pairs.append((point, text))
    return [
        context.writer.perturbation(p.question, p.prefix, p.step, text)
        for p, text in pairs
    ]


def _mistakes(context: Context, domain: LabelledDomain) -> list[tuple[Situation, str]]:
    """What people call wrong, beside what they call right there; all that fits."""
    writer, room = context.writer, context.config.builder.max_new_tokens
    pool = [
        (Situation(m.question, m.prefix, m.right), m.wrong)
        for m in domain.mistakes
        if len(writer.encode(m.wrong)) < room
        and writer.fits(writer.perturbation(m.question, m.prefix, m.right, m.wrong))
    ]
    log.info(
        "%s: %d of %d steps that people call wrong stand beside a right one and fit",
        *(context.stage, len(pool), len(domain.mistakes)),
    )
    if not pool:
        raise JobError(
            "no step that people call wrong stands beside a right one and fits a row: "
            "raise builder.buckets or builder.max_new_tokens, or set "
            "sft.solver_share=0"
        )
    return pool


def wrong_samples(context: Context, backbone: Any) -> list[tuple[Situation, str]]:
    """Wrong steps of the solver's own, each beside a correct one to start from.

    Of labelled solutions they are what people call wrong: nothing is sampled.
    """
    c = context.config
    if isinstance(context.domain, LabelledDomain):
        return _mistakes(context, context.domain) if c.sft.solver_share > 0 else []
    if c.sft.solver_share > 0 and not alike(c, "solver", "generator"):
        # G's prompts are not the solver's, nor need its start be the solver.
        context = context.solver(c.prm.solver)
        backbone = context.load(c.prm.solver, "prm.solver", "solver")[0]["backbone"]
    wanted = c.sft.pool if c.sft.solver_share > 0 else 0
    pool: list[tuple[Situation, str]] = []
    batch = min(512, 2 * wanted)
    writer, room = context.writer, context.sampler.prompt_buckets[-1]
    oracle = CountedOracle(context.domain.oracle)
    drawn, before = 0, context.sampler.tokens_read
    for draw in range(64):
        if len(pool) >= wanted:
            break
        indices = [(draw << 20) + i for i in range(batch)]
        points = [
            point
            for point in situations(context.domain, indices, c.seed + 1)
            if len(writer.context(point.question, point.prefix)) <= room
        ]
        prompts = [writer.context(p.question, p.prefix) for p in points]
        samples = context.sampler.sample(backbone, prompts, context.key(3, draw))
        for i, point in enumerate(points):
            sample = samples.reply(i)
            drawn += len(sample.ids)
            reply = writer.replies.read(sample)
            if reply.reason:
                continue
            verdict = oracle.judge(point.question, point.prefix, point.step, reply.text)
            if verdict.label == Label.INCORRECT:
                pool.append((point, reply.text))
        log.info(
            "%s: %d wrong ones among %d samples of the solver, %d are wanted",
            *(context.stage, len(pool), (draw + 1) * batch, wanted),
        )
    context.spent.add(Spent(oracle.calls, drawn))
    read = drawn + context.sampler.tokens_read - before
    a_token = forward_flops(backbone, unembeds=True)
    context.spent.add(Compute.of(a_token, read=read))
    if wanted and not pool:
        raise JobError(
            "the solver made no mistake that the Generator could learn from: set "
            "sft.solver_share=0"
        )
    return pool[:wanted] if wanted else []
