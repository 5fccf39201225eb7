"""Judges steps of plain and LaTeX text: their equations, their numbers, their end.

What it can see is what a step states in formulas. It does not read prose: without the
correct step, a true equation of licensed numbers passes whatever it means, and a step
without formulas is undecidable.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar

from aprm_jax.oracle.numerals import format_number
from aprm_jax.oracle.steps import percents
from aprm_jax.oracle.steps.calculator import (
    CalculatorConfig,
    CalculatorOracle,
    is_final,
)
from aprm_jax.oracle.steps.comparison import (
    Step,
    compared,
    computed_by,
    one_quantity,
    only_ends_differ,
    overlap,
    read_step,
    reduced,
    values,
)
from aprm_jax.oracle.steps.context import Context
from aprm_jax.oracle.steps.equations import judge_facts, judge_truth
from aprm_jax.oracle.steps.formula import (
    FormulaError,
    numbers,
    operations,
    parts,
    variables,
)
from aprm_jax.oracle.steps.meaning import conflict
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.quantities import licensed_by
from aprm_jax.oracle.steps.truth import same
from aprm_jax.oracle.steps.wording import another_statement
from aprm_jax.oracle.verdict import (
    Label,
    Verdict,
    correct,
    incorrect,
    shown,
    undecidable,
)

KINDS = (
    "wrong_result",
    "miscopied",
    "contradiction",
    "unlicensed_number",
    "different_operation",
    "different_conclusion",
    "wrong_answer",
    "changed_number",
)

_Judging = Generator[tuple[str, str], bool | None, Verdict]
_T = TypeVar("_T")


class Equivalence(Protocol):
    """What decides the equations that exact arithmetic cannot: `EquivalencePool`."""

    def submit(self, a: str, b: str) -> concurrent.futures.Future[bool | None]: ...


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Bounds and strictness of the text oracle.

    Attributes:
      max_chars: longer candidates are undecidable, unread.
      max_prefix: lines of the prefix, counted from its end, that are read.
      max_questions: comparisons of one step that go to the pool; what is beyond them is
        undecided.
      least_overlap: share of words that a candidate has to have in common with the
        correct step for their conclusions to be compared: 0 compares all of them. Two
        right steps at one place may well compute different things.
      constants: numbers that any step may use, as text.
    """

    max_chars: int = 4_000
    max_prefix: int = 64
    max_questions: int = 4
    least_overlap: float = 0.75
    constants: tuple[str, ...] = CalculatorConfig.constants

    def __post_init__(self) -> None:
        if not 0 <= self.least_overlap <= 1:
            raise ValueError(
                f"least_overlap must be from 0 to 1, is {self.least_overlap}"
            )


