"""One round's perturbations: sample, verify, score, and cut into the two batches."""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from jaxtyping import Float32

from aprm_jax.data.steps import StepBuilder, StepRow
from aprm_jax.game.rewards import RewardTable
from aprm_jax.game.update import GeneratorBatch
from aprm_jax.oracle.verdict import Label, Verdict
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.tasks.protocols import Domain
from aprm_jax.verifiers.step_loss import PrmBatch

TOO_LONG = "too_long"  # for R's rows; of some builders also a reason of their own


@dataclasses.dataclass(frozen=True)
class Situation:
    """A point to perturb: question Q, correct prefix S, correct next step s."""

    question: str
    prefix: tuple[str, ...]
    step: str


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Equal replies of one group, merged: they have one gradient, `count` times it.

    Attributes:
      situation: what was perturbed.
      group: index of the situation in its round.
      text: s', the perturbed step.
      reply: its ids as drawn, the stop token included.
      logprobs: the sampler's log-probabilities of them.
      count: how often it was drawn.
      verdict: the oracle's, or the rule's on what is not one step.
      reason: why it is not one, of the builder's `reasons` or TOO_LONG; "" for a step.
    """

    situation: Situation
    group: int
    text: str
    reply: tuple[int, ...]
    logprobs: Float32[np.ndarray, " T"]
    count: int
    verdict: Verdict
    reason: str = ""


def situations(domain: Domain, indices: Sequence[int], seed: int) -> list[Situation]:
    """One step of each training problem, chosen by (seed, index) alone."""
    out = []
    for index in indices:
        problem = domain.train(index)
        rng = np.random.default_rng([seed, 11, index])
        k = int(rng.integers(len(problem.steps)))
        out.append(Situation(problem.question, problem.steps[:k], problem.steps[k]))
    return out


def perturb(
    sampler: Sampler,
    generator_backbone: Any,
    points: Sequence[Situation],
    group_size: int,
    builder: StepBuilder,
    key: Any,
    queries: OracleQueries | None = None,
) -> list[tuple[int, tuple[int, ...], Float32[np.ndarray, " _"], bool]]:
    """Draws `group_size` replies for each situation, at temperature 1, untruncated.

    `queries` asks the oracle about each reply while others are still sampled.

    Returns:
      (group, reply ids, log-probabilities, stopped) of every draw, in order.
    """
    prompts = []
    for point in points:
        prompt = builder.perturb_context(point.question, point.prefix, point.step)
        prompts.extend([prompt] * group_size)

    def draw(samples: Samples, i: int):
        ids = np.asarray(samples.tokens)[i, : samples.lengths[i]]
        return i // group_size, tuple(int(t) for t in ids), bool(samples.stopped[i])

    def ask(samples: Samples, rows: Sequence[int]) -> None:
        if queries is None:
            return
        for i in rows:
            queries.submit(*draw(samples, i))

    samples = sampler.sample(generator_backbone, prompts, key, stored=ask)
    out = []
    for i in range(len(prompts)):
        group, reply, stopped = draw(samples, i)
        logprobs = np.asarray(samples.logprobs)[i, : len(reply)]
        out.append((group, reply, logprobs, stopped))
    return out


def verify(
    draws: Sequence[tuple[int, tuple[int, ...], Float32[np.ndarray, " _"], bool]],
    points: Sequence[Situation],
    domain: Domain,
    builder: StepBuilder,
    prm_builder: StepBuilder,
    queries: OracleQueries | None = None,
) -> list[Perturbation]:
    """Merges equal draws and asks the oracle, once for each distinct reply.

    What `queries` has asked before is not asked again.
    """
    queries = queries or OracleQueries(points, domain, builder, prm_builder)
    for group, reply, _, stopped in draws:
        queries.submit(group, reply, stopped)
    counts = Counter((group, reply) for group, reply, _, _ in draws)
    seen: set[tuple[int, tuple[int, ...]]] = set()
    out = []
    for group, reply, logprobs, _ in draws:
        if (group, reply) in seen:
            continue
        seen.add((group, reply))
        text, verdict, reason = queries.result(group, reply)
        out.append(
            Perturbation(
                points[group],
                group,
                text,
                reply,
                logprobs,
                counts[(group, reply)],
                verdict,
                reason,
            )
        )
    return out


class OracleQueries:
    """What the oracle says of a round's replies, each distinct one asked about once.

    An oracle that has a `submit` answers in the background. A reply that is not one
    closed step, or does not fit R's rows, is undecidable by rule: it never reaches R,
    and pays G as a failure to corrupt.

    Args:
      points: the situations.
      domain: has the oracle.
      builder: G's.
      prm_builder: R's.
    """

    def __init__(
        self,
        points: Sequence[Situation],
        domain: Domain,
        builder: StepBuilder,
        prm_builder: StepBuilder,
    ):
        self._points, self._oracle = points, domain.oracle
        self._builder, self._prm_builder = builder, prm_builder
        self._submitted: dict[
            tuple[int, tuple[int, ...]], tuple[str, Verdict | Future[Verdict], str]
        ] = {}

    def submit(self, group: int, reply: tuple[int, ...], stopped: bool) -> None:
        """Asks about a reply to situation `group`."""
        if (group, reply) in self._submitted:
            return
        point, prm = self._points[group], self._prm_builder
        read = self._builder.read_reply(reply, stopped)
        text, reason = read.step, read.reason
        if text is None:
            text = self._builder.decode(reply)
        elif not prm.fits(prm.step(point.question, point.prefix, text)):
            reason = TOO_LONG
        if reason:
            why = f"the reply is not one step: {reason}"
            verdict = Verdict(Label.UNDECIDABLE, "unfinished", why)
        else:
            submit = getattr(self._oracle, "submit", self._oracle.judge)
            verdict = submit(point.question, point.prefix, point.step, text)
        self._submitted[group, reply] = text, verdict, reason

    def result(self, group: int, reply: tuple[int, ...]) -> tuple[str, Verdict, str]:
        """Text, verdict and `reason` of what was asked about; waits for the verdict."""
        text, verdict, reason = self._submitted[group, reply]
        if isinstance(verdict, Future):
            verdict = verdict.result()
        return text, verdict, reason


def prm_rows(
    perturbations: Sequence[Perturbation], builder: StepBuilder
) -> list[StepRow | None]:
    """Each perturbation as R sees it; None where R must not."""
    rows: list[StepRow | None] = []
    for p in perturbations:
        if p.verdict.label == Label.UNDECIDABLE:
            rows.append(None)
            continue
        point, label = p.situation, float(p.verdict.label == Label.CORRECT)
        rows.append(builder.step(point.question, point.prefix, p.text, label))
    return rows


def generator_batch(
    perturbations: Sequence[Perturbation],
    p_correct: Float32[np.ndarray, " N"],
    table: RewardTable,
    builder: StepBuilder,
    rng: np.random.Generator,
    most: int,
    length: int,
    batch_size: int | None = None,
) -> GeneratorBatch:
    """Up to `most` distinct perturbations, uniformly among those that do not fit.

    Args:
      perturbations: of one round.
      p_correct: R's probability of correct for each; ignored where undecidable.
      table: the rewards.
      builder: makes the rows.
      rng: chooses which are left out.
      most: rows that are learned from.
      length: T.
      batch_size: B, with rows of padding; by default `most`.
    """
    rows = most if batch_size is None else batch_size
    labels = np.array([int(p.verdict.label) for p in perturbations])
    reward = table.generator(labels, p_correct)
    no_step = np.array([bool(p.reason) for p in perturbations])
    reward = np.where(no_step, table.generator_still_correct, reward)
    learnable = np.flatnonzero((labels != Label.UNDECIDABLE) | no_step)
    chosen = np.sort(rng.permutation(learnable)[:most])
    made = []
    sampler_logprobs = np.zeros((rows, length), np.float32)
    weight = np.zeros(rows, np.float32)
    group = np.zeros(rows, np.int32)
    rewards = np.zeros((rows, length), np.float32)
    for b, i in enumerate(chosen):
        p = perturbations[i]
        point = p.situation
        prompt = builder.perturb_context(point.question, point.prefix, point.step)
        made.append(builder.continuation(prompt, p.reply))
        end = len(prompt) + len(p.reply)
        sampler_logprobs[b, len(prompt) : end] = p.logprobs
        weight[b], group[b], rewards[b, end - 1] = p.count, p.group, reward[i]
    if not made:  # nothing to learn from: a batch of padding, all weights 0
        made.append(builder.continuation([builder.bos_id], [builder.step_id]))
    return GeneratorBatch(
        rows=builder.collate(made, length=length, max_steps=1, batch_size=rows),
        rewards=rewards,
        weight=weight,
        group=group,
        sampler_logprobs=sampler_logprobs,
        old_logprobs=None,
    )


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
    builder: StepBuilder,
    rows: int,
    length: int,
) -> PrmBatch:
    """R's mixture of one round, in the order of `SOURCES`."""
    source = np.zeros(rows, np.int32)
    start = 0
    for index, part in enumerate((clean, fresh, replayed)):
        source[start : start + len(part)] = index
        start += len(part)
    return PrmBatch(
        rows=builder.collate(
            [*clean, *fresh, *replayed], length=length, max_steps=1, batch_size=rows
        ),
        source=source,
    )


