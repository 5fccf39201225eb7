"""Whether one expression is another one whose decimals are rounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

from aprm_jax.oracle.answers import values
from aprm_jax.oracle.answers.identity import samples
from aprm_jax.oracle.answers.rules import stated
from aprm_jax.oracle.answers.tokens import Term, number
from aprm_jax.oracle.numbers import NumberError, as_fraction, is_real

_DIGITS = 5  # with fewer, two different answers may lie within the rounding
_MAX_DECIMALS = 8


def rounded_in(exact: Term, stated_one: Term, budget: values.Budget) -> bool:
    """Whether the second expression is the first, but for how its decimals round.

    At every sampled point the two may differ by as much as half a unit in the last
    place of each decimal of five or more digits changes the second one.
    """
    moved = list(_moved(stated_one))
    if not 0 < len(moved) <= _MAX_DECIMALS:
        return False
    try:
        found = samples((exact, stated_one, *moved), budget)
        return len(found) >= 2 and all(_within(row.values) for row in found)
    except NumberError:
        return False


def _within(row: tuple[values.Number | values.Matrix, ...]) -> bool:
    numbers: list[Fraction] = []
    for value in row:
        if isinstance(value, tuple) or not is_real(value):
            return False
        numbers.append(as_fraction(value))
    wanted, have, *moved = numbers
    return abs(wanted - have) <= sum(abs(value - have) for value in moved)


def _moved(term: Term) -> Iterator[Term]:
    """The expression with one of its decimals half a unit larger, for each of them."""
    found = stated(term) if term.op == "num" else None
    if found is not None and found.digits >= _DIGITS:
        yield number(term.value + found.unit / 2)
    for k, part in enumerate(term.args):
        for moved in _moved(part):
            args = (*term.args[:k], moved, *term.args[k + 1 :])
            yield dataclasses.replace(term, args=args)
