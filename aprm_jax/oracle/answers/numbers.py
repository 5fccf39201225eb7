"""Numbers for comparing answers: exact rationals, else complex decimals of 50 digits.

Every operation is bounded: a rational beyond `MAX_BITS` becomes a decimal, and a
decimal beyond the exponent range is a `NumberError`, as is a division by zero.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

MAX_BITS = 20_000  # 2004! has 19,100
_MAX_AREA = 1_000_000  # bits of the numerator times bits of the denominator: gcd's cost
MAX_FACTORIAL = 2_100
DIGITS = 50
# Two decimals that agree to this share of their size are one number.
AGREE = Decimal("1e-30")

CONTEXT = decimal.Context(
    prec=DIGITS,
    Emax=1_000_000,
    Emin=-1_000_000,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640629"
)


class NumberError(ArithmeticError):
    """An operation has no value, or one out of range."""


@dataclasses.dataclass(frozen=True, slots=True)
class Complex:
    """A number known to about `DIGITS` digits."""

    re: Decimal
    im: Decimal = Decimal(0)


Number = Fraction | Complex
I = Complex(Decimal(0), Decimal(1))  # noqa: E741


def approximate(value: Number) -> Complex:
    """The number in decimals."""
    if isinstance(value, Complex):
        return value
    return Complex(CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator)))


def is_real(value: Number) -> bool:
    """Whether the imaginary part vanishes."""
    if isinstance(value, Fraction):
        return True
    return abs(value.im) <= AGREE * max(abs(value.re), Decimal(1))


def real(value: Number) -> Fraction | Decimal:
    """The real value; NumberError for a number that is not real."""
    if isinstance(value, Fraction):
        return value
    if not is_real(value):
        raise NumberError("not a real number")
    return value.re


def same_number(a: Number, b: Number, scale: Decimal = Decimal(1)) -> bool:
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
    size = max(abs(x.re), abs(x.im), abs(y.re), abs(y.im))
    bound = AGREE * max(size, scale * Decimal("1e-10"))
    return abs(x.re - y.re) <= bound and abs(x.im - y.im) <= bound


def _small(value: Fraction) -> Number:
    above, below = value.numerator.bit_length(), value.denominator.bit_length()
    small = max(above, below) <= MAX_BITS and above * below <= _MAX_AREA
    return value if small else approximate(value)


def add(a: Number, b: Number) -> Number:
    """A + b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _small(a + b)
    x, y = approximate(a), approximate(b)
    return Complex(x.re + y.re, x.im + y.im)


def negate(a: Number) -> Number:
    """-a."""
    return -a if isinstance(a, Fraction) else Complex(-a.re, -a.im)


def multiply(a: Number, b: Number) -> Number:
    """A * b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _small(a * b)
    x, y = approximate(a), approximate(b)
    if not x.im and not y.im:
        return Complex(x.re * y.re)
    return Complex(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)


def divide(a: Number, b: Number) -> Number:
    """A / b; NumberError for a zero divisor."""
    if same_number(b, Fraction(0)):
        raise NumberError("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _small(a / b)
    x, y = approximate(a), approximate(b)
    if not x.im and not y.im:
        return Complex(x.re / y.re)
    size = y.re * y.re + y.im * y.im
    return Complex(
        (x.re * y.re + x.im * y.im) / size, (x.im * y.re - x.re * y.im) / size
    )


def power(base: Number, exponent: Number) -> Number:
    """Base ** exponent: the real value where there is one, else the principal one."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return _integer_power(base, exponent.numerator)
    if same_number(base, Fraction(0)):
        if is_real(exponent) and real(exponent) > 0:
            return Fraction(0)
        raise NumberError("zero to a power that is not positive")
    if isinstance(exponent, Fraction):
        if isinstance(base, Fraction):
            exact = _exact_root(base, exponent)
            if exact is not None:
                return exact
        if is_real(base) and real(base) < 0 and exponent.denominator % 2:
            size = power(negate(base), exponent)  # (-8)^(1/3) = -2
            return negate(size) if exponent.numerator % 2 else size
    z = approximate(base)
    if not z.im and z.re > 0 and is_real(exponent):
        return Complex(z.re ** approximate(exponent).re)
    return exp(multiply(exponent, ln(base)))


