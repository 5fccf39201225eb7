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

from aprm_jax.oracle.steps.calculator import (
    CalculatorConfig,
    CalculatorOracle,
    is_final,
)
from aprm_jax.oracle.steps.comparison import (
    Step,
    compared,
    computed_by,
    overlap,
    read_step,
    values,
)
from aprm_jax.oracle.steps.expression import format_number
from aprm_jax.oracle.steps.facts import Facts, is_hypothetical
from aprm_jax.oracle.steps.formula import (
    FormulaError,
    numbers,
    operations,
    parts,
    variables,
)
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.quantities import licensed_by
from aprm_jax.oracle.steps.relations import Relation
from aprm_jax.oracle.steps.truth import holds, is_identity, readings, same
from aprm_jax.oracle.verdict import Label, Verdict

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
            return _undecidable("too_long", f"{len(candidate)} characters")
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
        commutes = "matri" not in question  # AB is not BA there
        verdict, checks = yield from _judge_truth(ours, commutes)
        if verdict is not None:
            return verdict
        verdict = _judge_facts(ours, theirs, prefix)
        if verdict is not None:
            return verdict
        if theirs is not None:
            verdict = yield from self._judge_against(ours, theirs)
            if verdict is not None and verdict.label == Label.INCORRECT:
                return verdict
        strange = self._unlicensed(ours, question, prefix, theirs)
        if strange is not None:
            number, side = strange
            reason = f"uses {_shown(format_number(number))}, which nothing before gives"
            span = side.start, side.end
            if theirs is None or not _alike(ours, theirs, config):
                return _undecidable("unlicensed_number", reason, span)
            # Another way to the value that the correct step computes may be right.
            if _exact(side) in values(theirs):
                return _undecidable("unlicensed_number", reason, span)
            return _incorrect("unlicensed_number", reason, span)
        if theirs is not None:
            if verdict is not None and checks.sure:
                return verdict
            if not checks.sure:
                return _undecidable("unproven", "an equation could not be decided")
            return _undecidable("no_reference", "not comparable with the correct step")
        if ours.reading.unread:
            return _undecidable("unreadable", "an equation could not be read")
        if checks.held == 0:
            return _undecidable("no_claim", "states no equation that can be checked")
        if not checks.sure or checks.conditions:
            return _undecidable("unproven", "an equation could not be decided")
        return Verdict(Label.CORRECT, "correct", "its equations hold")

    def _judge_against(
        self, ours: Step, theirs: Step
    ) -> Generator[tuple[str, str], bool | None, Verdict | None]:
        """The verdict that the correct step gives, if it gives one."""
        ends = compared(ours, theirs, self.config.least_overlap)
        if ends is not None:
            equal = yield from same(*ends)
            if equal is False:
                a, b = (_shown(end.text) for end in ends)
                kind = "wrong_answer" if ours.answer else "different_conclusion"
                reason = f"concludes {a}, the correct step {b}"
                return _incorrect(kind, reason, (ends[0].start, ends[0].end))
            if equal is None:
                return _undecidable("unproven", "its conclusion could not be compared")
        same_prose = Counter(ours.prose) == Counter(theirs.prose)
        if not _alike(ours, theirs, self.config):
            if ends is not None and same_prose and len(ours.reading.relations) <= 1:
                return Verdict(Label.CORRECT, "correct", "concludes the same")
            return None
        changed = Counter(ours.figures) != Counter(theirs.figures)
        if changed and ours.order == theirs.order and not ours.chooses:
            return _incorrect("changed_number", "the same words with another number")
        sums = Counter(values(ours)), Counter(values(theirs))
        if sums[0].total() == sums[1].total() and not ours.chooses:
            for other in sums[0] - sums[1]:
                shown = _shown(format_number(other))
                reason = f"computes {shown}, which the correct step does not"
                return _incorrect("different_operation", reason)
        if not same_prose or ends is None:
            return _undecidable("prose", "says something else beside its equations")
        return Verdict(Label.CORRECT, "correct", "concludes the same")

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
                licence |= {*readings(side)}
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


