"""Judges word-problem steps by their calculator annotations, in exact arithmetic.

What it can see is the arithmetic: whether the equations hold, where their numbers come
from, and, when the correct step is known, whether the candidate concludes the same. It
does not read prose: a reworded step with the same equations passes, and without the
original a true equation of licensed numbers passes whatever it means.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import Stated, read_stated
from aprm_jax.oracle.steps.claims import (
    ANNOTATION,
    Claim,
    Claims,
    holds,
    miscopied,
    read_claims,
    same_result,
    same_value,
)
from aprm_jax.oracle.steps.context import Context
from aprm_jax.oracle.steps.formula import numbers
from aprm_jax.oracle.steps.meaning import conflict
from aprm_jax.oracle.steps.percents import values
from aprm_jax.oracle.steps.quantities import figures, licensed_by, skeleton
from aprm_jax.oracle.steps.wording import another_statement
from aprm_jax.oracle.verdict import (
    Label,
    Verdict,
    correct,
    incorrect,
    shown,
    undecidable,
)

FINAL = "####"

KINDS = (
    "wrong_result",
    "miscopied",
    "unlicensed_number",
    "different_conclusion",
    "wrong_answer",
    "changed_number",
)


@dataclasses.dataclass(frozen=True)
class CalculatorConfig:
    """Bounds and licence of the calculator oracle.

    Attributes:
      max_chars: longer candidates are undecidable, unread.
      max_prefix: lines of the prefix, counted from its end, that license numbers.
      constants: numbers that any step may use, as text.
    """

    max_chars: int = 4_000
    max_prefix: int = 64
    constants: tuple[str, ...] = (
        *("0", "1", "2", "3", "4", "10", "100", "1000"),
        *(".01", ".1", ".5", "7", "12", "24", "30", "52", "60", "365"),
    )


class CalculatorOracle:
    """An `Oracle` on `<<expr=value>>` annotations and bare equalities."""

    def __init__(self, config: CalculatorConfig | None = None):
        self.config = config or CalculatorConfig()
        stated = [read_stated(text) for text in self.config.constants]
        if None in stated:
            raise ValueError(f"constants must be numbers: {self.config.constants}")
        self._constants = frozenset(s.value for s in stated if s is not None)

    def judge(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
    ) -> Verdict:
        """See `Oracle.judge`. Time is bounded by the config, whatever the text."""
        if len(candidate) > self.config.max_chars:
            return undecidable("too_long", f"{len(candidate)} characters")
        if original is not None:
            original = original[: self.config.max_chars]
            if candidate.split() == original.split():
                return Verdict(Label.CORRECT, "copied", "equals the correct step")
        prefix = prefix[-self.config.max_prefix :]
        if is_final(candidate) or (original is not None and is_final(original)):
            return _judge_final(prefix, original, candidate)
        claims = read_claims(candidate)
        context = Context(question, prefix, candidate)
        verdict = _judge_equations(claims, original, context)
        if verdict is not None:
            return verdict
        if original is not None:
            verdict = _judge_wording(original, candidate)
            if verdict is not None:
                return verdict
        if claims.unread:
            return undecidable("unreadable", claims.unread[0])
        if not claims.read:
            return undecidable("no_claim", "states no equation that can be read")
        return self._judge_licence(question, prefix, original, candidate, claims)

    def _judge_licence(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
        claims: Claims,
    ) -> Verdict:
        """The verdict on true equations: their numbers, then their conclusion."""
        theirs = None if original is None else read_claims(original)
        licence = set(self._constants) | licensed_by(question)
        for line in prefix:
            licence |= licensed_by(line)
        if original is not None:
            licence |= licensed_by(original)
        for claim in claims.read:
            for number in numbers(claim.left.node):
                if number in licence:
                    continue
                reason = f"{shown(claim.text)} uses {shown(str(number))}"
                if original is None:
                    return undecidable("unlicensed_number", reason)
                return incorrect("unlicensed_number", reason)
            licence |= {*values(claim.left), claim.stated.value}
        if theirs is None:
            sides = [
                (claim.left, claim.right, claim.following) for claim in claims.read
            ]
            against = conflict(question, prefix, candidate, sides)
            if against is not None:
                return undecidable("other_meaning", against)
            return correct("its equations hold")
        if not theirs.read:
            return undecidable("no_reference", "the correct step states no equation")
        ours_last, their_last = claims.read[-1], theirs.read[-1]
        same = same_result(ours_last, their_last)
        if same is None:
            return undecidable("unproven", "its conclusion may be a rounded one")
        if not same:
            return _different(ours_last, their_last)
        if _same_sums(claims, theirs) and _other_prose(original or "", candidate):
            return incorrect("changed_number", "the same words with another number")
        strange = [n for n in figures(_prose(candidate)) if n not in licence]
        if strange:
            return undecidable("prose", f"mentions {shown(str(strange[0]))}")
        said = another_statement(question, original or "", candidate)
        if said is not None:
            return undecidable("prose", said)
        return correct("its equations hold and conclude the same")


def stated(step: str) -> str:
    """What stands behind `####`."""
    return step.strip().removeprefix(FINAL).strip()


def is_final(step: str) -> bool:
    """Whether a step is a `#### N` line."""
    return step.lstrip().startswith(FINAL)


def final_answer(step: str) -> Stated | None:
    """The number of a `#### N` line; None where it has none."""
    return read_stated(step.strip().removeprefix(FINAL).strip().rstrip("%"))


def _judge_final(
    prefix: Sequence[str], original: str | None, candidate: str
) -> Verdict:
    if not is_final(candidate):
        context = Context("", prefix, candidate)
        verdict = _judge_equations(read_claims(candidate), None, context)
        return verdict or undecidable("no_claim", "goes on where the solution ends")
    given = final_answer(candidate)
    if given is None:
        return undecidable("unreadable", "the answer is not a number")
    if original is not None:
        expected = final_answer(original) if is_final(original) else None
        if expected is None:
            return undecidable("early_answer", "the correct step is not the answer")
        if given.value == expected.value:
            return correct("the same answer")
        return incorrect(
            "wrong_answer", f"answers {_number(given)}, not {_number(expected)}"
        )
    results = [claim.stated for line in prefix for claim in read_claims(line).read]
    if results and same_value(given, results[-1]):
        return correct("answers with the last result")
    known = any(same_value(given, result) for result in results)
    if known or any(given.value in licensed_by(line) for line in prefix):
        return undecidable("early_answer", "answers with an earlier number")
    return undecidable("unlicensed_number", f"{_number(given)} was never derived")


def _judge_equations(
    claims: Claims, original: str | None, context: Context
) -> Verdict | None:
    """A verdict if some equation is false, cut, or copied wrongly."""
    truths = [
        context.settle(claim.left, claim.right, holds(claim), None)
        for claim in claims.read
    ]
    for claim, truth in zip(claims.read, truths, strict=True):
        if truth is False:
            value = _number(Stated(claim.value, 0))
            return incorrect("wrong_result", f"{shown(claim.text)}, but it is {value}")
    for claim in claims.read:
        problem = miscopied(claim)
        if problem is not None:
            return incorrect("miscopied", f"{shown(claim.text)}: {problem}")
    if None in truths:
        theirs = read_claims(original).read if original is not None else ()
        if theirs and not same_value(claims.read[-1].stated, theirs[-1].stated):
            return _different(claims.read[-1], theirs[-1])
        text = claims.read[truths.index(None)].text
        return undecidable("rounded", f"{shown(text)} is cut, or counts otherwise")
    return None


def _judge_wording(original: str, candidate: str) -> Verdict | None:
    """A verdict if the same words carry other numbers than the correct step."""
    if skeleton(original) != skeleton(candidate):
        return None
    before, after = figures(original), figures(candidate)
    if before == after:
        return correct("the same words and numbers")
    if ANNOTATION.search(original) or Counter(before) == Counter(after):
        return None
    return incorrect("changed_number", "the same words with another number")


def _different(ours: Claim, theirs: Claim) -> Verdict:
    a, b = _number(ours.stated), _number(theirs.stated)
    return incorrect("different_conclusion", f"concludes {a}, the correct step {b}")


def _same_sums(ours: Claims, theirs: Claims) -> bool:
    a, b = (
        Counter(n for claim in side.read for n in numbers(claim.left.node))
        for side in (ours, theirs)
    )
    return a == b


def _other_prose(original: str, candidate: str) -> bool:
    """Whether two texts of the same words differ in figures beside their sums."""
    if skeleton(_prose(original)) != skeleton(_prose(candidate)):
        return False
    return Counter(figures(_prose(original))) != Counter(figures(_prose(candidate)))


def _prose(text: str) -> str:
    return ANNOTATION.sub(" ", text)


def _number(stated: Stated) -> str:
    value: Fraction = stated.value
    if value.denominator == 1:
        return shown(str(value.numerator))
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return "a huge number"


__all__ = [
    "FINAL",
    "KINDS",
    "CalculatorConfig",
    "CalculatorOracle",
    "Claim",
    "final_answer",
    "is_final",
]
