"""One round's perturbations: what is perturbed, what G draws, what the oracle says."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from jaxtyping import Float32

from aprm_jax.data.replies import Reply, ReplyFormat
from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.oracle.verdict import Label, Verdict
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.tasks.protocols import Corruptor, Problems, StepOracle

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
