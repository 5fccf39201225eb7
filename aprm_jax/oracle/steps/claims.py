"""Reads the claims of a step: `<<expr=value>>` annotations, else bare `a + b = c`.

A reader that is not sure what a text claims reads nothing: a missed claim costs an
undecidable verdict, an invented one a wrong verdict.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from aprm_jax.oracle.numerals import NUMBER, Stated, read_stated
from aprm_jax.oracle.rounding import agrees
from aprm_jax.oracle.steps.formula import FormulaError, exact, operations
from aprm_jax.oracle.steps.parsing import Formula, read_expression
from aprm_jax.oracle.steps.percents import values
from aprm_jax.oracle.steps.relations import read_left_side, read_relations
from aprm_jax.oracle.steps.truth import compare

MAX_CLAIMS = 32
MAX_TEXT = 8_000  # characters that are read of one line
_REACH = 200  # characters that an expression may stretch from its annotation
_ROUGHLY = Fraction(1, 50)  # of a result: what rounding in between may change
_EXACT = 9  # decimals of a result that an expression states

ANNOTATION = re.compile(r"<<([^<>\n]{0,240})>>")
_ECHO = re.compile(rf"\s?[$€£]?\s?([-−–]?(?:{NUMBER}))")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One equation that a step states.

    Attributes:
      left: what is computed.
      right: its claimed result.
      echo: the result as the text repeats it behind an annotation, if it does.
      lead: the expression as the text spells it before an annotation, if readable.
      text: the claim itself, for messages.
      following: the words behind the result.
    """

    left: Formula
    right: Formula
    echo: Stated | None
    lead: Formula | None
    text: str
    following: str

    @property
    def stated(self) -> Stated:
        """The result as a number."""
        if self.right.stated is not None:
            return self.right.stated
        value = values(self.right)[0]
        return Stated(value, 0 if value.denominator == 1 else _EXACT)

    @property
    def value(self) -> Fraction:
        """What the left side is."""
        return values(self.left)[0]


@dataclasses.dataclass(frozen=True)
class Claims:
    """What was read of a step, and why the rest could not be."""

    read: tuple[Claim, ...]
    unread: tuple[str, ...]


def read_claims(text: str) -> Claims:
    """All claims of a step; bare equalities only where it has no annotation."""
    text = text[:MAX_TEXT]
    if "<<" in text or ">>" in text:
        return _annotated(text)
    relations = (r for r in read_relations(text).relations if r.closed)
    found = (_bare(r.left, r.right, text) for r in relations)
    return Claims(tuple(claim for claim in found if claim is not None), ())


def holds(claim: Claim) -> bool | None:
    """Whether a claim is true; None where it is cut, or may mean two things."""
    return compare(claim.left, claim.right)


def same_value(a: Stated, b: Stated) -> bool:
    """Whether two statements of one quantity agree up to stated rounding or cutting."""
    return agrees(a.value, b) is not False or agrees(b.value, a) is not False


def same_result(a: Claim, b: Claim) -> bool | None:
    """Whether two equations conclude the same; None where one may be rounded.

    Results that neither rounds differ where their values do: 12/50 = 0.24 is no longer
    12/60 = 0.2, though it would round to it.
    """
    exact = all(claim.stated.value in values(claim.left) for claim in (a, b))
    x, y = a.stated.value, b.stated.value
    if not exact or x == y or not same_value(a.stated, b.stated):
        return same_value(a.stated, b.stated)
    return None if abs(x - y) <= _ROUGHLY * max(abs(x), abs(y)) else False


def miscopied(claim: Claim) -> str | None:
    """What the text around an annotation says otherwise, or None."""
    if claim.echo is not None and not _echoes(claim, claim.echo):
        return "the text repeats another result than the annotation"
    lead = claim.lead
    if lead is not None and not set(values(lead)) & set(values(claim.left)):
        return "the text computes something else than the annotation"
    return None


def _echoes(claim: Claim, echo: Stated) -> bool:
    percent = Stated(echo.value / 100, echo.decimals + 2)
    known = *values(claim.left), claim.stated.value
    return any(
        agrees(value, shown) is not False
        for value in known
        for shown in (echo, percent)
    ) or same_value(claim.stated, echo)


def _annotated(text: str) -> Claims:
    read: list[Claim] = []
    unread: list[str] = []
    rest = ANNOTATION.sub("", text)
    if "<<" in rest or ">>" in rest:
        unread.append("an annotation is not closed")
    end = 0
    for count, match in enumerate(ANNOTATION.finditer(text)):
        if count >= MAX_CLAIMS:
            unread.append(f"more than {MAX_CLAIMS} annotations")
            break
        start, end = max(end, match.start() - _REACH), match.end()
        left, equals, right = match[1].partition("=")
        if not equals or read_stated(right) is None:
            unread.append("an annotation states no number")
            continue
        try:
            sides = read_expression(left), read_expression(right)
        except FormulaError as error:
            unread.append(f"an annotation is unreadable: {error}")
            continue
        lead = _lead(text[start : match.start()])
        echo = _ECHO.match(text, end)
        following = text[echo.end() if echo else end :][:_REACH]
        read.append(Claim(*sides, _echo(text, end), lead, match[0], following))
    return Claims(tuple(read), tuple(unread))


def _echo(text: str, at: int) -> Stated | None:
    match = _ECHO.match(text, at)
    if match is None:
        return None
    tail = text[match.end() : match.end() + 2]
    # `>>3/4`, `>>2 1/2`, `>>10:30`, `>>5x`: more than one plain number.
    if re.match(r"[/:^*½¼¾]|\s[0-9+*/x]|-[0-9]|[0-9]", tail):
        return None
    return read_stated(match[1])


def _lead(before: str) -> Formula | None:
    """The expression that `48/2 = <<48/2=24>>` spells before its annotation."""
    before = before.rstrip(" $€£")
    lead = read_left_side(before) if before.endswith("=") else None
    if lead is None or not operations(lead.node) or not _has_value(lead):
        return None
    return lead


def _bare(left: Formula, right: Formula, text: str) -> Claim | None:
    if operations(left.node) + operations(right.node) == 0:
        return None
    if not (_has_value(left) and _has_value(right)):
        return None
    shown, following = f"{left.text} = {right.text}", text[right.end :][:_REACH]
    return Claim(left, right, None, None, shown, following)


def _has_value(formula: Formula) -> bool:
    """Whether a formula has an exact value."""
    try:
        exact(formula.node)
    except FormulaError:
        return False
    return True