@dataclasses.dataclass
class _Checks:
    """How far a step's equations were checked.

    Attributes:
      held: equations with an operation that hold.
      conditions: equations with variables that may hold or not.
      sure: whether all others hold for sure.
    """

    held: int = 0
    conditions: int = 0
    sure: bool = True


def _judge_truth(
    step: Step, commutes: bool
) -> Generator[tuple[str, str], bool | None, tuple[Verdict | None, _Checks]]:
    """A verdict if an equation is false, and how far the others were checked.

    An equation with variables may be a condition to solve. Not so where a chain goes on
    from a variable, `y = 2(x+1) = 2x+2`, or from an identity.
    """
    checks = _Checks()
    derives = False  # whether a chain goes on transforming one expression
    for relation in step.reading.relations:
        if relation.closed:
            truth = yield from holds(relation)
        elif not relation.chained:
            derives = relation.left.node.op == "variable"
            if not derives and commutes and _transforms(relation):
                derives = (yield from is_identity(relation)) is True
            checks.held += derives and _transforms(relation)
            checks.conditions += not (derives and _transforms(relation))
            continue
        elif commutes and derives and _transforms(relation):
            truth = yield from is_identity(relation)
        else:
            checks.conditions += 1
            continue
        if truth is False:
            return _false(relation), checks
        computes = operations(relation.left.node) + operations(relation.right.node)
        checks.held += truth is True and computes > 0
        checks.sure = checks.sure and truth is True
    return None, checks


def _false(relation: Relation) -> Verdict:
    left, right = _shown(relation.left.text), _shown(relation.right.text)
    sign = "=" if relation.sign == "=" else "is about"
    why = "these are different functions"
    if relation.closed:
        why = f"it is {_value(relation.left)}"
        if not operations(relation.left.node) and operations(relation.right.node):
            why = f"{right} is {_value(relation.right)}"
    reason = f"{left} {sign} {right}, but {why}"
    return _incorrect("wrong_result", reason, relation.span)


def _transforms(relation: Relation) -> bool:
    """Whether both sides have the same variables: `2(x+1) = 2x+2`, or a condition."""
    left, right = variables(relation.left.node), variables(relation.right.node)
    return relation.sign == "=" and left == right


def _judge_facts(
    step: Step, theirs: Step | None, prefix: Sequence[str]
) -> Verdict | None:
    """A verdict if an equation contradicts what earlier equations give."""
    open_ones = [r for r in step.reading.relations if not r.closed]
    if not open_ones or is_hypothetical(step.text):
        return None
    said = "" if theirs is None else "".join(theirs.text.split())
    named = Counter(_assigned(r) for r in open_ones)
    facts = Facts(prefix)
    for relation in open_ones:
        if named[_assigned(relation)] > 1 and _assigned(relation):
            continue  # one of several values: `x = 3` and `x = -3`
        problem = facts.contradicts(relation)
        start, end = relation.span
        if problem is not None and "".join(step.text[start:end].split()) not in said:
            return _incorrect("contradiction", problem, relation.span)
        facts.add(relation)
    return None


def _assigned(relation: Relation) -> str:
    """The variable that a relation gives a value; empty where it gives none."""
    left = relation.left.node
    return left.name if left.op == "variable" and not relation.chained else ""


def _exact(formula: Formula) -> Fraction | None:
    try:
        return readings(formula)[0]
    except FormulaError:
        return None


def _value(formula: Formula) -> str:
    try:
        return _shown(format_number(readings(formula)[0]))
    except FormulaError:
        return "another number"


def _shown(text: str) -> str:
    """Hostile text for a message: short, and ASCII so that every log can write it."""
    text = " ".join(text[:80].split())
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _incorrect(kind: str, reason: str, span: tuple[int, int] | None = None) -> Verdict:
    return Verdict(Label.INCORRECT, kind, reason, span)


def _undecidable(
    kind: str, reason: str, span: tuple[int, int] | None = None
) -> Verdict:
    return Verdict(Label.UNDECIDABLE, kind, reason, span)
