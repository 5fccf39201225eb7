"""A solver that is a model in this process, many problems side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from aprm_jax.data.replies import Reply
from aprm_jax.data.steps import StepBuilder
from aprm_jax.models.flops import forward_flops
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.sampling.session import Session
from aprm_jax.solvers.partial import Partial, begun, ended
from aprm_jax.solvers.protocol import NO_ROOM, Solution, Solver, Start, Written
from aprm_jax.solvers.sessions import SessionRows
from aprm_jax.tasks.protocols import Grader

# (solutions that go on, key) to a step of each.
_Write = Callable[[list[Partial], Any], list[Written]]


@dataclasses.dataclass(frozen=True)
class LocalSolver(Solver):
    """Samples step by step from a backbone; a `StepSolver` too, which keeps its cache.

    Attributes:
      sampler: of its architecture.
      backbone: its parameters.
      grader: tells which step concludes.
      builder: makes the prompts, and reads the replies.
    """

    sampler: Sampler
    backbone: Any
    grader: Grader
    builder: StepBuilder

    def solve(
        self,
        starts: Sequence[Start],
        count: int,
        key: Any,
        *,
        max_steps: int,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
        draws: Sequence[int] | None = None,
    ) -> list[list[Solution]]:
        """See `Solver.solve`; a depth folds into the key.

        Prompts that go on from those of the step before are read from there.
        """
        partial = begun(starts, count, draws)
        options = {"temperature": temperature, "truncation": truncation}
        if self._goes_on(partial, max_steps):
            most = self.sampler.batch_buckets[-1]
            for i in range(0, len(partial), most):
                part = partial[i : i + most]
                _write(part, self._in_session(part, options), key, max_steps)
        else:
            _write(partial, self._anew(options), key, max_steps)
        return ended(partial, count)

    @property
    def flops_per_token(self) -> float:
        """See `StepSolver`."""
        return forward_flops(self.backbone, unembeds=True)

    @property
    def tokens_read(self) -> int:
        """See `Sampler.tokens_read`."""
        return self.sampler.tokens_read

    def begin(
        self, starts: Sequence[Start], rows: SessionRows | None = None
    ) -> SessionRows:
        """See `StepSolver.begin`; nothing is read yet."""
        return SessionRows.unread(starts) if rows is None else rows.entered(starts)

    def extend(
        self,
        rows: SessionRows,
        parents: Sequence[int],
        draws: Sequence[int],
        key: Any,
        *,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
    ) -> tuple[SessionRows, list[Written]]:
        """See `StepSolver.extend`; of a prompt only what the cache lacks is read."""
        options = {"temperature": temperature, "truncation": truncation}
        return self._extend(rows, parents, draws, jax.random.fold_in(key, 0), options)

    def _extend(
        self,
        rows: SessionRows,
        parents: Sequence[int],
        draws: Sequence[int],
        key: Any,
        options: dict[str, Any],
    ) -> tuple[SessionRows, list[Written]]:
        contexts = [self._context(*rows.starts[parent]) for parent in parents]
        rows = rows.read(parents, contexts, self._session)
        written = [NO_ROOM] * len(parents)
        drawn = [i for i, place in enumerate(rows.places) if place is not None]
        if rows.session is not None:
            samples = rows.session.sample(
                key,
                stops=self.sampler.stops,
                max_new_tokens=self.sampler.max_new_tokens,
                draws=[draws[i] for i in drawn],
                **options,
            )
            for place, i in enumerate(drawn):
                written[i] = self._written(samples.reply(place))
            rows.grew([len(step.tokens) for step in written])
        rows.starts = tuple(
            (question, (*steps, step.text) if step.closed else tuple(steps))
            for (question, steps), step in zip(rows.starts, written, strict=True)
        )
        return rows, written

    def _goes_on(self, partial: list[Partial], max_steps: int) -> bool:
        """Whether prompts of later steps repeat those of the steps before them."""
        window = self.builder.window
        most = max((max_steps - len(p.steps) for p in partial), default=0)
        return most > 1 and (window is None or window > max_steps)

    def _in_session(self, partial: list[Partial], options: dict[str, Any]) -> _Write:
        rows, known = self.begin([p.start for p in partial]), partial

        def write(live: list[Partial], key: Any) -> list[Written]:
            nonlocal rows, known
            places = {id(p): i for i, p in enumerate(known)}
            parents = [places[id(p)] for p in live]
            rows, written = self._extend(
                rows, parents, [p.draw for p in live], key, options
            )
            known = live
            return written

        return write

    def _anew(self, options: dict[str, Any]) -> _Write:
        """Reads every prompt from its first token."""

        def write(live: list[Partial], key: Any) -> list[Written]:
            contexts = [self._context(*p.start) for p in live]
            drawn = [i for i, ids in enumerate(contexts) if ids is not None]
            written = [NO_ROOM] * len(live)
            if not drawn:
                return written
            samples = self.sampler.sample(
                self.backbone,
                [ids for ids in contexts if ids is not None],
                key,
                draws=[live[i].draw for i in drawn],
                **options,
            )
            for place, i in enumerate(drawn):
                written[i] = self._written(samples.reply(place))
            return written

        return write

    def _context(self, question: str, steps: Sequence[str]) -> list[int] | None:
        """A prompt; None where it leaves no room."""
        ids = self.builder.context(question, steps)
        return ids if len(ids) <= self.sampler.prompt_buckets[-1] else None

    def _session(self, prompts: Sequence[Sequence[int]]) -> Session:
        return self.sampler.session(self.backbone, prompts)

    def _written(self, drawn: Reply) -> Written:
        reply = self.builder.replies.read(drawn)
        # An empty line is a bad step, but it is one. A reply that never closes is
        # none: nothing sensible can follow it.
        closed = reply.reason in ("", "empty")
        finished = closed and self.grader.is_final(reply.text)
        logprobs = tuple(reply.logprobs.tolist())
        return Written(reply.text, reply.ids, logprobs, closed, finished)


def _write(partial: list[Partial], write: _Write, key: Any, max_steps: int) -> None:
    """Goes on with solutions until each has ended."""
    for depth in range(max_steps):
        live = [p for p in partial if p.goes_on and len(p.steps) < max_steps]
        if not live:
            return
        written = write(live, jax.random.fold_in(key, depth))
        for state, step in zip(live, written, strict=True):
            state.add(step)
