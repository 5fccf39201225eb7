"""A solver whose every solution is known with its probability, and simple verifiers.

Steps are "a" and "b" in some order and number; then "= ANSWER" ends a solution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.engine import Engine
from aprm_jax.search.methods import Method
from aprm_jax.solvers.protocol import NO_ROOM, Written
from aprm_jax.solvers.stepwise import TextRows
from aprm_jax.verifiers.protocol import Scale, logit

# What may follow some steps: text -> probability. A text that begins with "=" ends the
# solution, one that ends with "..." is no whole step.
Rule = Callable[[tuple[str, ...]], Mapping[str, float]]


def walk(steps: tuple[str, ...]) -> Mapping[str, float]:
    """One to three steps, then the number of b's."""
    end = f"= {steps.count('b')}"
    if len(steps) == 3:
        return {end: 1.0}
    stop = {0: 0.0, 1: 0.3, 2: 0.5}[len(steps)]
    return {"a": 0.6 * (1 - stop), "b": 0.4 * (1 - stop), end: stop}


def distribution(rule: Rule = walk) -> dict[tuple[str, ...], float]:
    """Every solution and its probability."""
    done: dict[tuple[str, ...], float] = {}
    live = {(): 1.0}
    while live:
        steps, share = live.popitem()
        for text, probability in rule(steps).items():
            ends = text.startswith("=") or text.endswith("...")
            into = done if ends else live
            if probability:
                into[(*steps, text)] = share * probability
    return done


@dataclasses.dataclass
class FakeSolver:
    """Implements `StepSolver`; remembers what it was asked."""

    rule: Rule = walk
    flops_per_token: float = 2.0
    ends: Callable[[str], bool] = lambda text: text.startswith("=")
    calls: list[list[tuple[str, tuple[str, ...]]]] = dataclasses.field(
        default_factory=list
    )
    begun: list[list[tuple[str, tuple[str, ...]]]] = dataclasses.field(
        default_factory=list
    )

    def begin(self, starts, rows=None) -> TextRows:
        starts = tuple((q, tuple(steps)) for q, steps in starts)
        self.begun.append(list(starts))
        read = tuple(1 + len(steps) for _, steps in starts)
        return TextRows(read, 100 * len(starts), starts=starts)

    def extend(self, rows, parents, draws, key, *, temperature=1.0, truncation=None):
        starts = [rows.starts[parent] for parent in parents]
        self.calls.append(starts)
        after, written = [], []
        for (question, steps), draw in zip(starts, draws, strict=True):
            choices = {t: p for t, p in self.rule(steps).items() if p}
            if not choices:  # no room
                written.append(NO_ROOM)
                after.append((question, steps))
                continue
            uniform = np.random.default_rng([key, draw]).random()
            index = int(np.searchsorted(np.cumsum(list(choices.values())), uniform))
            text = list(choices)[min(index, len(choices) - 1)]
            whole = not text.endswith("...")
            final = whole and self.ends(text)
            written.append(Written(text, (len(text),), (0.0,), whole, final))
            after.append((question, (*steps, text)))
        zeros = (0,) * len(starts)
        return TextRows(zeros, 100 * len(starts), starts=tuple(after)), written


@dataclasses.dataclass
class FakeVerifier:
    """Implements `StepVerifier`: `says` gives P(correct) of the last of some steps."""

    says: Callable[[tuple[str, ...]], float] = lambda steps: 0.5
    scale: Scale = Scale.LOG_ODDS
    flops_per_token: float = 4.0
    start: float = float("nan")
    read_steps: list[tuple[str, ...]] = dataclasses.field(default_factory=list)

    def begin(self, starts, rows=None):
        rows = TextRows((1,) * len(starts), 10 * len(starts), starts=tuple(starts))
        return rows, logit(np.full(len(starts), self.start))

    def read(self, rows, parents: Sequence[int], steps: Sequence[str]):
        after = tuple(
            (rows.starts[parent][0], (*rows.starts[parent][1], step))
            for parent, step in zip(parents, steps, strict=True)
        )
        self.read_steps += [s for _, s in after]
        scores = logit(np.array([self.says(s) for _, s in after], float))
        return TextRows((1,) * len(after), 10 * len(after), starts=after), scores


class Answers:
    """Implements `Grader` on these solutions; "= 1.0" and "= 1" mean the same."""

    def is_final(self, step: str) -> bool:
        return step.startswith("=")

    def answer(self, steps: Sequence[str]) -> str | None:
        return steps[-1].removeprefix("=").strip() or None

    def same_answer(self, given: str | None, expected: str) -> bool:
        return given is not None and float(given) == float(expected)


def engine(method: Method, says=None, *, rule: Rule = walk, **changes: Any) -> Engine:
    """An engine on the fakes."""
    fields: dict[str, Any] = {
        "solver": FakeSolver(rule),
        "verifier": FakeVerifier(*([says] if says else [])),
        "method": method,
        "aggregation": Aggregation("min"),
        "max_steps": 8,
    }
    return Engine(**(fields | changes))
