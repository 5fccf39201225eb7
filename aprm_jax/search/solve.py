"""Whole solutions from a solver, step by step, many problems side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from aprm_jax.data.replies import ReplyFormat
from aprm_jax.data.steps import StepBuilder
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.tasks.protocols import Grader


@dataclasses.dataclass(frozen=True)
class Solution:
    """One sampled solution.

    Attributes:
      question: the problem.
      steps: its steps, the given prefix included.
      finished: whether its last step concludes it.
      min_logprob: of each sampled step, the solver's least token log-probability.
      sum_logprob: of each sampled step, the log-probability of the step.
    """

    question: str
    steps: tuple[str, ...]
    finished: bool
    min_logprob: tuple[float, ...]
    sum_logprob: tuple[float, ...]


@dataclasses.dataclass
class _Partial:
    question: str
    steps: list[str]
    draw: int  # picks its randomness, whichever others are still unfinished
    finished: bool = False
    dead: bool = False
    min_logprob: list[float] = dataclasses.field(default_factory=list)
    sum_logprob: list[float] = dataclasses.field(default_factory=list)


def sample_solutions(
    sampler: Sampler,
    backbone: Any,
    grader: Grader,
    builder: StepBuilder,
    starts: Sequence[tuple[str, Sequence[str]]],
    count: int,
    key: Any,
    *,
    max_steps: int,
    temperature: float = 1.0,
) -> list[list[Solution]]:
    """Completes each start `count` times.

    A solution ends with a concluding step, after `max_steps` steps, or where its next
    prompt no longer fits; the latter two are unfinished. What solution k of start i
    gets depends on (key, i, k), not on the others or on `count`.

    Args:
      sampler: of the solver's architecture.
      backbone: the solver's parameters.
      grader: tells which step concludes.
      builder: makes the prompts.
      starts: (question, prefix) of each.
      count: solutions a start.
      key: of the whole request; a depth folds into it.
      max_steps: most steps of a solution, the prefix included.
      temperature: of the sampler; 0 is greedy.

    Returns:
      `count` solutions for each start.
    """
    partial = [
        _Partial(question, list(prefix), (i << 16 | k) % (1 << 32))
        for i, (question, prefix) in enumerate(starts)
        for k in range(count)
    ]
    for depth in range(max_steps):
        prompts, live = [], []
        for state in partial:
            if state.finished or state.dead or len(state.steps) >= max_steps:
                continue
            prompt = builder.context(state.question, state.steps)
            if len(prompt) > sampler.prompt_buckets[-1]:
                state.dead = True
                continue
            prompts.append(prompt)
            live.append(state)
        if not live:
            break
        samples = sampler.sample(
            backbone,
            prompts,
            jax.random.fold_in(key, depth),
            temperature=temperature,
            draws=[state.draw for state in live],
        )
        _extend(live, samples, grader, builder.replies)
    solutions = [
        Solution(
            p.question,
            tuple(p.steps),
            p.finished,
            tuple(p.min_logprob),
            tuple(p.sum_logprob),
        )
        for p in partial
    ]
    return [solutions[i : i + count] for i in range(0, len(solutions), count)]


def _extend(
    live: list[_Partial], samples: Samples, grader: Grader, replies: ReplyFormat
) -> None:
    for i, state in enumerate(live):
        reply = replies.read(samples.reply(i))
        # An empty line is a bad step, but it is one.
        closed = reply.reason in ("", "empty")
        state.steps.append(reply.text)
        state.min_logprob.append(float(reply.logprobs.min()))
        state.sum_logprob.append(float(reply.logprobs.sum()))
        # A reply that never closes is no step: nothing sensible can follow it.
        state.dead = not closed
        state.finished = closed and grader.is_final(reply.text)
