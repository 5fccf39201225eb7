"""The values of terms: exact where they are rational, else to 50 digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from aprm_jax.oracle import numbers
from aprm_jax.oracle.answers.tokens import Term
from aprm_jax.oracle.functions import FUNCTIONS
from aprm_jax.oracle.numbers import Number, NumberError

MAX_STEPS = 30_000  # sums of two numbers, or as much work, in one comparison
# What a function, a root or a factorial costs, in sums of two numbers.
_COSTS = dict.fromkeys(["fn", "root", "log", "factorial", "binomial"], 25)
_COSTLY_POWER = 10
STEPS = frozenset(["floor", "ceil", "mod"])  # of which a line at a few points is none
_MAX_SERIES = 300  # addends
_CONSTANTS: dict[str, Number] = {
    "pi": +numbers.MP.pi,
    "e": +numbers.MP.e,
    "i": numbers.I,
}
_TINY = 1e-15
_ZERO, _ONE, _HUNDRED = Fraction(0), Fraction(1), Fraction(100)

Matrix = tuple[tuple[Number, ...], ...]  # rows


class Budget:
    """Counts the work of one comparison, so that it ends.

    Attributes:
      left: how many steps may still be taken.
      key: what the points are drawn by, at which expressions are compared.
      scale: the largest number that was added to another one since it was set: what
        rounding errors are a share of.
    """

    def __init__(self, steps: int = MAX_STEPS, key: str = ""):
        self.left = steps
        self.key = key
        self.scale: numbers.Approximate = 0

    def spend(self, steps: int = 1) -> None:
        """Takes some steps; NumberError when none is left."""
        self.left -= steps
        if self.left < 0:
            raise NumberError("too much to compute")


def symbols(term: Term) -> set[str]:
    """The names of the variables of a term."""
    if term.op == "sym":
        return {term.name}
    if term.op in ("sum", "prod"):  # whose index is not one
        low, high, body, index = term.args
        return symbols(low) | symbols(high) | (symbols(body) - {index.name})
    return set().union(*map(symbols, term.args)) if term.args else set()


def mentions(term: Term, ops: frozenset[str]) -> bool:
    """Whether a term or a part of it is one of these operators."""
    return term.op in ops or any(mentions(part, ops) for part in term.args)


def extreme(term: Term, budget: Budget) -> bool:
    """Whether a part is so large or small that 50 digits may lose what stands beside.

    Such a part is no rational number: those are exact.
    """
    if term.op in ("sum", "prod", "integral"):
        return False
    grows = term.op in ("pow", "root") or (term.op == "fn" and term.name == "exp")
    if grows or term.op == "fn":
        try:
            size = abs(numbers.approximate(scalar(term, budget)))
        except NumberError:
            return False
        if size > 1 / _TINY or (grows and 0 < size < _TINY):
            return True
    return any(extreme(arg, budget) for arg in term.args)


def evaluate(
    term: Term, point: Mapping[str, Number], budget: Budget
) -> Number | Matrix:
    """The value of a term where its variables have the point's values.

    Raises:
      NumberError: undefined there, out of range, or no arithmetic.
    """
    try:
        return _Evaluator(point, budget).value(term)
    except (OverflowError, RecursionError) as error:
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
        op, args = term.op, term.args
        self.budget.spend(_COSTS.get(op, 1))
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
            return self.plus(left, right) if op == "add" else self.times(left, right)
        if op == "neg":
            return self.times(Fraction(-1), self.value(args[0]))
        if op == "matrix":
            return tuple(tuple(map(self.number, row.args)) for row in args)
        if op == "div":
            left, divisor = self.value(args[0]), self.number(args[1])
            return self.times(numbers.divide(_ONE, divisor), left)
        if op == "pow":
            return self.power(self.value(args[0]), self.number(args[1]))
        if op == "fn":
            return self.function(term)
        if op in ("sum", "prod"):
            return self.series(term)
        if op == "unit" or op == "side":
            return self.value(args[0])
        return self.unary(op, [self.number(arg) for arg in args])

    def plus(self, a: Number | Matrix, b: Number | Matrix) -> Number | Matrix:
        for value in (a, b):
            if not isinstance(value, Fraction | tuple):
                self.budget.scale = max(self.budget.scale, abs(value))
        return _add(a, b)

    def times(self, a: Number | Matrix, b: Number | Matrix) -> Number | Matrix:
        if isinstance(a, tuple) and isinstance(b, tuple):
            self.budget.spend(2 * len(a) * len(b) * len(b[0]))
        return _multiply(a, b)

    def power(self, base: Number | Matrix, exponent: Number) -> Number | Matrix:
        if not isinstance(base, tuple):
            if exponent not in (_ZERO, _ONE, Fraction(2)):
                self.budget.spend(_COSTLY_POWER)
            return numbers.power(base, exponent)
        if not isinstance(exponent, Fraction) or not 1 <= exponent <= 16:
            raise NumberError("a power of a matrix")
        result: Number | Matrix = base
        for _ in range(int(exponent) - 1):
            result = self.times(result, base)
        return result

    def unary(self, op: str, values: list[Number]) -> Number:
        first = values[0] if values else _ZERO
        if op == "percent":
            return numbers.divide(first, _HUNDRED)
        if op == "degree":
            if not self.inside:
                return first
            half_turn = numbers.MP.pi / 180
            return numbers.multiply(first, half_turn)
        if op == "root":
            return numbers.root(first, values[1])
        if op == "abs":
            return abs(first)
        if op == "floor":
            return numbers.floor(first)
        if op == "ceil":
            return -numbers.floor(-first)
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
            return numbers.add(first, -numbers.multiply(quotient, values[1]))
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
            self.budget.spend(math.factorial(min(len(term.args[0].args), 5)))
            return _determinant(matrix) if isinstance(matrix, tuple) else matrix
        outer, self.inside = self.inside, True
        values = [self.number(arg) for arg in term.args]
        self.inside = outer
        if term.name in ("max", "min"):
            pick = max if term.name == "max" else min
            return pick(values, key=lambda v: numbers.approximate(v).real)
        if term.name in ("gcd", "lcm"):
            return numbers.common(term.name, values)
        if term.name != "exp":  # of which no value is a difference
            self.budget.scale = max(self.budget.scale, 1)
        if term.name not in FUNCTIONS or len(values) != 1:
            raise NumberError(f"the function {term.name[:20]!a} is not computed")
        return FUNCTIONS[term.name](values[0])


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
        total = numbers.add(total, -part if k % 2 else part)
    return total