def _integer_power(base: Number, exponent: int) -> Number:
    if abs(exponent) > 10**6:
        if isinstance(base, Fraction) and base in (-1, 0, 1):
            return base ** (exponent % 2 + 2) if base else Fraction(0)
        raise NumberError("an exponent out of range")
    if exponent < 0:
        return divide(Fraction(1), _integer_power(base, -exponent))
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * exponent <= MAX_BITS:
            return _small(base**exponent)
        base = approximate(base)
    if not base.im:
        return Complex(base.re**exponent)
    result: Number = Fraction(1)
    square: Number = base
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        exponent >>= 1
        if exponent:
            square = multiply(square, square)
    return result


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


def magnitude(value: Number) -> Number:
    """|value|."""
    if isinstance(value, Fraction):
        return abs(value)
    if not value.im:
        return Complex(abs(value.re))
    return Complex((value.re * value.re + value.im * value.im).sqrt())


def floor(value: Number) -> Number:
    """The greatest integer that is no greater."""
    number = real(value)
    if isinstance(number, Fraction):
        return Fraction(math.floor(number))
    if abs(number) > Decimal("1e40"):
        raise NumberError("out of range")
    nearest = number.to_integral_value()
    if abs(number - nearest) <= AGREE * max(abs(number), Decimal(1)):
        return Fraction(int(nearest))
    return Fraction(math.floor(number))


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
    if isinstance(value, Fraction) and value == 0:
        return Fraction(1)
    z = approximate(value)
    if abs(z.re) > 10**6:
        raise NumberError("an exponent out of range")
    size = z.re.exp()
    if not z.im:
        return Complex(size)
    sine, cosine = sine_cosine(z.im)
    return Complex(size * cosine, size * sine)


def ln(value: Number) -> Number:
    """The natural logarithm, its principal branch."""
    if isinstance(value, Fraction) and value == 1:
        return Fraction(0)
    z = approximate(value)
    if not z.re and not z.im:
        raise NumberError("the logarithm of zero")
    if not z.im and z.re > 0:
        return Complex(z.re.ln())
    size = approximate(magnitude(z)).re.ln()
    return Complex(size, _angle(z))


def _angle(z: Complex) -> Decimal:
    if not z.im:
        return Decimal(0) if z.re > 0 else +PI
    if abs(z.re) < abs(z.im) * Decimal("1e-60"):
        return PI / 2 if z.im > 0 else -PI / 2
    angle = arctangent(z.im / z.re)
    if z.re > 0:
        return angle
    return angle + PI if z.im > 0 else angle - PI


def sine_cosine(x: Decimal) -> tuple[Decimal, Decimal]:
    """Sine and cosine of a real angle; NumberError for one beyond 1e15."""
    if abs(x) > Decimal("1e15"):
        raise NumberError("an angle out of range")
    turns = (x / (2 * PI)).to_integral_value()
    x = (x - turns * 2 * PI) / 16
    sine = term = x
    for k in range(2, 60, 2):
        term = -term * x * x / (k * (k + 1))
        sine += term
        if abs(term) < Decimal("1e-60"):
            break
    cosine = (1 - sine * sine).sqrt()  # |x| < 1/4 here
    for _ in range(4):
        sine, cosine = 2 * sine * cosine, cosine * cosine - sine * sine
    return sine, cosine


def arctangent(x: Decimal) -> Decimal:
    """The angle within a quarter turn whose tangent is x."""
    if abs(x) > 1:
        return (PI / 2 if x > 0 else -PI / 2) - arctangent(1 / x)
    for _ in range(3):
        x = x / (1 + (1 + x * x).sqrt())
    total = term = x
    for k in range(3, 120, 2):
        term = -term * x * x
        total += term / k
        if abs(term) < Decimal("1e-60"):
            break
    return total * 8
