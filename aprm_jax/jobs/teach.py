"""Teaching a Generator to write a step: corruptions first, then its own wrong replies.

Rejection sampling keeps of a round's replies those that the oracle calls wrong and R
believes, and learns from them; the rounds end when enough of the replies are one step
and enough of these are decidably wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import scipy.special

from aprm_jax.files import atomic_write, read_sealed, write_sealed
from aprm_jax.game import rollouts
from aprm_jax.game.rollouts import Perturbation, Prompt, Situation
from aprm_jax.jobs import sft
from aprm_jax.jobs.backbones import BACKBONE
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.prm import initial_prm
from aprm_jax.jobs.records.sft import SftConfig
from aprm_jax.jobs.spent import CountedOracle, Spent
from aprm_jax.models import lora
from aprm_jax.models.decoder import Decoder
from aprm_jax.oracle.verdict import Label
from aprm_jax.training.ahead import Ahead
from aprm_jax.training.learner import LearnerState, make_update, start
from aprm_jax.training.loop import run_loop
from aprm_jax.training.mesh import shard_batch
from aprm_jax.training.step_log import StepOutput
from aprm_jax.verifiers.scoring import Scorer, prm_scorer

ROUNDS = "rounds"  # the folder of what they found
_STREAM = 61  # of the rounds' random keys and problems

Pairs = list[tuple[Situation, str]]  # a correct step, and a wrong one in its place


def optimiser(c: SftConfig, updates: int) -> optax.GradientTransformation:
    """AdamW of `config.sft`, its learning rate over so many updates."""
    warmup = min(c.warmup, updates // 2)
    return sft.optimiser(dataclasses.replace(c, updates=updates, warmup=warmup))


def compiled_update(
    c: SftConfig,
    decoder: Decoder,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    adapters: lora.LoraConfig | None,
) -> Callable[..., Any]:
    """The step of a pupil: update(state, batch, base); see `learner.make_update`."""
    loss = functools.partial(_loss, decoder=decoder, config=adapters)
    return make_update(loss, tx, mesh, microbatches=c.microbatches)


@dataclasses.dataclass(frozen=True)
class Round:
    """What a Generator replied at one point of its teaching.

    Attributes:
      one_step: share of the replies that are one step.
      wrong: share of them all that are decidably wrong.
      believed: share of the wrong ones that R believes; 1 without an R.
      kept: each distinct wrong reply that is believed.
      spent: verdicts and tokens that it took.
    """

    one_step: float
    wrong: float
    believed: float
    kept: Pairs
    spent: Spent

    @property
    def figures(self) -> dict[str, float]:
        """For a line of `figures.jsonl`."""
        return {
            "one_step": self.one_step,
            "wrong": self.wrong,
            "believed": self.believed,
            "kept": float(len(self.kept)),
        }


def run(context: Context) -> dict[str, float]:
    """Teaches, saves `model/`, and returns the last round's figures.

    Raises:
      JobError: after all rounds too few replies are steps, or wrong: no game begins.
    """
    context, c = context.of("generator"), context.config.teach
    (context.directory / ROUNDS).mkdir(exist_ok=True)
    pupil = _Pupil(context)
    corruptions = sft.wrong_samples(context, pupil.model()["backbone"])
    pupil.learn(c.updates, lambda size, rng: [], corruptions, context.directory)
    rounds = [_round(context, pupil, 0)]
    while not _enough(context, rounds):
        kept = [pair for found in rounds for pair in found.kept]
        folder = context.directory / ROUNDS / f"{len(rounds)}"
        pupil.learn(c.round_updates, _drawing(kept), corruptions, folder)
        rounds.append(_round(context, pupil, len(rounds)))
    for found in rounds:
        context.spent.add(found.spent)
    folders = [context.directory / ROUNDS / f"{k}" for k in range(1, len(rounds))]
    for folder in (context.directory, *folders):
        context.spent.add(Spent.of_metrics(folder, "teach"))
    context.save(pupil.merged(), "generator")
    return rounds[-1].figures


def _enough(context: Context, rounds: Sequence[Round]) -> bool:
    """Whether the game can begin; writes down what the rounds found."""
    c, last = context.config.teach, rounds[-1]
    lines = [json.dumps({"round": i, **r.figures}) for i, r in enumerate(rounds)]
    path = context.directory / ROUNDS / "figures.jsonl"
    atomic_write(path, "\n".join(lines) + "\n")
    log.info("%s: round %d: %s", context.stage, len(rounds) - 1, _described(last))
    if last.one_step >= c.one_step and last.wrong >= c.wrong:
        return True
    if len(rounds) > c.rounds:
        raise JobError(
            f"{context.stage}: after {c.rounds} rounds of teaching {_described(last)}; "
            f"the game needs {c.one_step:.0%} and {c.wrong:.0%} (teach.one_step, "
            "teach.wrong). Raise teach.rounds, teach.updates or lora.rank, or take "
            "another backbone"
        )
    return False


def _described(found: Round) -> str:
    return (
        f"{found.one_step:.0%} of the replies are one step, {found.wrong:.0%} "
        f"decidably wrong, {len(found.kept)} kept"
    )


def _drawing(kept: Pairs) -> Callable[[int, np.random.Generator], Pairs]:
    """Draws from the kept replies; none where there are none."""
    pool = list(kept)
    return lambda size, rng: (
        [pool[int(i)] for i in rng.integers(len(pool), size=size)] if pool else []
    )


class _Pupil:
    """The Generator that is taught: all its parameters, or an adapter."""

    def __init__(self, context: Context):
        self._context, c = context, context.config
        self._lora = lora.LoraConfig.of(c.lora)
        source = c.teach.init_from or BACKBONE
        self._base, _ = context.load(source, "teach.init_from", "generator")
        self._trained = context.place(
            lora.player(context.key(_STREAM), self._base, self._lora)
        )

    def model(self) -> Any:
        """As it stands, adapters beside the kernels."""
        return lora.materialise(self._base, self._trained, self._lora)

    def merged(self) -> Any:
        """The same in plain kernels."""
        return lora.merged(self._base, self._trained, self._lora)

    def learn(
        self,
        updates: int,
        kept: Callable[[int, np.random.Generator], Pairs],
        corruptions: Pairs,
        folder: Path,
    ) -> None:
        """Supervised updates on kept replies and on corruptions.

        Args:
          updates: how many; the learning rate warms up and falls over them.
          kept: draws so many of them.
          corruptions: the solver's own wrong steps, see `sft`.
          folder: of its checkpoints and metrics; made.
        """
        context, c = self._context, self._context.config.sft
        folder.mkdir(parents=True, exist_ok=True)
        tx = optimiser(c, updates)
        update = compiled_update(c, context.decoder, tx, context.mesh, self._lora)
        batches = Ahead(
            functools.partial(_batch, context, kept, corruptions, folder.name), updates
        )
        base = self._base if self._lora else None

        def step_fn(state: LearnerState, step: int, timer) -> StepOutput:
            with timer("data"):
                batch, left_out, calls = batches(step)
            with timer("update"):
                state, metrics = update(state, shard_batch(context.mesh, batch), base)
            counts = {"left_out": left_out, "teach/oracle_calls": calls}
            return StepOutput(state, metrics | counts, batch)

        state = run_loop(
            start(self._trained, tx, context.mesh),
            step_fn,
            workdir=folder,
            config=context.loop_config(updates),
            name=f"{context.stage}/{folder.name}",
        )
        self._trained = state.params


def _loss(trained: Any, batch: Any, base: Any, *, decoder: Any, config: Any):
    params = lora.materialise(base, trained, config)
    return sft.language_loss(params, batch, decoder)


def _batch(
    context: Context,
    kept: Callable[[int, np.random.Generator], Pairs],
    corruptions: Pairs,
    name: str,
    step: int,
):
    """Rows of the update `step`: kept replies, the rest corruptions.

    Returns:
      The batch, how many rows did not fit it, and verdicts asked for.
    """
    c = context.config
    rng = np.random.default_rng([c.seed, _STREAM, *name.encode(), step])
    size = c.sft.batch_size
    pairs = kept(round(c.teach.kept_share * size), rng)
    rows = [
        context.writer.perturbation(p.question, p.prefix, p.step, text)
        for p, text in pairs
    ]
    first, oracle = int(rng.integers(1 << 30)), CountedOracle(context.domain.oracle)
    rows += sft.perturbation_rows(context, first, size - len(rows), corruptions, oracle)
    batch, left_out = sft.packed_batch(context, step, rows)
    return batch, float(left_out), float(oracle.calls)


def _round(context: Context, pupil: _Pupil, number: int) -> Round:
    """Samples, judges and scores; what was found before is read again."""
    path = context.directory / ROUNDS / f"kept_{number}.json"
    if path.is_file():
        remedy = f"Delete it, and the same command samples round {number} again."
        fields = read_sealed(path, remedy)
        kept = [
            (Situation(q, tuple(prefix), step), text)
            for q, prefix, step, text in fields["replies"]
        ]
        shares = {name: fields[name] for name in ("one_step", "wrong", "believed")}
        spent = Spent(**fields.get("spent", {}))
        return Round(**shares, kept=kept, spent=spent)
    found = _measured(context, pupil, number)
    replies = [[p.question, p.prefix, p.step, text] for p, text in found.kept]
    more = {"replies": replies, "spent": found.spent.to_json()}
    write_sealed(path, found.figures | more)
    return found


def _measured(context: Context, pupil: _Pupil, number: int) -> Round:
    c = context.config.teach
    prompts = _prompts(context, number)
    rows = context.of("prm").builder
    replies, oracle = context.writer.replies, context.domain.oracle
    queries = rollouts.OracleQueries(prompts, oracle, replies, rows)
    groups = rollouts.perturb(
        context.sampler,
        pupil.model()["backbone"],
        prompts,
        c.group_size,
        context.key(_STREAM, number),
        queries,
    )
    found = rollouts.verify(groups, prompts, queries)
    wrong = [p for p in found if p.verdict.label == Label.INCORRECT]
    believed = _believed(context, wrong)
    total = sum(p.count for p in found)
    mass = sum(p.count for p in wrong)
    return Round(
        one_step=sum(p.count for p in found if not p.reply.reason) / total,
        wrong=mass / total,
        believed=sum(p.count for p in believed) / max(mass, 1),
        kept=[(p.situation, p.reply.text) for p in believed],
        spent=Spent(
            oracle_calls=sum(not p.reply.reason for p in found),
            sampled_tokens=sum(p.count * len(p.reply.ids) for p in found),
        ),
    )


def _prompts(context: Context, number: int) -> list[Prompt]:
    """Situations of a round whose prompt and reply fit a row."""
    count, writer = context.config.teach.situations, context.writer
    room = writer.buckets[-1] - context.sampler.max_new_tokens
    first = (_STREAM << 32) + number * 2 * count
    points = rollouts.situations(
        context.domain, range(first, first + 2 * count), context.config.seed
    )
    prompts = [Prompt.of(writer, point) for point in points]
    fitting = [prompt for prompt in prompts if len(prompt.ids) <= room][:count]
    if not fitting:
        raise JobError(
            f"{context.stage}: no prompt leaves room for a reply in the longest bucket "
            f"({writer.buckets[-1]} tokens): raise builder.buckets"
        )
    return fitting


def _believed(context: Context, wrong: Sequence[Perturbation]) -> list[Perturbation]:
    """Those that R takes for correct; all of them without an R."""
    c = context.config
    if not c.teach.prm_from or not wrong:
        return list(wrong)
    reader = context.of("prm")
    prm, _ = initial_prm(reader, c.teach.prm_from, "teach.prm_from", c.prm.head)
    rows = rollouts.prm_rows(wrong, reader.builder)
    scorer = Scorer(prm_scorer(reader.decoder, c.prm.head), reader.builder, max_steps=1)
    scores = scorer.rows(prm, {i: r for i, r in enumerate(rows) if r is not None})
    least = float(scipy.special.logit(c.teach.believed))
    return [p for i, p in enumerate(wrong) if float(scores[i][0]) >= least]
