"""Mechanical changes of GSM8K steps, for `benchmarks/oracle.py`.

Five kinds of one wrong change, and rewordings that change nothing. A change alters the
annotation, the expression that the text spells before it and the result behind it
together, so that with the annotations taken out the text still makes one claim.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction

import numpy as np

from aprm_jax.oracle.numerals import (
    NUMBER,
    format_number,
    read_literal,
    read_stated,
)
from aprm_jax.oracle.steps.claims import ANNOTATION
from aprm_jax.oracle.steps.formula import FormulaError, exact
from aprm_jax.oracle.steps.parsing import read_expression

CHANGES = ("result", "operand", "operator", "swapped quantity", "unlicensed number")
REWORDINGS = ("commuted", "times sign", "opener", "synonym", "sentence order")
_NUMBER = re.compile(NUMBER)
_OPERATOR = re.compile(r"(?<=[0-9)])[-+*/](?=[0-9.(])")
_SYNONYMS = {
    "total": "sum",
    "buys": "purchases",
    "bought": "purchased",
    "needs": "requires",
    "makes": "earns",
    "gets": "receives",
    "has": "owns",
    "spent": "paid",
    "so": "thus",
    "altogether": "in total",
    "remaining": "left over",
}


def change(
    rng: np.random.Generator,
    kind: str,
    step: str,
    quantities: Sequence[str],
    licence: Collection[Fraction],
) -> str | None:
    """The step with one wrong change of a kind; None where it has no place for one.

    Args:
      rng: the only source of chance.
      kind: one of `CHANGES`.
      step: with calculator annotations.
      quantities: figures of the question and the steps before, to swap in.
      licence: numbers that the step might use; an unlicensed one is none of them.
    """
    annotations = list(ANNOTATION.finditer(step))
    if not annotations:
        return None
    at = int(rng.integers(len(annotations)))
    match, start = annotations[at], annotations[at - 1].end() if at else 0
    before, after = step[start : match.start()], step[match.end() :]
    left, _, right = match[1].partition("=")
    value, shown = _value(left), read_stated(right)
    if value is None or shown is None or not after.startswith(right):
        return None
    new_left, new_right = left, right
    if kind == "result":
        new_right = _nearby(rng, right)
    else:
        edits: dict[str, Callable[[], str | None]] = {
            "operand": lambda: _operand(rng, left, lambda old: _nearby(rng, old)),
            "operator": lambda: _operator(rng, left),
            "swapped quantity": lambda: _operand(
                rng, left, lambda old: _other(rng, old, quantities)
            ),
            "unlicensed number": lambda: _operand(
                rng, left, lambda old: _unlicensed(rng, licence)
            ),
        }
        edited = edits[kind]()
        if edited is None:
            return None
        new_left, new_value = edited, _value(edited)
        if new_value is None or new_value == value:
            return None
        if kind != "operand" or rng.random() < 0.5:
            new_right = format_number(new_value)
        respelt = _respell(before, left, new_left)
        if respelt is None:
            return None
        before = respelt
    after = new_right + after[len(right) :]
    return f"{step[:start]}{before}<<{new_left}={new_right}>>{after}"


def reword(rng: np.random.Generator, kind: str, step: str) -> str | None:
    """The step in other words or another order; None where the kind does not apply."""
    if kind == "opener":
        return f"{rng.choice(['So, ', 'In other words, ', 'Then '])}{step}"
    if kind == "synonym":
        words = [w for w in _SYNONYMS if re.search(rf"\b{w}\b", step)]
        if not words:
            return None
        word = words[int(rng.integers(len(words)))]
        return re.sub(rf"\b{word}\b", _SYNONYMS[word], step, count=1)
    if kind == "sentence order":
        parts = re.split(r"(?<=[a-z]\.)\s+(?=[A-Z])", step)
        return " ".join(reversed(parts)) if len(parts) > 1 else None
    annotations = list(ANNOTATION.finditer(step))
    if not annotations:
        return None
    at = int(rng.integers(len(annotations)))
    match, start = annotations[at], annotations[at - 1].end() if at else 0
    before = step[start : match.start()]
    left, _, right = match[1].partition("=")
    if kind == "times sign":
        respelt = _respell(before, left, re.sub(r"\s*\*\s*", " × ", left))
        if "*" not in left or respelt is None:
            return None
        return step[:start] + respelt + step[match.start() :]
    plain = re.fullmatch(rf"({NUMBER})([+*])({NUMBER})", left)
    if plain is None:
        return None
    swapped = f"{plain[3]}{plain[2]}{plain[1]}"
    respelt = _respell(before, left, swapped)
    if respelt is None or swapped == left:
        return None
    return f"{step[:start]}{respelt}<<{swapped}={right}>>{step[match.end() :]}"


def stripped(step: str) -> str:
    """A step without its annotations."""
    return ANNOTATION.sub("", step)


def _value(expression: str) -> Fraction | None:
    try:
        return exact(read_expression(expression).node)
    except FormulaError:
        return None


def _operand(
    rng: np.random.Generator, left: str, replace: Callable[[str], str | None]
) -> str | None:
    operands = list(_NUMBER.finditer(left))
    if len(operands) < 2:
        return None
    old = operands[int(rng.integers(len(operands)))]
    new = replace(old[0])
    return None if new is None else left[: old.start()] + new + left[old.end() :]


def _operator(rng: np.random.Generator, left: str) -> str | None:
    operators = list(_OPERATOR.finditer(left))
    if not operators:
        return None
    old = operators[int(rng.integers(len(operators)))]
    new = str(rng.choice([op for op in "+-*/" if op != old[0]]))
    return left[: old.start()] + new + left[old.end() :]


def _other(rng: np.random.Generator, old: str, quantities: Sequence[str]) -> str | None:
    others = sorted({q.replace(",", "") for q in quantities} - {old})
    return others[int(rng.integers(len(others)))] if others else None


def _unlicensed(rng: np.random.Generator, licence: Collection[Fraction]) -> str | None:
    for _ in range(20):
        number = int(rng.integers(13, 1_000))
        if Fraction(number) not in licence:
            return str(number)
    return None


def _nearby(rng: np.random.Generator, text: str) -> str:
    """Another number of as many decimals: off by a little, or by a factor of ten."""
    sign = "-" if text.startswith("-") else ""
    value = read_literal(text.lstrip("-"))
    places = len(text.partition(".")[2])
    if rng.random() < 0.25:
        new = value * 10
    else:
        new = value + Fraction(int(rng.choice([-2, -1, 1, 2, 5, 10])), 10**places)
    if new <= 0 or new == value:
        new = value + 1
    return sign + format_number(new, places)


def _respell(before: str, left: str, new_left: str) -> str | None:
    """Puts the new expression where the text spells the old one, spaces aside."""
    spelt = r"\s*".join(
        "[x×*]" if char == "*" else re.escape(char) for char in left if char != " "
    )
    found = list(re.finditer(rf"(?<![0-9.]){spelt}(?![0-9])", before, re.IGNORECASE))
    if not found:
        return None
    last = found[-1]
    return before[: last.start()] + new_left + before[last.end() :]
