"""The elementary functions by name."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from aprm_jax.oracle.answers.numbers import (
    PI,
    Complex,
    I,
    Number,
    NumberError,
    add,
    approximate,
    arctangent,
    divide,
    exp,
    is_real,
    ln,
    multiply,
    negate,
    real,
    root,
    sine_cosine,
)

HALF = Fraction(1, 2)


def _decimal(value: Number) -> Decimal:
    number = real(value)
    return number if isinstance(number, Decimal) else approximate(value).re


def sine(value: Number) -> Number:
    """sin, of complex numbers too."""
    if is_real(value):
        return Complex(sine_cosine(_decimal(value))[0])
    up = exp(multiply(I, value))
    return divide(add(up, negate(divide(Fraction(1), up))), multiply(Fraction(2), I))


def cosine(value: Number) -> Number:
    """cos, of complex numbers too."""
    if is_real(value):
        return Complex(sine_cosine(_decimal(value))[1])
    up = exp(multiply(I, value))
    return divide(add(up, divide(Fraction(1), up)), Fraction(2))


def _arcsine(value: Number) -> Number:
    x = _decimal(value)
    if abs(x) > 1:
        raise NumberError("the arcsine of a number beyond 1")
    if abs(x) == 1:
        return Complex(x * PI / 2)
    return Complex(arctangent(x / (1 - x * x).sqrt()))


def _hyperbolic(sign: int) -> Callable[[Number], Number]:
    def function(value: Number) -> Number:
        up, down = exp(value), exp(negate(value))
        return multiply(HALF, add(up, down if sign > 0 else negate(down)))

    return function


def _quotient(
    top: Callable[[Number], Number], bottom: Callable[[Number], Number]
) -> Callable[[Number], Number]:
    return lambda value: divide(top(value), bottom(value))


def _one(value: Number) -> Number:
    return Fraction(1)


def _log10(value: Number) -> Number:
    if isinstance(value, Fraction) and value > 0:
        exponent = approximate(value).re.log10()
        nearest = exponent.to_integral_value()
        if exponent == nearest:  # exact powers of ten only
            return Fraction(int(nearest))
    return divide(ln(value), ln(Fraction(10)))


_SINH, _COSH = _hyperbolic(-1), _hyperbolic(1)

FUNCTIONS: dict[str, Callable[[Number], Number]] = {
    "sin": sine,
    "cos": cosine,
    "tan": _quotient(sine, cosine),
    "cot": _quotient(cosine, sine),
    "sec": _quotient(_one, cosine),
    "csc": _quotient(_one, sine),
    "arcsin": _arcsine,
    "arccos": lambda x: add(Complex(PI / 2), negate(_arcsine(x))),
    "arctan": lambda x: Complex(arctangent(_decimal(x))),
    "arcsec": lambda x: FUNCTIONS["arccos"](divide(Fraction(1), x)),
    "arccsc": lambda x: _arcsine(divide(Fraction(1), x)),
    "arccot": lambda x: Complex(PI / 2 - arctangent(_decimal(x))),
    "sinh": _SINH,
    "cosh": _COSH,
    "tanh": _quotient(_SINH, _COSH),
    "coth": _quotient(_COSH, _SINH),
    "sech": _quotient(_one, _COSH),
    "csch": _quotient(_one, _SINH),
    "arcsinh": lambda x: ln(
        add(x, root(add(multiply(x, x), Fraction(1)), Fraction(2)))
    ),
    "arccosh": lambda x: ln(
        add(x, root(add(multiply(x, x), Fraction(-1)), Fraction(2)))
    ),
    "arctanh": lambda x: multiply(
        HALF, ln(divide(add(Fraction(1), x), add(Fraction(1), negate(x))))
    ),
    "exp": exp,
    "ln": ln,
    "log": _log10,
    "lg": _log10,
}
