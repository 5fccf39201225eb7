"""The arithmetic of all readers: exact rationals, else mpmath's numbers of 50 digits.

Every operation is bounded: a rational beyond `MAX_BITS` becomes approximate, and an
exponent out of range is a `NumberError`, as is a division by zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import mpmath

MAX_BITS = 20_000  # 2004! has 19,100
_MAX_AREA = 1_000_000  # bits of the numerator times bits of the denominator: gcd's cost
MAX_FACTORIAL = 2_100
_MAX_EXPONENT = 10**6
_MAX_ANGLE = 10**15
_MAX_FLOORED = 10**40
DIGITS = 50
# Two approximate numbers that agree to this share of their size are one number.
AGREE = 1e-30
_LEAST = 1e-10  # of what was added, where a difference of it is not lost


class NumberError(ArithmeticError):
    """An operation has no value, or one out of range."""


Approximate = Any  # an mpf, or where it is not real an mpc, of the context below
Number = Fraction | Approximate

# Functions that change the context's precision for a while are not safe in threads:
# only those are used that take it as it is.
MP = mpmath.MPContext()
MP.dps = DIGITS
I = MP.mpc(0, 1)  # noqa: E741
ZERO, ONE = Fraction(0), Fraction(1)


def approximate(value: Number) -> Approximate:
    """The number to `DIGITS` digits."""
    if isinstance(value, Fraction):
        return MP.mpf(value.numerator) / value.denominator
    return value


def is_real(value: Number) -> bool:
    """Whether the imaginary part vanishes."""
    if isinstance(value, Fraction):
        return True
    return abs(value.imag) <= AGREE * max(abs(value.real), 1)


def real(value: Number) -> Number:
    """The real value; NumberError for a number that is not real."""
    if isinstance(value, Fraction):
        return value
    if not is_real(value):
        raise NumberError("not a real number")
    return value.real


def as_fraction(value: Number) -> Fraction:
    """The exact value of a real number's digits; NumberError far out of range."""
    if isinstance(value, Fraction):
        return value
    number: Approximate = real(value)
    sign, digits, exponent, bits = number._mpf_
    if abs(exponent + bits) > MAX_BITS:
        raise NumberError("out of range")
    return Fraction(int(-digits if sign else digits)) * Fraction(2) ** exponent


def same_number(a: Number, b: Number, scale: Approximate = 1) -> bool:
    """Equality: exact for rationals, else to about 30 digits.

    Args:
      a: a number.
      b: another one.
      scale: the size of what was added to make them. Where both are far smaller than
        that, what is left of them is rounding error.
    """
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    x, y = approximate(a), approximate(b)
    parts = (x.real, x.imag, y.real, y.imag)
    bound = AGREE * max(*map(abs, parts), scale * _LEAST)
    return abs(x.real - y.real) <= bound and abs(x.imag - y.imag) <= bound


def _small(value: Fraction) -> Number:
    above, below = value.numerator.bit_length(), value.denominator.bit_length()
    small = max(above, below) <= MAX_BITS and above * below <= _MAX_AREA
    return value if small else approximate(value)


def add(a: Number, b: Number) -> Number:
    """A + b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _small(a + b)
    return approximate(a) + approximate(b)


def multiply(a: Number, b: Number) -> Number:
    """A * b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _small(a * b)
    return approximate(a) * approximate(b)