def paired_buckets(
    longest: tuple[int, int], buckets: tuple[Sequence[int], Sequence[int]]
) -> tuple[int, int]:
    """Row lengths of G's and R's batches: buckets of the same rank.

    Were each chosen alone, the joint update would be compiled for every pair.

    Args:
      longest: tokens of G's longest row, and of R's.
      buckets: row lengths of either, ascending; the last one fits.
    """
    rank = max(bisect.bisect_left(b, n) for n, b in zip(longest, buckets, strict=True))
    generator, prm = (b[min(rank, len(b) - 1)] for b in buckets)
    return generator, prm


def static_rows(
    points: Iterable[Situation],
    domain: Domain,
    builder: StepBuilder,
    rng: np.random.Generator,
    count: int,
) -> list[StepRow]:
    """Up to `count` static corruptions that the oracle calls incorrect, labelled 0."""
    out = []
    for point in points:
        if len(out) == count:
            break
        text = domain.corrupt(rng, point.question, point.prefix, point.step)
        if text is None:
            continue
        verdict = domain.oracle.judge(point.question, point.prefix, point.step, text)
        if verdict.label == Label.INCORRECT:
            out.append(builder.step(point.question, point.prefix, text, 0.0))
    return out


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
        "game/oracle_calls": sum(not p.reason for p in perturbations),
    }
    copied = [p.count for p in perturbations if p.text == p.situation.step]
    metrics["game/copied_rate"] = sum(copied) / total
    distance = [edit_distance(p.situation.step, p.text) for p in perturbations]
    metrics["game/edit_distance"] = float((count * distance).sum() / total)
    for reason in ("", *dict.fromkeys((*reasons, TOO_LONG))):
        of_reason = count * np.array([p.reason == reason for p in perturbations])
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
