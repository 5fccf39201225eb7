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
_MAX_DEGREE = 2
_MAX_BARS = 3  # absolute values of one inequality; each doubles the work


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
    return _by_sign(difference(term), signs[0], budget)


def _by_sign(
    term: Term, sign: str, budget: values.Budget, bars: int = 0
) -> list[Piece] | None:
    """The solutions of `term sign 0`: on both sides of the zero of each |a x + b|."""
    bent = _inside(term)
    if bent is None:
        return _polynomial(term, sign, budget)
    if bars == _MAX_BARS:
        return None
    found: list[Piece] = []
    for side, inner in ((">=", bent), ("<", Term("neg", (bent,)))):
        where = _linear(bent, side, budget)
        straight = _replaced(term, Term("abs", (bent,)), inner)
        pieces = None if where is None else _by_sign(straight, sign, budget, bars + 1)
        if where is None or pieces is None:
            return None
        found += _overlaps(where, pieces, budget)
    return found


def _inside(term: Term) -> Term | None:
    """What stands between the innermost bars; None without such."""
    below = next(filter(None, map(_inside, term.args)), None)
    if below is not None or term.op != "abs" or not values.symbols(term):
        return below
    return term.args[0]


def _replaced(term: Term, part: Term, other: Term) -> Term:
    if term == part:
        return other
    args = tuple(_replaced(arg, part, other) for arg in term.args)
    return dataclasses.replace(term, args=args)


def _polynomial(term: Term, sign: str, budget: values.Budget) -> list[Piece] | None:
    """The solutions of `term sign 0`, of a term of the second degree or less."""
    lines = _linear(term, sign, budget)
    names = values.symbols(term)
    if lines is not None or len(names) != 1 or _degree(term) > _MAX_DEGREE:
        return lines
    (name,) = names
    at = [_at(term, name, k) for k in range(4)]
    numbers_at = [values.scalar(part, budget) for part in at]
    bends = [
        numbers.add(
            numbers_at[k], numbers.add(numbers_at[k + 2], -2 * numbers_at[k + 1])
        )
        for k in (0, 1)
    ]
    if not numbers.same_number(*bends) or numbers.same_number(bends[0], numbers.ZERO):
        return None
    twice = _plus(_plus(at[0], at[2]), Term("mul", (number(Fraction(-2)), at[1])))
    a = Term("div", (twice, number(Fraction(2))))
    b = _plus(_plus(at[1], Term("neg", (at[0],))), Term("neg", (a,)))
    return _quadratic(a, b, at[0], sign, budget)


def _quadratic(
    a: Term, b: Term, c: Term, sign: str, budget: values.Budget
) -> list[Piece] | None:
    """The solutions of `a x^2 + b x + c sign 0`, with a other than 0."""
    four = Term("mul", (number(Fraction(-4)), Term("mul", (a, c))))
    root = _plus(Term("mul", (b, b)), four)
    size = numbers.real(values.scalar(root, budget))
    everywhere = Piece(End(_INFINITY, None), False, End(_INFINITY, None), False)
    if numbers.real(values.scalar(a, budget)) < 0:
        sign = FLIP.get(sign, sign)
    if size < 0 and not numbers.same_number(size, numbers.ZERO):
        return [everywhere] if sign[0] in ">!" else []
    if numbers.same_number(size, numbers.ZERO):
        root = number(Fraction(0))
    two_a = Term("mul", (number(Fraction(2)), a))
    wide = Term("root", (root, number(Fraction(2))))
    ends = [
        _end(Term("div", (_plus(Term("neg", (b,)), part), two_a)), budget)
        for part in (Term("neg", (wide,)), wide)
    ]
    low, high = sorted(ends, key=lambda end: end.key(False))
    closed = sign in ("<=", ">=")
    if sign == "=":
        return [Piece(end, True, end, True) for end in (low, high)]
    left = Piece(everywhere.low, False, low, closed)
    right = Piece(high, closed, everywhere.high, False)
    between = Piece(low, closed, high, closed)
    if numbers.same_number(size, numbers.ZERO):
        if sign[0] == "<":
            return [between] if closed else []
        return [everywhere] if closed else [left, right]
    if sign == "!=":
        return [left, between, right]
    return [between] if sign[0] == "<" else [left, right]


def _degree(term: Term) -> int:
    """The degree of a polynomial, before anything cancels; a large one of other terms.

    So few points tell what a function is only where this is small.
    """
    if not values.symbols(term):
        return 0
    parts = [_degree(arg) for arg in term.args]
    if term.op == "sym":
        return 1
    if term.op in ("neg", "add", "side"):
        return max(parts)
    if term.op == "mul":
        return sum(parts)
    if term.op == "div" and not parts[1]:
        return parts[0]
    power = term.args[1] if term.op == "pow" else None
    if power is not None and power.op == "num" and power.value in (1, 2):
        return parts[0] * int(power.value)
    return _MAX_DEGREE + 1


def _at(term: Term, name: str, place: int) -> Term:
    return substitute(term, name, number(Fraction(place)))


def _plus(a: Term, b: Term) -> Term:
    return Term("add", (a, b))


def _linear(term: Term, sign: str, budget: values.Budget) -> list[Piece] | None:
    """The solutions of `term sign 0`, where the term is a x + b."""
    names = values.symbols(term)
    if len(names) != 1 or _degree(term) > _MAX_DEGREE:
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
    if numbers.same_number(slope, numbers.ZERO):
        return _everywhere(at[0], sign)
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


def _everywhere(value: Number, sign: str) -> list[Piece]:
    """All real numbers where `value sign 0` is true, else none."""
    zero = numbers.same_number(value, numbers.ZERO)
    holds = sign in ("=", "<=", ">=") if zero else sign == "!="
    if not zero and sign[0] in "<>":
        holds = (numbers.real(value) < 0) == (sign[0] == "<")
    return [Piece(End(_INFINITY, None), False, End(_INFINITY, None), False)] * holds


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