class TextOracle:
    """An `Oracle` on text with equations, in LaTeX or without it.

    Args:
      pool: decides roots, functions and the like; without one they are undecidable.
      config: bounds and strictness.
    """

    def __init__(
        self, pool: Equivalence | None = None, config: TextConfig | None = None
    ):
        self.config = config or TextConfig()
        self._pool = pool
        self._calculator = CalculatorOracle(
            CalculatorConfig(
                max_chars=self.config.max_chars,
                max_prefix=self.config.max_prefix,
                constants=self.config.constants,
            )
        )
        self._constants = frozenset(map(Fraction, self.config.constants))

    def judge(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
    ) -> Verdict:
        """See `Oracle.judge`; waits for the pool where that is asked."""
        return self.submit(question, prefix, original, candidate).result()

    def submit(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
    ) -> concurrent.futures.Future[Verdict]:
        """As `judge`, without waiting for the pool: a future of the verdict.

        Exact arithmetic is done before it returns; only what the pool decides is open.
        """
        judging = self._judge(question, prefix, original, candidate)
        future: concurrent.futures.Future[Verdict] = concurrent.futures.Future()
        self._advance(judging, future, lambda: next(judging), self.config.max_questions)
        return future

    def _advance(
        self,
        judging: _Judging,
        future: concurrent.futures.Future[Verdict],
        step: Callable[[], tuple[str, str]],
        questions: int,
    ) -> None:
        """Runs a judgement up to its next open question, or to its end."""
        try:
            while True:
                pair = step()
                if self._pool is not None and questions > 0:
                    break
                step = _sender(judging, None)
            answer = self._pool.submit(*pair)
        except StopIteration as stop:
            future.set_result(stop.value)
            return
        except BaseException as error:
            future.set_exception(error)
            return
        answer.add_done_callback(
            lambda done: self._advance(
                judging, future, _sender(judging, done.result()), questions - 1
            )
        )

    def _judge(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
    ) -> _Judging:
        config = self.config
        if len(candidate) > config.max_chars:
            return undecidable("too_long", f"{len(candidate)} characters")
        if original is not None:
            original = original[: config.max_chars]
            if candidate.split() == original.split():
                return Verdict(Label.CORRECT, "copied", "equals the correct step")
        if _is_annotated(candidate, original):
            return self._calculator.judge(question, prefix, original, candidate)
        # Cut before anything is cached by its text.
        prefix = [line[: config.max_chars] for line in prefix[-config.max_prefix :]]
        ours = read_step(candidate)
        theirs = None if original is None else read_step(original)
        context = Context(question, prefix, candidate)
        commutes = "matri" not in question  # AB is not BA there
        verdict, checks = yield from judge_truth(ours, commutes, context)
        if verdict is not None:
            return verdict
        verdict = judge_facts(ours, theirs, prefix)
        if verdict is not None:
            return verdict
        if theirs is not None:
            verdict = yield from self._judge_against(ours, theirs)
            compares_all = not config.least_overlap
            different = verdict is not None and verdict.kind == "different_conclusion"
            if different and not compares_all:
                said = another_statement(question, theirs.text, candidate)
                if said is not None:  # it may be true of that
                    return undecidable("prose", said)
            if verdict is not None and verdict.label == Label.INCORRECT:
                unsure = context.counts_otherwise or not checks.sure
                if unsure and ours.answer is None:
                    return undecidable("unproven", "it may count otherwise")
                return verdict
        strange = self._unlicensed(ours, question, prefix, theirs)
        if strange is not None:
            number, side = strange
            reason = f"uses {shown(format_number(number))}, which nothing before gives"
            span = side.start, side.end
            if theirs is None or not _alike(ours, theirs, config):
                return undecidable("unlicensed_number", reason, span)
            # Another way to the value that the correct step computes may be right.
            if _exact(side) in values(theirs):
                return undecidable("unlicensed_number", reason, span)
            return incorrect("unlicensed_number", reason, span)
        if theirs is not None:
            if verdict is not None and checks.sure:
                said = another_statement(question, theirs.text, candidate)
                if said is not None and verdict.label == Label.CORRECT:
                    return undecidable("prose", said)
                return verdict
            if not checks.sure:
                return undecidable("unproven", "an equation could not be decided")
            return undecidable("no_reference", "not comparable with the correct step")
        if ours.reading.unread:
            return undecidable("unreadable", "an equation could not be read")
        if checks.held == 0:
            return undecidable("no_claim", "states no equation that can be checked")
        if not checks.sure or checks.conditions:
            return undecidable("unproven", "an equation could not be decided")
        sides = [
            (side, r.right, candidate[r.right.end : r.right.end + 60])
            for r in ours.reading.relations
            for side in (r.left, r.right)
        ]
        against = conflict(question, prefix, candidate, sides)
        if against is not None:
            return undecidable("other_meaning", against)
        return correct("its equations hold")

    def _judge_against(
        self, ours: Step, theirs: Step
    ) -> Generator[tuple[str, str], bool | None, Verdict | None]:
        """The verdict that the correct step gives, if it gives one."""
        ends = compared(ours, theirs, self.config.least_overlap)
        if ends is not None:
            equal = yield from same(*ends)
            if equal is False and one_quantity(ours, theirs, ends):
                return undecidable("prose", "the same in another unit")
            if equal is False:
                a, b = (shown(end.text) for end in ends)
                kind = "wrong_answer" if ours.answer else "different_conclusion"
                reason = f"concludes {a}, the correct step {b}"
                return incorrect(kind, reason, (ends[0].start, ends[0].end))
            if equal is None:
                return undecidable("unproven", "its conclusion could not be compared")
        same_prose = Counter(ours.prose) == Counter(theirs.prose)
        if not _alike(ours, theirs, self.config):
            if ends is not None and same_prose and len(ours.reading.relations) <= 1:
                return correct("concludes the same")
            return None
        changed = Counter(ours.figures) != Counter(theirs.figures)
        if changed and ends is not None and only_ends_differ(ours, theirs, ends):
            value = _exact(ends[0])  # not rounded: 45/60 is no 0.8
            changed = value is None or value != _exact(ends[1])  # `1/2` as `0.5`
        if changed and reduced(ours.text) == reduced(theirs.text):
            changed = False
        if changed and ours.order == theirs.order and not ours.chooses:
            return incorrect("changed_number", "the same words with another number")
        sums = Counter(values(ours)), Counter(values(theirs))
        if sums[0].total() == sums[1].total() and not ours.chooses:
            for other in sums[0] - sums[1]:
                value = shown(format_number(other))
                reason = f"computes {value}, which the correct step does not"
                return incorrect("different_operation", reason)
        if not same_prose or ends is None:
            return undecidable("prose", "says something else beside its equations")
        return correct("concludes the same")

    def _unlicensed(
        self, ours: Step, question: str, prefix: Sequence[str], theirs: Step | None
    ) -> tuple[Fraction, Formula] | None:
        """The first operand that nothing before gives, and its expression."""
        if not any(_is_sum(side) for side in ours.sides):
            return None
        licence = set(self._constants) | licensed_by(question)
        for line in (*prefix, "" if theirs is None else theirs.text):
            licence |= licensed_by(line) | computed_by(line)
        for side in ours.sides:
            if _is_sum(side):
                for number in numbers(side.node):
                    if number not in licence:
                        return number, side
            licence |= {*numbers(side.node), *parts(side.node)}
            with contextlib.suppress(FormulaError):
                licence |= {*percents.values(side)}
        return None


def _is_sum(side: Formula) -> bool:
    return operations(side.node) > 0 and not variables(side.node)


def _alike(ours: Step, theirs: Step, config: TextConfig) -> bool:
    return overlap(ours, theirs) >= config.least_overlap


def _sender(judging: Generator[_T, bool | None, Verdict], answer: bool | None):
    return lambda: judging.send(answer)


def _is_annotated(candidate: str, original: str | None) -> bool:
    """Whether a step is the calculator oracle's: `<<1+1=2>>` or `#### 2`."""
    texts = (candidate,) if original is None else (candidate, original)
    return any("<<" in t or ">>" in t or is_final(t) for t in texts)


def _exact(formula: Formula) -> Fraction | None:
    try:
        return percents.values(formula)[0]
    except FormulaError:
        return None