def divide(a: Number, b: Number) -> Number:
    """A / b; NumberError for a zero divisor."""
    if same_number(b, ZERO):
        raise NumberError("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _small(a / b)
    return approximate(a) / approximate(b)


def power(base: Number, exponent: Number) -> Number:
    """Base ** exponent: the real value where there is one, else the principal one."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return _integer_power(base, exponent.numerator)
    if same_number(base, ZERO):
        if is_real(exponent) and real(exponent) > 0:
            return ZERO
        raise NumberError("zero to a power that is not positive")
    if isinstance(exponent, Fraction):
        if isinstance(base, Fraction):
            exact = _exact_root(base, exponent)
            if exact is not None:
                return exact
        if is_real(base) and real(base) < 0 and exponent.denominator % 2:
            size = power(-base, exponent)  # (-8)^(1/3) = -2
            return -size if exponent.numerator % 2 else size
    return exp(multiply(exponent, ln(base)))


def _integer_power(base: Number, exponent: int) -> Number:
    if abs(exponent) > _MAX_EXPONENT:
        if isinstance(base, Fraction) and base in (-1, 0, 1):
            return base ** (exponent % 2 + 2) if base else ZERO
        raise NumberError("an exponent out of range")
    if exponent < 0:
        return divide(ONE, _integer_power(base, -exponent))
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * exponent <= MAX_BITS:
            return _small(base**exponent)
    return approximate(base) ** exponent


def _exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """Base ** exponent where that is rational and small (4 ** (1/2) = 2)."""
    order = exponent.denominator
    if base <= 0 or order > 64 or abs(exponent.numerator) > 64:
        return None
    roots = []
    for part in (base.numerator, base.denominator):
        if part.bit_length() > 1_000:
            return None
        # Newton's method on integers, from above, ends at the floor of the root.
        guess = 1 << -(-part.bit_length() // order)
        while True:
            better = ((order - 1) * guess + part // guess ** (order - 1)) // order
            if better >= guess:
                break
            guess = better
        if guess**order != part:
            return None
        roots.append(guess)
    return Fraction(roots[0], roots[1]) ** exponent.numerator


def root(value: Number, order: Number) -> Number:
    """The real root where there is one, else the principal one."""
    return power(value, divide(Fraction(1), order))


def floor(value: Number) -> Number:
    """The greatest integer that is no greater."""
    number = real(value)
    if isinstance(number, Fraction):
        return Fraction(math.floor(number))
    if abs(number) > _MAX_FLOORED:
        raise NumberError("out of range")
    nearest = MP.nint(number)
    if abs(number - nearest) <= AGREE * max(abs(number), 1):
        return Fraction(int(nearest))
    return Fraction(int(MP.floor(number)))


def common(name: str, values: Sequence[Number]) -> Number:
    """The `gcd` or `lcm` of rationals: of numerators over that of denominators."""
    above, below = (math.gcd, math.lcm) if name == "gcd" else (math.lcm, math.gcd)
    result: Fraction | None = None
    for value in values:
        if not isinstance(value, Fraction):
            raise NumberError(f"the {name} of something else than rationals")
        if result is not None:
            value = Fraction(
                above(value.numerator, result.numerator),
                below(value.denominator, result.denominator),
            )
        result = abs(value)
        if not isinstance(_small(result), Fraction):
            raise NumberError("out of range")
    return result or Fraction(0)


def factorial(value: Number) -> Number:
    """N! for a natural n."""
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise NumberError("the factorial of something else than an integer")
    if not 0 <= value <= MAX_FACTORIAL:
        raise NumberError("the factorial of a number out of range")
    return _small(Fraction(math.factorial(value.numerator)))


def binomial(n: Number, k: Number) -> Number:
    """N over k, for natural numbers."""
    for value in (n, k):
        if not isinstance(value, Fraction) or value.denominator != 1:
            raise NumberError("a binomial of something else than integers")
        if not 0 <= value <= MAX_FACTORIAL:
            raise NumberError("a binomial out of range")
    return _small(Fraction(math.comb(int(real(n)), int(real(k)))))


def exp(value: Number) -> Number:
    """E ** value."""
    if value == 0:
        return ONE
    z = approximate(value)
    bounded(z.real, z.imag)
    return MP.exp(z)


def ln(value: Number) -> Number:
    """The natural logarithm, its principal branch."""
    if value == 1:
        return ZERO
    if value == 0:
        raise NumberError("the logarithm of zero")
    return MP.ln(approximate(value))


def bounded(grows: Approximate, turns: Approximate) -> None:
    """Checks the exponent of a function that grows, and the angle of one that turns."""
    if abs(grows) > _MAX_EXPONENT or abs(turns) > _MAX_ANGLE:
        raise NumberError("an exponent or an angle out of range")
