"""The arithmetic behind answers, against mpmath; the parser, sets and units."""

from __future__ import annotations

import random
from fractions import Fraction

import mpmath
import pytest

from aprm_jax.oracle import numbers
from aprm_jax.oracle.answers.clean import clean
from aprm_jax.oracle.answers.identity import identical
from aprm_jax.oracle.answers.sets import real_set
from aprm_jax.oracle.answers.terms import parse
from aprm_jax.oracle.answers.tokens import TermError
from aprm_jax.oracle.answers.values import Budget, evaluate, scalar
from aprm_jax.oracle.functions import FUNCTIONS
from aprm_jax.oracle.units import conversion, read_unit

REFERENCE = {
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "cot": mpmath.cot,
    "sec": mpmath.sec,
    "csc": mpmath.csc,
    "arcsin": mpmath.asin,
    "arccos": mpmath.acos,
    "arctan": mpmath.atan,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "tanh": mpmath.tanh,
    "arcsinh": mpmath.asinh,
    "exp": mpmath.exp,
    "ln": mpmath.log,
    "log": mpmath.log10,
}


def _close(value: numbers.Number, expected: mpmath.mpc) -> bool:
    gap = abs(numbers.approximate(value) - expected)
    return gap <= abs(expected) * mpmath.mpf("1e-38")


@pytest.mark.parametrize("name", REFERENCE)
def test_functions_agree_with_mpmath_to_38_digits(name):
    source = random.Random(name)
    with mpmath.workdps(60):
        for _ in range(8):
            low = 1 if name in ("ln", "log") else -60
            x = Fraction(source.randint(low, 60), 61)
            if x == 0 or (name not in ("arcsin", "arccos") and source.random() < 0.5):
                x = x * 97 + Fraction(1, 3) + (100 if name in ("ln", "log") else 0)
            expected = REFERENCE[name](mpmath.mpf(x.numerator) / x.denominator)
            assert _close(FUNCTIONS[name](x), expected), x


def test_complex_powers_agree_with_mpmath():
    source = random.Random(0)
    with mpmath.workdps(60):
        for _ in range(10):
            a, b, c, d = (numbers.MP.mpf(source.randint(-50, 50)) / 7 for _ in "abcd")
            base, exponent = numbers.MP.mpc(a, b), numbers.MP.mpc(c, d)
            expected = mpmath.power(mpmath.mpc(a, b), mpmath.mpc(c, d))
            assert _close(numbers.power(base, exponent), expected)


def test_exact_where_it_can_be():
    third = Fraction(1, 3)
    assert numbers.power(Fraction(-8), third) == -2
    assert numbers.power(Fraction(4, 9), Fraction(-3, 2)) == Fraction(27, 8)
    assert numbers.power(Fraction(2), Fraction(1009)) == 2**1009
    assert FUNCTIONS["log"](Fraction(1, 1000)) == -3
    big = numbers.power(Fraction(3), Fraction(100_000))
    assert not isinstance(big, Fraction)  # beyond the bits kept exactly
    for bad in (
        lambda: numbers.divide(third, Fraction(0)),
        lambda: numbers.factorial(Fraction(1, 2)),
        lambda: numbers.factorial(Fraction(10**9)),
        lambda: numbers.exp(Fraction(10**7)),
        lambda: numbers.power(Fraction(2), Fraction(10**9)),
        lambda: numbers.ln(Fraction(0)),
    ):
        with pytest.raises(numbers.NumberError):
            bad()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", Fraction(7)),
        ("-2^2", Fraction(-4)),
        ("(-2)^2", Fraction(4)),
        ("2^3^2", Fraction(512)),
        (r"\frac12", Fraction(1, 2)),
        (r"\frac{1}{2}3", Fraction(3, 2)),
        (r"3\frac12", Fraction(7, 2)),
        (r"\frac5{10}", Fraction(1, 2)),
        ("12/4/3", Fraction(1)),
        ("2(3+4)5", Fraction(70)),
        (r"\sqrt{16}+\sqrt[3]{27}", Fraction(7)),
        ("|3-5|", Fraction(2)),
        (r"5!\cdot\binom{4}{2}", Fraction(720)),
        (r"\gcd(12,18)+\max(1,2)", Fraction(8)),
        (r"17\bmod 5", Fraction(2)),
        (r"\lceil 2.1\rceil-\lfloor-2.1\rfloor", Fraction(6)),
        (r"\sum_{k=1}^{4}k^2", Fraction(30)),
        (r"\prod_{k=1}^{4}k", Fraction(24)),
        ("12.5%", Fraction(1, 8)),
        ("1,234.5", Fraction(2469, 2)),
        ("1.5e3", Fraction(1500)),
        (r"\log_2 8", Fraction(3)),
        (r"\begin{vmatrix}2&1&0\\1&3&1\\0&1&4\end{vmatrix}", Fraction(18)),
    ],
)
def test_terms_have_their_values(text, value):
    term = parse(clean(text))
    assert numbers.same_number(scalar(term, Budget()), value)


