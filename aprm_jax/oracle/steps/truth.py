"""Whether a relation holds and whether two formulas are equal, in three values.

What exact arithmetic cannot tell is *asked*: these functions are generators that yield
pairs of LaTeX texts and are sent True, False or None for each, so that one piece of
code serves a caller that waits for a process pool and one that does not.
"""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction

from aprm_jax.oracle.steps.claims import agrees
from aprm_jax.oracle.steps.expression import Stated, terminating
from aprm_jax.oracle.steps.formula import (
    FormulaError,
    IrrationalError,
    Node,
    approximate,
    exact,
    identical,
    latex_pair,
    variables,
)
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.relations import Relation
from aprm_jax.oracle.steps.tokens import Token, tokenize

Asking = Generator[tuple[str, str], bool | None, bool | None]

_CLOSE = Fraction(1, 50)  # `≈` and rounded operands: this far is no error
_FAR = Fraction(1, 10)  # `≈`: this far is one


def readings(formula: Formula) -> tuple[Fraction, ...]:
    """The exact values that a formula may mean: two where it has percent signs.

    Raises:
      FormulaError: it has none.
    """
    value = exact(formula.node)
    if not formula.percent:
        return (value,)
    bare = exact(formula.node, percents=False)
    return (value,) if bare == value else (value, bare)


def holds(relation: Relation) -> Asking:
    """Whether a relation without variables is true.

    A number on the right may be rounded as its decimals say; one that is cut to an
    integer, or follows from rounded operands, is None.
    """
    left, right = relation.left, relation.right
    try:
        ours, theirs = readings(left), readings(right)
    except IrrationalError:
        return (yield from _irrational(relation))
    except FormulaError:
        return None
    if set(ours) & set(theirs):
        return True
    if relation.sign == "≈":
        return _about(ours[0], theirs[0])
    verdicts = [
        agrees(value, shown)
        for value, shown in (
            *((v, s) for v in ours for s in _shown(right)),
            *((v, s) for v in theirs for s in _shown(left)),
        )
    ]
    if True in verdicts:
        return True
    if None in verdicts or _rounded_operands(relation, ours, theirs):
        return None
    return False


def same(a: Formula, b: Formula) -> Asking:
    """Whether two formulas are equal: as numbers up to rounding, else as functions."""
    if not variables(a.node) and not variables(b.node):
        try:
            ours, theirs = readings(a), readings(b)
        except FormulaError:
            return (yield from _equal(a.node, b.node))
        if set(ours) & set(theirs):
            return True
        pairs = (
            *((v, s) for v in ours for s in _shown(b)),
            *((v, s) for v in theirs for s in _shown(a)),
        )
        return True in [agrees(value, shown) for value, shown in pairs]
    return (yield from _equal(a.node, b.node))


def is_identity(relation: Relation) -> Asking:
    """Whether both sides of a relation are the same function of their variables."""
    return (yield from _equal(relation.left.node, relation.right.node))


def _equal(a: Node, b: Node) -> Asking:
    known = identical(a, b)
    if known is not None:
        return known
    if variables(a) != variables(b):
        return None
    return (yield latex_pair(a, b))


def _irrational(relation: Relation) -> Asking:
    left, right = relation.left, relation.right
    shown = right.stated or left.stated
    if shown is not None and (shown.decimals or relation.sign == "≈"):
        other = left if right.stated is not None else right
        try:
            value = Fraction(approximate(other.node))
        except FormulaError:
            return None
        if relation.sign == "≈":
            return _about(value, shown.value)
        unit = Fraction(1, 10**shown.decimals)
        if abs(value - shown.value) <= unit:
            return True
        return False if abs(value - shown.value) > 2 * unit else None
    if relation.sign == "≈":
        return None
    return (yield from _equal(left.node, right.node))


def _about(a: Fraction, b: Fraction) -> bool | None:
    gap, size = abs(a - b), max(abs(a), abs(b))
    if gap <= _CLOSE * size or gap <= Fraction(1, 2):
        return True
    return False if gap > _FAR * size else None


def _shown(formula: Formula) -> tuple[Stated, ...]:
    stated = formula.stated
    if stated is None:
        return ()
    if not formula.percent:
        return (stated,)
    return stated, Stated(stated.value / 100, stated.decimals + 2)


def _rounded_operands(
    relation: Relation, ours: tuple[Fraction, ...], theirs: tuple[Fraction, ...]
) -> bool:
    """Whether a small gap may come from decimals that were rounded before."""
    text = f"{relation.left.text} {relation.right.text}"
    if not any(_is_decimal(token) for token in tokenize(text)):
        return False
    for shown in (relation.right.stated, relation.left.stated):
        others = ours if shown is relation.right.stated else theirs
        if shown is not None and all(_fits(v, shown.decimals) for v in others):
            return False  # it could have been stated exactly
    gaps = [(abs(a - b), max(abs(a), abs(b))) for a in ours for b in theirs]
    return any(gap <= _CLOSE * size / 4 for gap, size in gaps)


def _fits(value: Fraction, decimals: int) -> bool:
    needed = terminating(value)
    return needed is not None and needed <= decimals


def _is_decimal(token: Token) -> bool:
    return token.kind == "number" and token.decimals >= 2
