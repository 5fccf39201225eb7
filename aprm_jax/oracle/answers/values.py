"""The values of terms: exact where they are rational, at sampled points with variables.

Two expressions in variables are one where they agree at several rational points, to 30
digits. Points where either is not real are left aside if enough others remain, so that
a law of logarithms or roots counts on the domain of both sides.
"""

from __future__ import annotations

import decimal
import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction

from aprm_jax.oracle.answers import numbers
from aprm_jax.oracle.answers.numbers import Complex, Number, NumberError
from aprm_jax.oracle.answers.tokens import Term

MAX_STEPS = 20_000  # evaluated nodes of one comparison
_POINTS = 5
_TRIES = 24
_INTEGER_OPS = frozenset(
    ["factorial", "binomial", "floor", "ceil", "mod", "sum", "prod"]
)
_MAX_SERIES = 300  # addends
_CONSTANTS: dict[str, Number] = {
    "pi": Complex(numbers.PI),
    "e": Complex(decimal.Decimal(1).exp(numbers.CONTEXT)),
    "i": numbers.I,
}
_ZERO, _ONE, _HUNDRED = Fraction(0), Fraction(1), Fraction(100)

Matrix = tuple[tuple[Number, ...], ...]  # rows


class Budget:
    """Counts the evaluated nodes of one comparison, so that it ends."""

    def __init__(self, steps: int = MAX_STEPS):
        self.left = steps

    def spend(self) -> None:
        """Takes one step; NumberError when none is left."""
        self.left -= 1
        if self.left < 0:
            raise NumberError("too much to compute")


def symbols(term: Term) -> set[str]:
    """The names of the variables of a term."""
    if term.op == "sym":
        return {term.name}
    return set().union(*map(symbols, term.args)) if term.args else set()


def mentions(term: Term, ops: frozenset[str]) -> bool:
    """Whether a term or a part of it is one of these operators."""
    return term.op in ops or any(mentions(part, ops) for part in term.args)


def evaluate(
    term: Term, point: Mapping[str, Number], budget: Budget
) -> Number | Matrix:
    """The value of a term where its variables have the point's values.

    Raises:
      NumberError: undefined there, out of range, or no arithmetic.
    """
    with decimal.localcontext(numbers.CONTEXT):
        try:
            return _Evaluator(point, budget).value(term)
        except (decimal.DecimalException, OverflowError, RecursionError) as error:
            raise NumberError(f"out of range: {type(error).__name__}") from error


def scalar(term: Term, budget: Budget) -> Number:
    """The number that a term without variables is; NumberError for anything else."""
    value = evaluate(term, {}, budget)
    if isinstance(value, tuple):
        raise NumberError("a matrix")
    return value


