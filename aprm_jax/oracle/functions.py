"""The elementary functions by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from aprm_jax.oracle.numbers import (
    MP,
    ONE,
    Approximate,
    Number,
    NumberError,
    approximate,
    bounded,
    divide,
    exp,
    ln,
    real,
    same_number,
)

_Function = Callable[[Number], Number]


def _entire(
    function: Callable[[Approximate], Approximate], turns: bool = False
) -> _Function:
    """A function that grows along the real axis, or turns along it as a sine does."""

    def value(x: Number) -> Number:
        z = approximate(x)
        bounded(*((z.imag, z.real) if turns else (z.real, z.imag)))
        return function(z)

    return value


def _of_share(function: Callable[[Approximate], Approximate]) -> _Function:
    """A function of real numbers from -1 to 1, such as the arcsine."""

    def value(x: Number) -> Number:
        share = real(x)
        if abs(share) > 1:
            raise NumberError("an angle of a number beyond 1")
        return function(approximate(share))

    return value


def _quotient(top: _Function, bottom: _Function) -> _Function:
    return lambda x: divide(top(x), bottom(x))


def _inverse(function: _Function) -> _Function:
    return lambda x: divide(ONE, function(x))


def _log10(value: Number) -> Number:
    if isinstance(value, Fraction) and value > 0:
        exponent = MP.log(approximate(value)) / MP.log(10)
        nearest = int(MP.nint(exponent))
        if abs(nearest) <= 10_000 and value == Fraction(10) ** nearest:
            return Fraction(nearest)  # exact powers of ten only
    return divide(ln(value), ln(Fraction(10)))


def _arctanh(value: Number) -> Number:
    if same_number(value, ONE) or same_number(value, -ONE):
        raise NumberError("a pole")
    return MP.atanh(approximate(value))


_SIN, _COS = _entire(MP.sin, turns=True), _entire(MP.cos, turns=True)
_SINH, _COSH, _TANH = _entire(MP.sinh), _entire(MP.cosh), _entire(MP.tanh)
_ARCSIN, _ARCCOS = _of_share(MP.asin), _of_share(MP.acos)

FUNCTIONS: dict[str, _Function] = {
    "sin": _SIN,
    "cos": _COS,
    "tan": _quotient(_SIN, _COS),
    "cot": _quotient(_COS, _SIN),
    "sec": _inverse(_COS),
    "csc": _inverse(_SIN),
    "arcsin": _ARCSIN,
    "arccos": _ARCCOS,
    "arctan": lambda x: MP.atan(approximate(real(x))),
    "arcsec": lambda x: _ARCCOS(divide(ONE, x)),
    "arccsc": lambda x: _ARCSIN(divide(ONE, x)),
    "arccot": lambda x: MP.pi / 2 - MP.atan(approximate(real(x))),
    "sinh": _SINH,
    "cosh": _COSH,
    "tanh": _TANH,
    "coth": _inverse(_TANH),
    "sech": _inverse(_COSH),
    "csch": _inverse(_SINH),
    "arcsinh": lambda x: MP.asinh(approximate(x)),
    "arccosh": lambda x: MP.acosh(approximate(x)),
    "arctanh": _arctanh,
    "cis": lambda x: MP.expj(approximate(real(x))),
    "exp": exp,
    "ln": ln,
    "log": _log10,
    "lg": _log10,
}
