"""When a stated number is a correct rounding of a value: one rule for all readers.

Steps and answers ask for different shares of it: a step states what it has just
computed, an answer may be one that somebody else has rounded.
"""

from __future__ import annotations

from fractions import Fraction

from aprm_jax.oracle.numerals import Stated, terminating

_FAR = Fraction(1, 10)  # of the larger one: `≈` is false beyond it
_FLOAT = Fraction(1, 10**6)  # a last digit that floating point may have printed
_PRINTED = 12  # decimals that only a float's `repr` shows: 4.800000000000001


def agrees(value: Fraction, stated: Stated) -> bool | None:
    """Whether a number behind `=` states a value.

    True for the value itself, or for its rounding to the decimals that are shown, if it
    shows any; halves go away from zero. None for a cut value: `2/3 = 0.66`, and for a
    quotient without end as an integer, `100/3 = 34`, which may count whole things.
    """
    gap = abs(value - stated.value)
    if gap == 0:
        return True
    if stated.decimals == 0:
        return None if terminating(value) is None and gap < 1 else False
    if stated.decimals >= _PRINTED and gap <= abs(value) / 10**_PRINTED:
        return True
    return _rounds(value, stated.value, stated.unit)


def about(value: Fraction, stated: Stated) -> bool | None:
    """Whether a number behind `≈` is about a value.

    True for a correct rounding to the digits that are shown; the zeros that an integer
    ends in need not be such. False beyond 10 %, and None between.
    """
    far = is_far(value, stated.value)
    rounded = {_rounds(value, stated.value, unit) for unit in _units(stated)}
    if True in rounded and not far:
        return True
    return None if not far or rounded != {False} else False


def restates(
    given: Fraction, expected: Fraction, ours: Stated | None, theirs: Stated | None
) -> bool:
    """Whether a given answer is the expected one, either rounded as far as stated.

    The expected answer may be the rounded one from three digits on (two where the given
    one is stated to many more); the given one where it is right to one in 10,000.

    Args:
      given, expected: their values.
      ours, theirs: how they are written; None for integers and what is computed.
    """
    gap, size = abs(given - expected), abs(expected)
    coarsest = _FLOAT if theirs is None else min(_FLOAT, theirs.unit / 10)
    printed = None if ours is None or ours.unit > coarsest else ours.unit
    if printed and gap <= min(max(10 * printed, size / 10**14), size / 10**8):
        return True  # from floating point: 63.99999999
    if theirs is not None and gap <= theirs.unit / 2:
        if ours is None:
            return theirs.digits >= 3 and given.denominator != 1
        finer = theirs.unit / ours.unit
        return (finer >= 100 and theirs.digits >= 3) or (
            finer >= 1_000 and theirs.digits >= 2
        )
    if ours is None or theirs is not None or expected.denominator == 1:
        return False
    return gap <= ours.unit / 2 and gap * 9_999 <= size


def is_far(a: Fraction, b: Fraction) -> bool:
    """Whether two numbers are too far apart for `≈`."""
    return abs(a - b) > _FAR * max(abs(a), abs(b))


def _rounds(value: Fraction, shown: Fraction, unit: Fraction) -> bool | None:
    """Whether `shown` is `value` rounded to `unit`; None where it is cut."""
    gap = abs(value - shown)
    grows = abs(shown) > abs(value)
    if gap < unit / 2 or (gap == unit / 2 and grows):
        return True
    cut = gap < unit and not grows and shown * value >= 0
    return None if cut else False


def _units(stated: Stated) -> list[Fraction]:
    """The places to which a number may have been rounded."""
    units = [stated.unit]
    whole = stated.value
    while stated.decimals == 0 and whole != 0 and whole % 10 == 0:
        whole /= 10
        units.append(units[-1] * 10)
    return units