class _Evaluator:
    def __init__(self, point: Mapping[str, Number], budget: Budget):
        self.point = point
        self.budget = budget
        self.inside = False  # a function's argument, where degrees are angles

    def number(self, term: Term) -> Number:
        value = self.value(term)
        if isinstance(value, tuple):
            raise NumberError("a matrix where a number is due")
        return value

    def value(self, term: Term) -> Number | Matrix:
        self.budget.spend()
        op, args = term.op, term.args
        if op == "num":
            return term.value
        if op == "sym":
            if term.name not in self.point:
                raise NumberError(f"{term.name[:20]!a} has no value")
            return self.point[term.name]
        if op == "const":
            if term.name in self.point:  # i as the index of a sum
                return self.point[term.name]
            if term.name not in _CONSTANTS:
                raise NumberError("infinity is no number")
            return _CONSTANTS[term.name]
        if op in ("add", "mul"):
            left, right = self.value(args[0]), self.value(args[1])
            return _add(left, right) if op == "add" else _multiply(left, right)
        if op == "neg":
            return _multiply(Fraction(-1), self.value(args[0]))
        if op == "matrix":
            return tuple(tuple(map(self.number, row.args)) for row in args)
        if op == "div":
            left, divisor = self.value(args[0]), self.number(args[1])
            return _multiply(numbers.divide(_ONE, divisor), left)
        if op == "pow":
            return _power(self.value(args[0]), self.number(args[1]))
        if op == "fn":
            return self.function(term)
        if op in ("sum", "prod"):
            return self.series(term)
        if op == "unit" or op == "side":
            return self.value(args[0])
        return self.unary(op, [self.number(arg) for arg in args])

    def unary(self, op: str, values: list[Number]) -> Number:
        first = values[0] if values else _ZERO
        if op == "percent":
            return numbers.divide(first, _HUNDRED)
        if op == "degree":
            if not self.inside:
                return first
            half_turn = numbers.divide(Complex(numbers.PI), Fraction(180))
            return numbers.multiply(first, half_turn)
        if op == "root":
            return numbers.root(first, values[1])
        if op == "abs":
            return numbers.magnitude(first)
        if op == "floor":
            return numbers.floor(first)
        if op == "ceil":
            return numbers.negate(numbers.floor(numbers.negate(first)))
        if op == "factorial":
            return numbers.factorial(first)
        if op == "binomial":
            return numbers.binomial(first, values[1])
        if op == "log":
            return numbers.divide(numbers.ln(first), numbers.ln(values[1]))
        if op == "ratio" and len(values) == 2:
            return numbers.divide(first, values[1])
        if op == "mod":
            quotient = numbers.floor(numbers.divide(first, values[1]))
            return numbers.add(
                first, numbers.negate(numbers.multiply(quotient, values[1]))
            )
        raise NumberError(f"{op} has no value")

    def series(self, term: Term) -> Number:
        low, high = self.number(term.args[0]), self.number(term.args[1])
        body, name = term.args[2], term.args[3].name
        if not isinstance(low, Fraction) or not isinstance(high, Fraction):
            raise NumberError("a series whose bounds are no integers")
        if (high - low) > _MAX_SERIES or {low.denominator, high.denominator} != {1}:
            raise NumberError("a series that is too long")
        outer, total = self.point, Fraction(int(term.op == "prod"))
        result: Number = total
        combine = numbers.add if term.op == "sum" else numbers.multiply
        for k in range(int(low), int(high) + 1):
            self.point = {**outer, name: Fraction(k)}
            result = combine(result, self.number(body))
        self.point = outer
        return result

    def function(self, term: Term) -> Number:
        if term.name == "det":
            matrix = self.value(term.args[0])
            return _determinant(matrix) if isinstance(matrix, tuple) else matrix
        outer, self.inside = self.inside, True
        values = [self.number(arg) for arg in term.args]
        self.inside = outer
        if term.name in ("max", "min"):
            pick = max if term.name == "max" else min
            return pick(values, key=lambda v: numbers.approximate(v).re)
        if term.name in ("gcd", "lcm"):
            whole = [v for v in values if isinstance(v, Fraction)]
            if len(whole) < len(values) or any(v.denominator != 1 for v in whole):
                raise NumberError("a common divisor of something else than integers")
            combine = math.gcd if term.name == "gcd" else math.lcm
            return Fraction(combine(*(v.numerator for v in whole)))
        if term.name not in numbers.FUNCTIONS or len(values) != 1:
            raise NumberError(f"the function {term.name[:20]!a} is not computed")
        return numbers.FUNCTIONS[term.name](values[0])


def _add(a: Number | Matrix, b: Number | Matrix) -> Number | Matrix:
    if isinstance(a, tuple) and isinstance(b, tuple):
        if len(a) != len(b) or len(a[0]) != len(b[0]):
            raise NumberError("matrices of different shapes")
        return tuple(
            tuple(numbers.add(x, y) for x, y in zip(row, other, strict=True))
            for row, other in zip(a, b, strict=True)
        )
    if isinstance(a, tuple) or isinstance(b, tuple):
        raise NumberError("a matrix plus a number")
    return numbers.add(a, b)


def _multiply(a: Number | Matrix, b: Number | Matrix) -> Number | Matrix:
    if isinstance(b, tuple) and not isinstance(a, tuple):
        a, b = b, a
    if not isinstance(a, tuple):
        assert not isinstance(b, tuple)
        return numbers.multiply(a, b)
    if not isinstance(b, tuple):
        return tuple(tuple(numbers.multiply(x, b) for x in row) for row in a)
    if len(a[0]) != len(b):
        raise NumberError("matrices whose shapes do not fit")
    product: list[tuple[Number, ...]] = []
    for row in a:
        entries: list[Number] = []
        for column in zip(*b, strict=True):
            total: Number = _ZERO
            for x, y in zip(row, column, strict=True):
                total = numbers.add(total, numbers.multiply(x, y))
            entries.append(total)
        product.append(tuple(entries))
    return tuple(product)


