"""Sets of real numbers: intervals, their unions, finite sets and inequalities."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle import numbers
from aprm_jax.oracle.answers import values
from aprm_jax.oracle.answers.names import substitute
from aprm_jax.oracle.answers.rules import FLIP, SETS, difference, spread
from aprm_jax.oracle.answers.tokens import Term, is_numeric, number
from aprm_jax.oracle.numbers import Number, NumberError

_INFINITY = Term("const", name="inf")
_INFINITE = +numbers.MP.inf


@dataclasses.dataclass(frozen=True)
class End:
    """An end of an interval; no value where it is infinite."""

    term: Term
    value: Number | None

    def key(self, upper: bool) -> numbers.Approximate:
        """Where the end lies among others."""
        if self.value is None:
            return _INFINITE if upper else -_INFINITE
        return self._place

    @functools.cached_property
    def _place(self) -> numbers.Approximate:
        return numbers.approximate(self.value or numbers.ZERO).real


@dataclasses.dataclass(frozen=True)
class Piece:
    """One interval, or one point where both ends are the same and closed."""

    low: End
    low_closed: bool
    high: End
    high_closed: bool


@dataclasses.dataclass(frozen=True)
class RealSet:
    """Disjoint pieces from left to right, none of which touch."""

    pieces: tuple[Piece, ...]


def real_set(term: Term, budget: values.Budget) -> RealSet | None:
    """The set that a term describes; None where it is none of real numbers.

    A pair in brackets counts as an interval.
    """
    try:
        pieces = _disjoint(term, budget)
    except NumberError:
        return None
    return None if pieces is None else RealSet(pieces)


def _disjoint(term: Term, budget: values.Budget) -> tuple[Piece, ...] | None:
    """The pieces of a set, merged at each step so that they stay few."""
    pieces = _pieces(term, budget)
    if pieces is None:
        return None
    budget.spend(len(pieces))
    return _merged(pieces)


def _pieces(term: Term, budget: values.Budget) -> list[Piece] | None:
    if term.op == "tuple" and len(term.args) == 2:
        return _interval(term, budget)
    if term.op in ("set", "list"):
        if any(item.op == "rel" for item in term.args):
            return _system(term, budget)
        points = [_end(item, budget) for item in term.args]
        return [Piece(point, True, point, True) for point in points]
    if term.op == "sym" and term.name == "set R":
        return [Piece(End(_INFINITY, None), False, End(_INFINITY, None), False)]
    if term.op in SETS:
        left, right = (_operand(arg, budget) for arg in term.args)
        if left is None or right is None:
            return None
        if term.op == "union":
            return [*left, *right]
        if term.op == "difference":
            right = _complement(right)
        return _overlaps(left, right, budget)
    if term.op == "rel":
        spelled = spread(term)
        if spelled.op == "list":
            return _system(spelled, budget)
        return _solutions(term, budget)
    return None


def _operand(term: Term, budget: values.Budget) -> tuple[Piece, ...] | None:
    """A set that stands beside a set operator, where `{2}` was read as 2."""
    if is_numeric(term) and term.op not in SETS:
        term = Term("set", (term,))
    return _disjoint(term, budget)


def _overlaps(
    left: Sequence[Piece], right: Sequence[Piece], budget: values.Budget
) -> list[Piece]:
    budget.spend(len(left) * len(right))
    return [piece for x in left for y in right if (piece := _overlap(x, y)) is not None]


def _system(term: Term, budget: values.Budget) -> list[Piece] | None:
    """The solutions of inequalities in one variable: of all, or with `or` of any.

    `x < 1, x > 3` has none of the first kind, and is read as the second; not so `x < 1
    and x > 3`.
    """
    if len({name for name in values.symbols(term) if name != "set R"}) != 1:
        return None
    found: list[tuple[Piece, ...]] = []
    for item in term.args:
        item = spread(item)  # x != ±1
        pieces = None if item.op not in ("rel", "list") else _disjoint(item, budget)
        if pieces is None:
            return None
        found.append(pieces)
    common = list(found[0])
    for pieces in found[1:]:
        common = _overlaps(common, pieces, budget)
    if term.name == "and" or (common and term.name != "or"):
        return common
    return [piece for pieces in found for piece in pieces]


def _end(term: Term, budget: values.Budget) -> End:
    inner = term.args[0] if term.op == "neg" else term
    if inner.op == "const" and inner.name == "inf":
        return End(term, None)
    if not is_numeric(term):
        raise NumberError("a bound with a variable")
    value = values.scalar(term, budget)
    numbers.real(value)
    return End(term, value)


def _interval(term: Term, budget: values.Budget) -> list[Piece] | None:
    low, high = (_end(item, budget) for item in term.args)
    if low.key(False) > high.key(True):
        return None
    return [
        Piece(
            low,
            term.name[0] == "[" and low.value is not None,
            high,
            term.name[1] == "]" and high.value is not None,
        )
    ]


def _solutions(term: Term, budget: values.Budget) -> list[Piece] | None:
    """The solutions of `a < x <= b` or of one inequality that is linear in x."""
    signs, sides = term.name.split(), [side.args[0] for side in term.args]
    if signs == ["in"]:
        return _pieces(sides[1], budget)
    if any(side.op == "abs" and side.args[0].op == "sym" for side in sides):
        return _mirrored(term, budget)
    if len(sides) == 3 and sides[1].op != "sym":  # -3 < 2x - 1 < 5
        parts = [
            _solutions(Term("rel", term.args[k : k + 2], name=signs[k]), budget)
            for k in (0, 1)
        ]
        left, right = parts
        if left is None or right is None:
            return None
        return _overlaps(left, right, budget)
    if len(sides) == 3 and is_numeric(sides[0]) and is_numeric(sides[2]):
        if all(s in ("<", "<=") for s in signs):
            low, high, closed = sides[0], sides[2], [s == "<=" for s in signs]
        elif all(s in (">", ">=") for s in signs):
            low, high = sides[2], sides[0]
            closed = [s == ">=" for s in reversed(signs)]
        else:
            return None
        ends = _end(low, budget), _end(high, budget)
        return [Piece(ends[0], closed[0], ends[1], closed[1])]
    if len(sides) != 2 or signs[0] not in ("<", "<=", ">", ">=", "!=", "="):
        return None
    return _linear(difference(term), signs[0], budget)


def _mirrored(term: Term, budget: values.Budget) -> list[Piece] | None:
    """The solutions of inequalities about |x|: those about x >= 0, and their mirror."""
    bare = tuple(
        dataclasses.replace(s, args=s.args[0].args) if s.args[0].op == "abs" else s
        for s in term.args
    )
    pieces = _solutions(dataclasses.replace(term, args=bare), budget)
    if pieces is None:
        return None
    zero = number(Fraction(0))
    half_line = Piece(End(zero, Fraction(0)), True, End(_INFINITY, None), False)
    right = [p for piece in pieces if (p := _overlap(piece, half_line)) is not None]
    left = [
        Piece(_negative(p.high), p.high_closed, _negative(p.low), p.low_closed)
        for p in right
    ]
    return left + right


def _negative(end: End) -> End:
    value = None if end.value is None else -end.value
    return End(Term("neg", (end.term,)), value)


def _linear(term: Term, sign: str, budget: values.Budget) -> list[Piece] | None:
    """The solutions of `term sign 0`, where the term is a x + b."""
    names = values.symbols(term)
    if len(names) != 1 or values.mentions(term, values.STEPS):
        return None
    (name,) = names
    at: list[Number] = []
    for k in range(3):
        value = values.evaluate(term, {name: Fraction(k)}, budget)
        if isinstance(value, tuple):
            return None
        at.append(value)
    slope = numbers.add(at[1], -at[0])
    if not numbers.same_number(numbers.add(at[2], -at[1]), slope):
        return None
    bound = numbers.divide(-at[0], slope)
    if not isinstance(bound, Fraction):
        # The term itself, so that the bound can be compared as it is written.
        shifted = substitute(term, name, number(Fraction(0)))
        end = End(Term("div", (Term("neg", (shifted,)), _slope(term, name))), bound)
    else:
        end = End(number(bound), bound)
    if numbers.real(slope) < 0:
        sign = FLIP.get(sign, sign)
    if sign == "=":
        return [Piece(end, True, end, True)]
    infinite, closed = End(_INFINITY, None), "=" in sign
    left = Piece(infinite, False, end, closed and sign != "!=")
    right = Piece(end, closed and sign != "!=", infinite, False)
    return [left, right] if sign == "!=" else [left if sign[0] == "<" else right]


def _slope(term: Term, name: str) -> Term:
    one, zero = (substitute(term, name, number(Fraction(k))) for k in (1, 0))
    return Term("add", (one, Term("neg", (zero,))))


def _merged(pieces: list[Piece]) -> tuple[Piece, ...]:
    """The same set in disjoint pieces from left to right."""
    ordered = sorted(pieces, key=lambda p: (p.low.key(False), not p.low_closed))
    merged: list[Piece] = []
    for piece in ordered:
        last = merged[-1] if merged else None
        if last is None or not _touch(last, piece):
            merged.append(piece)
            continue
        if _beyond(piece, last):
            merged[-1] = Piece(last.low, last.low_closed, piece.high, piece.high_closed)
    return tuple(merged)


def _touch(left: Piece, right: Piece) -> bool:
    if left.high.value is None or right.low.value is None:
        return True
    if numbers.same_number(left.high.value, right.low.value):
        return left.high_closed or right.low_closed
    return left.high.key(True) > right.low.key(False)


def _beyond(a: Piece, b: Piece) -> bool:
    """Whether a ends further right than b."""
    x, y = a.high.value, b.high.value
    if x is not None and y is not None and numbers.same_number(x, y):
        return a.high_closed and not b.high_closed
    return a.high.key(True) > b.high.key(True)


def _complement(pieces: tuple[Piece, ...]) -> list[Piece]:
    result: list[Piece] = []
    low, closed = End(_INFINITY, None), False
    for piece in pieces:
        if piece.low.value is not None:
            result.append(Piece(low, closed, piece.low, not piece.low_closed))
        low, closed = piece.high, not piece.high_closed
        if piece.high.value is None:
            return result
    result.append(Piece(low, closed, End(_INFINITY, None), False))
    return result


def _overlap(a: Piece, b: Piece) -> Piece | None:
    low = max(
        (a.low.key(False), not a.low_closed, a),
        (b.low.key(False), not b.low_closed, b),
        key=lambda item: item[:2],
    )[2]
    high = min(
        (a.high.key(True), a.high_closed, a),
        (b.high.key(True), b.high_closed, b),
        key=lambda item: item[:2],
    )[2]
    bottom, top = low.low.key(False), high.high.key(True)
    if bottom > top or (bottom == top and not (low.low_closed and high.high_closed)):
        return None
    return Piece(low.low, low.low_closed, high.high, high.high_closed)
