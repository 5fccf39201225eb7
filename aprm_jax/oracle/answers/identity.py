"""Whether two expressions are one: exactly if rational, else at points drawn by a key.

Expressions in variables are one where they agree at several rational points, to 30
digits. Points where either is not real are left aside if enough others remain, so that
a law of logarithms or roots counts on the domain of both sides. The points follow from
a hash of both answers and a salt, so nobody can write an expression that is another one
there alone; of rational functions the identity is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from aprm_jax.oracle import numbers
from aprm_jax.oracle.answers.modular import congruent, draw
from aprm_jax.oracle.answers.tokens import Term
from aprm_jax.oracle.answers.values import (
    STEPS,
    Budget,
    Matrix,
    evaluate,
    mentions,
    symbols,
)
from aprm_jax.oracle.numbers import Number, NumberError

_POINTS = 5
_TRIES = 24
_PRIMES = (101, 211, 307, 401, 503, 601, 701, 809)  # denominators
_INTEGER_OPS = frozenset(["factorial", "binomial"])
_BENDS = frozenset(["abs", "root", "fn"])  # that may change far from 0 alone
_FAR = 10**5
_AROUND = 4  # constants of the terms, beside which integers are tried
_STEP_POINTS = 60  # of functions with steps, of which most points are one after another
_INTEGERS = re.compile(r"[i-nN](?:_.*)?")  # names that stand for integers
_SERIES = frozenset(["sum", "prod"])


class Sample(NamedTuple):
    """The values of several terms at one point, and what was added on the way."""

    values: tuple[Number | Matrix, ...]
    scale: numbers.Approximate


def points(
    names: set[str],
    integers: bool,
    key: str,
    largest: int = 400,
    count: int = _TRIES,
    steps: bool = False,
    beside: Sequence[int] = (),
) -> Iterator[dict[str, Number]]:
    """Points to compare at, of mixed sign and size; the same for the same key."""
    for near in beside:
        yield {name: Fraction(near) for name in names}
    for k in range(count):
        point: dict[str, Number] = {}
        for place, name in enumerate(sorted(names)):
            drawn = draw(key, f"{k} {name}", 64)
            if integers or (steps and k % 4 == 3):
                most = largest if k % 2 else 12 + k
                value = k - k // 4 if steps and k % 4 else drawn % most + 1
                point[name] = Fraction(value)
                continue
            below = _PRIMES[drawn % len(_PRIMES)]
            drawn >>= 8
            size = below if k % 3 == 1 else 40 * below  # within 1 for an arcsine
            value = Fraction(drawn % size + 1, below)
            negative = k % 3 == 2 and (k // 3 + place) % 2 == 0
            point[name] = -value if negative else value
        yield point


def samples(terms: Sequence[Term], budget: Budget) -> list[Sample]:
    """The values of several terms at points where all of them are defined.

    Real values come first; complex ones are returned only where fewer than two points
    have real ones.
    """
    names = set().union(*map(symbols, terms))
    series, steps = (
        any(mentions(term, ops) for term in terms) for ops in (_SERIES, STEPS)
    )
    integers = series or any(
        mentions(term, _INTEGER_OPS) or _alternates(term) or _divides(term)
        for term in terms
    )
    integers |= steps and all(map(_INTEGERS.fullmatch, names))
    largest = 40 if series else 400
    bends = steps or any(mentions(term, _BENDS) for term in terms)
    beside = _beside(terms, integers) if bends else ()
    wanted = (_STEP_POINTS if steps else _POINTS) + len(beside)
    count = max(_TRIES, wanted)
    drawn = points(names, integers, budget.key, largest, count, steps, beside)
    real: list[Sample] = []
    others: list[Sample] = []
    for point in drawn if names else [{}]:
        budget.scale = 0
        try:
            found = tuple(evaluate(term, point, budget) for term in terms)
        except NumberError:
            if budget.left < 0:
                raise
            continue
        sample = Sample(found, budget.scale)
        (real if all(map(_all_real, found)) else others).append(sample)
        if len(real) >= wanted:
            break
    enough = 2 if names else 1
    return real if len(real) >= enough else others[:_POINTS]


def _beside(terms: Sequence[Term], integers: bool) -> list[int]:
    """Integers at which a step or a bend is, or beyond all of them."""
    constants = sorted({n for term in terms for n in _constants(term)}, reverse=True)
    near = (c + gap for c in constants[:_AROUND] for gap in (-1, 0, 1))
    return [*dict.fromkeys(near), _FAR] + [-_FAR] * (not integers)


def _constants(term: Term) -> Iterator[int]:
    if term.op == "num" and term.value.denominator == 1 and 4 < term.value < _FAR:
        yield int(term.value)
    for arg in term.args:
        yield from _constants(arg)


def _alternates(term: Term) -> bool:
    """Whether a negative number stands under a variable exponent: (-1)^n."""
    if term.op == "pow" and symbols(term.args[1]) and term.args[0].op == "neg":
        return True
    return any(map(_alternates, term.args))


def _divides(term: Term) -> bool:
    """Whether it has a common divisor or multiple, which are of natural numbers."""
    own = term.op == "fn" and term.name in ("gcd", "lcm")
    return own or any(map(_divides, term.args))


def _all_real(value: Number | Matrix) -> bool:
    if isinstance(value, tuple):
        return all(numbers.is_real(x) for row in value for x in row)
    return numbers.is_real(value)


def same_value(
    a: Number | Matrix, b: Number | Matrix, scale: numbers.Approximate
) -> bool:
    """Equality of two numbers, or of two matrices entry by entry."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(
            len(x) == len(y)
            and all(same_value(p, q, scale) for p, q in zip(x, y, strict=True))
            for x, y in zip(a, b, strict=True)
        )
    if isinstance(a, tuple) or isinstance(b, tuple):
        return False
    return numbers.same_number(a, b, scale)


def identical(a: Term, b: Term, budget: Budget) -> bool | None:
    """Whether two terms have one value wherever both have one; None if unknown."""
    if a == b and not mentions(a, frozenset(["matrix"])):
        return True
    exact = congruent(a, b, budget.key, budget)
    if exact is not None:
        return exact
    found = samples((a, b), budget)
    if not found or (len(found) < 2 and symbols(a) | symbols(b)):
        return None
    return all(same_value(x, y, scale) for (x, y), scale in found)


def constant_ratio(a: Term, b: Term, budget: Budget) -> Number | None:
    """The c with a = c b at all points, c ≠ 0; None where there is none."""
    ratio: Number | None = None
    found = samples((a, b), budget)
    for (x, y), _ in found:
        if isinstance(x, tuple) or isinstance(y, tuple):
            return None
        vanish = [numbers.same_number(value, numbers.ZERO) for value in (x, y)]
        if all(vanish):  # as beside a constant, where a root or a bend may be
            continue
        if any(vanish):
            return None
        here = numbers.divide(x, y)
        if ratio is not None and not numbers.same_number(here, ratio):
            return None
        ratio = here
    if len(found) < 2 or ratio is None:
        return None
    if isinstance(ratio, Fraction):
        scaled = Term("mul", (Term("num", value=ratio), b))
        if congruent(a, scaled, budget.key, budget) is False:
            return None
    return ratio
