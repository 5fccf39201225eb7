"""Whether a relation holds and whether two formulas are equal, in three values.

What exact arithmetic cannot tell is *asked*: these functions are generators that yield
pairs of LaTeX texts and are sent True, False or None for each, so that one piece of
code serves a caller that waits for a process pool and one that does not.
"""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction

from aprm_jax.oracle.numerals import Stated, terminating
from aprm_jax.oracle.rounding import about, agrees, is_far
from aprm_jax.oracle.steps import percents
from aprm_jax.oracle.steps.formula import (
    FormulaError,
    IrrationalError,
    Node,
    approximate,
    exact,
    identical,
    in_degrees,
    latex_pair,
    variables,
)
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.relations import Relation
from aprm_jax.oracle.steps.tokens import Token, tokenize

Asking = Generator[tuple[str, str], bool | None, bool | None]

_CLOSE = Fraction(1, 200)  # operands that were rounded before may be off by this
_EQUAL = Fraction(1, 10**30)  # 50 digits are computed


def holds(relation: Relation) -> Asking:
    """Whether a relation without variables is true.

    A plain number may be rounded as its decimals say; one that is cut, or follows from
    rounded operands, is None.
    """
    left, right = relation.left, relation.right
    try:
        return compare(left, right, relation.sign)
    except IrrationalError:
        return (yield from _irrational(left, right, relation.sign))
    except FormulaError:
        return None


def compare(left: Formula, right: Formula, sign: str = "=") -> bool | None:
    """Whether a relation between rational values is true, as `holds` does.

    Raises:
      IrrationalError: a value is not rational.
      FormulaError: a side has no value.
    """
    ours, theirs = percents.values(left), percents.values(right)
    if ours[0] == theirs[0]:
        return True
    check = agrees if sign == "=" else about
    truths = [
        percents.confirms(side, shown, check)
        if left.percent or right.percent
        else check(exact(side.node), shown.stated)
        for side, shown in ((left, right), (right, left))
        if shown.stated is not None
    ]
    if True in truths:
        return True
    if not truths and (sign == "≈" or set(ours) & set(theirs)):
        return False if is_far(ours[0], theirs[0]) else None
    if None in truths or _rounded_operands(left, right, ours, theirs):
        return None
    return False


def same(a: Formula, b: Formula) -> Asking:
    """Whether two formulas are equal: as numbers up to rounding, else as functions."""
    if variables(a.node) or variables(b.node):
        return (yield from _equal(a.node, b.node))
    try:
        ours, theirs = percents.values(a), percents.values(b)
    except FormulaError:
        return (yield from _irrational(a, b, "="))
    if set(ours) & set(theirs):
        return True
    pairs = ((ours, b.stated), (theirs, a.stated))
    truths = {agrees(v, s) for values, s in pairs if s is not None for v in values}
    return True if True in truths else None if None in truths else False


def is_identity(relation: Relation) -> Asking:
    """Whether both sides of a relation are the same function of their variables."""
    return (yield from _equal(relation.left.node, relation.right.node))


def _equal(a: Node, b: Node) -> Asking:
    known = identical(a, b)
    if known is not None:
        return known
    if variables(a) != variables(b) or in_degrees(a) != a or in_degrees(b) != b:
        return None
    return (yield latex_pair(a, b))


def _irrational(left: Formula, right: Formula, sign: str) -> Asking:
    a, b = left.node, right.node
    if in_degrees(a) != a or in_degrees(b) != b:
        readings = [(a, b), (in_degrees(a), in_degrees(b))]
        truths = {_approximately(left, right, sign, *pair) for pair in readings}
        return False if truths == {False} else None
    if sign == "≈" or any(f.stated and f.stated.decimals for f in (left, right)):
        return _approximately(left, right, sign, a, b)
    return (yield from _equal(a, b))


def _approximately(
    left: Formula, right: Formula, sign: str, a: Node, b: Node
) -> bool | None:
    """Whether a relation holds as far as 50 digits tell.

    Args:
      left, right: its sides as they are written.
      sign: `=` or `≈`.
      a, b: their formulas in one reading.
    """
    try:
        ours, theirs = approximate(a), approximate(b)
    except FormulaError:
        return None
    for value, shown in ((ours, right.stated), (theirs, left.stated)):
        if shown is None or left.percent or right.percent:
            continue
        if sign == "≈":
            return about(value, shown)
        if shown.decimals:
            return agrees(value, shown)
    if sign == "≈":
        return False if is_far(ours, theirs) else None
    return abs(ours - theirs) <= _EQUAL * max(1, abs(ours), abs(theirs))


def _rounded_operands(
    left: Formula,
    right: Formula,
    ours: tuple[Fraction, ...],
    theirs: tuple[Fraction, ...],
) -> bool:
    """Whether a small gap may come from decimals that were rounded before."""
    if not any(_is_decimal(token) for token in tokenize(f"{left.text} {right.text}")):
        return False
    for shown, others in ((right.stated, ours), (left.stated, theirs)):
        if shown is not None and all(_fits(v, shown) for v in others):
            return False  # it could have been stated exactly
    gaps = [(abs(a - b), max(abs(a), abs(b))) for a in ours for b in theirs]
    return any(gap <= _CLOSE * size for gap, size in gaps)


def _fits(value: Fraction, shown: Stated) -> bool:
    needed = terminating(value)
    return needed is not None and needed <= shown.decimals


def _is_decimal(token: Token) -> bool:
    return token.kind == "number" and token.decimals >= 2