def _power(base: Number | Matrix, exponent: Number) -> Number | Matrix:
    if not isinstance(base, tuple):
        return numbers.power(base, exponent)
    if not isinstance(exponent, Fraction) or not 1 <= exponent <= 16:
        raise NumberError("a power of a matrix")
    result: Number | Matrix = base
    for _ in range(int(exponent) - 1):
        result = _multiply(result, base)
    return result


def _determinant(rows: Matrix) -> Number:
    if len(rows) > 5 or any(len(row) != len(rows) for row in rows):
        raise NumberError("a determinant of this shape")
    if not rows:
        return _ONE
    total: Number = _ZERO
    first, *rest = rows
    for k, head in enumerate(first):
        minor = tuple(row[:k] + row[k + 1 :] for row in rest)
        part = numbers.multiply(head, _determinant(minor))
        total = numbers.add(total, numbers.negate(part) if k % 2 else part)
    return total


def points(names: set[str], integers: bool) -> list[dict[str, Number]]:
    """Points to compare at: the same for the same names, of mixed sign and size."""
    found: list[dict[str, Number]] = []
    for k in range(_TRIES):
        point: dict[str, Number] = {}
        for name in sorted(names):
            source = random.Random(f"{k} {name}")
            if integers:
                point[name] = Fraction(source.randint(1, 12 + k))
                continue
            value = Fraction(source.randint(5, 400), source.choice((7, 11, 13, 17, 19)))
            point[name] = -value if k % 3 == 2 and source.random() < 0.5 else value
        found.append(point)
    return found


def samples(terms: Sequence[Term], budget: Budget) -> list[tuple[Number | Matrix, ...]]:
    """The values of several terms at points where all of them are defined.

    Real values come first; complex ones are returned only where fewer than two points
    have real ones.
    """
    names = set().union(*map(symbols, terms))
    integers = any(mentions(term, _INTEGER_OPS) for term in terms) or any(
        _alternates(term) for term in terms
    )
    real: list[tuple[Number | Matrix, ...]] = []
    others: list[tuple[Number | Matrix, ...]] = []
    for point in points(names, integers) if names else [{}]:
        try:
            values = tuple(evaluate(term, point, budget) for term in terms)
        except NumberError:
            if budget.left < 0:
                raise
            continue
        (real if all(map(_all_real, values)) else others).append(values)
        if len(real) >= _POINTS:
            break
    enough = 2 if names else 1
    return real if len(real) >= enough else others[:_POINTS]


def _alternates(term: Term) -> bool:
    """Whether a negative number stands under a variable exponent: (-1)^n."""
    if term.op == "pow" and symbols(term.args[1]) and term.args[0].op == "neg":
        return True
    return any(map(_alternates, term.args))


def _all_real(value: Number | Matrix) -> bool:
    if isinstance(value, tuple):
        return all(numbers.is_real(x) for row in value for x in row)
    return numbers.is_real(value)


def same_value(a: Number | Matrix, b: Number | Matrix) -> bool:
    """Equality of two numbers, or of two matrices entry by entry."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(
            len(x) == len(y) and all(map(numbers.same_number, x, y))
            for x, y in zip(a, b, strict=True)
        )
    if isinstance(a, tuple) or isinstance(b, tuple):
        return False
    return numbers.same_number(a, b)


def identical(a: Term, b: Term, budget: Budget) -> bool | None:
    """Whether two terms have one value wherever both have one; None if unknown."""
    found = samples((a, b), budget)
    if not found or (len(found) < 2 and symbols(a) | symbols(b)):
        return None
    with decimal.localcontext(numbers.CONTEXT):
        return all(same_value(x, y) for x, y in found)


def constant_ratio(a: Term, b: Term, budget: Budget) -> Number | None:
    """The c with a = c b at all points, c ≠ 0; None where there is none."""
    ratio: Number | None = None
    with decimal.localcontext(numbers.CONTEXT):
        found = samples((a, b), budget)
        for x, y in found:
            if isinstance(x, tuple) or isinstance(y, tuple):
                return None
            if numbers.same_number(y, _ZERO) or numbers.same_number(x, _ZERO):
                return None
            here = numbers.divide(x, y)
            if ratio is not None and not numbers.same_number(here, ratio):
                return None
            ratio = here
    return ratio if len(found) >= 2 else None