@pytest.mark.parametrize(
    "text",
    ["", "(", "1+", "\\frac{1}", "{1", "1 2", "\\int x", "x^", "\\sqrt[3", "#", "\\"],
)
def test_what_is_no_mathematics_is_an_error(text):
    with pytest.raises(TermError):
        parse(text)


def test_a_budget_bounds_the_work():
    term = parse(r"\sum_{i=1}^{200}\sum_{j=1}^{200}ij")
    with pytest.raises(numbers.NumberError, match="too much"):
        evaluate(term, {}, Budget(1_000))


def test_identity_holds_where_both_sides_are_defined():
    for a, b, same in [
        (r"\ln(ab)", r"\ln a+\ln b", True),
        (r"\sqrt{x}\sqrt{x}", "x", True),
        (r"\sqrt{x^2}", "x", False),
        (r"\lceil n/2\rceil", r"\lfloor (n+1)/2\rfloor", True),
        ("(-1)^{2n}", "1", True),
        ("x^2", "x^2+10^{-20}", False),
        (r"\frac{x-x}{x-x}", "1", None),
    ]:
        assert identical(parse(a), parse(b), Budget()) is same, (a, b)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0,1)", [0, 0.5], [1, -1]),
        (r"(-\infty,0)\cup\{1\}", [-5, 1], [0, 2]),
        (r"\mathbb{R}\setminus\{2\}", [1, 3], [2]),
        (r"(0,5)\cap[3,9]", [3, 4], [2, 5]),
        ("1<x\\le 4", [2, 4], [1, 5]),
        ("-2x<6", [-2, 0], [-3, -4]),
        ("|x|\\ge 2", [-2, 2, 9], [0, 1]),
    ],
)
def test_sets_contain_what_they_should(text, inside, outside):
    found = real_set(parse(clean(text)), Budget())
    assert found is not None

    def contains(x):
        for piece in found.pieces:
            low, high = float(piece.low.key(False)), float(piece.high.key(True))
            if low < x < high or (x == low and piece.low_closed):
                return True
            if x == high and piece.high_closed:
                return True
        return False

    assert all(map(contains, inside))
    assert not any(map(contains, outside))


@pytest.mark.parametrize(
    ("one", "other", "factor"),
    [
        ("km", "m", 1000),
        ("cm^2", "m^2", Fraction(1, 10_000)),
        ("square feet", "ft^2", 1),
        ("km/h", "m/s", Fraction(5, 18)),
        ("kilometers per hour", "km/h", 1),
        (r"\mathrm{kJ}\mathrm{~mol}^{-1}", "J/mol", 1000),
        ("cm^3", "mL", 1),
        ("$", "cents", 100),
        ("hours", "minutes", 60),
        ("cm", "kg", None),
        ("m", "m^2", None),
        ("apples", "cm", None),
        ("apples", "oranges", None),
        ("apples", "apple", 1),
        ("units", "cm", 1),
    ],
)
def test_units_convert(one, other, factor):
    assert conversion(read_unit(one), read_unit(other)) == factor
