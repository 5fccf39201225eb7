"""Static random corruptions of word-problem steps: numbers, operators, results.

Mechanical on purpose: the baseline that an adversarial Generator has to beat. Nothing
here looks at what a step means; whether a corruption is wrong is the oracle's to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from aprm_jax.oracle.numerals import (
    NUMBER,
    LiteralError,
    format_number,
    read_literal,
)
from aprm_jax.oracle.steps.calculator import is_final
from aprm_jax.oracle.steps.claims import ANNOTATION
from aprm_jax.oracle.steps.formula import FormulaError, exact
from aprm_jax.oracle.steps.parsing import read_expression

_NUMBER = re.compile(NUMBER)
_OPERATOR = re.compile(r"(?<=[0-9)])[-+*/](?=[0-9.(])")


class WordCorruptor:
    """Implements `Corruptor` on steps in plain text."""

    def corrupt(
        self, rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
    ) -> str | None:
        """See `Corruptor.corrupt`."""
        return corrupt_step(rng, question, prefix, step)


def corrupt_step(
    rng: np.random.Generator, question: str, prefix: Sequence[str], step: str
) -> str | None:
    """One random corruption of a step; None where it has nothing to corrupt.

    Args:
      rng: the only source of chance.
      question: lends other quantities.
      prefix: lends other quantities.
      step: a correct step, with or without calculator annotations.
    """
    annotations = list(ANNOTATION.finditer(step))
    if is_final(step) or not annotations:
        ways = [_other_number, _swapped_numbers]
        if is_final(step):
            ways = [_other_number]
        for k in rng.permutation(len(ways)):
            corrupted = ways[k](rng, step)
            if corrupted not in (None, step):
                return corrupted
        return None
    pool = _NUMBER.findall(" ".join([question, *prefix]))
    at = int(rng.integers(len(annotations)))
    match = annotations[at]
    start = annotations[at - 1].end() if at else 0
    for k in rng.permutation(len(_EDITS)):
        corrupted = _edit_annotation(rng, step, match, start, pool, _EDITS[k])
        if corrupted not in (None, step):
            return corrupted
    return None


def _edit_annotation(
    rng: np.random.Generator,
    step: str,
    match: re.Match[str],
    start: int,
    pool: Sequence[str],
    edit: str,
) -> str | None:
    """Edits one annotation, the expression before it and the echo behind it."""
    left, equals, right = match[1].partition("=")
    if not equals:
        return None
    before, after = step[start : match.start()], step[match.end() :]
    new_left: str | None = left
    new_right: str | None = right
    if edit == "result":
        new_right = _nearby(rng, right)
    else:
        if edit == "operand":
            new_left, before = _replace_operand(rng, left, before, pool)
        elif edit == "operator":
            new_left = _replace_operator(rng, left)
        else:
            new_left = _swapped_numbers(rng, left)
        if new_left is None:
            return None
        if edit != "operand" and _result(new_left) == _result(left):
            return None  # 12*5 for 5*12: nothing is corrupted
        # Half of the operand changes keep the old result, a slip of the pen.
        if edit != "operand" or rng.random() < 0.5:
            new_right = _result(new_left)
        if edit != "operand":
            before = _respell(before, left, new_left)
    if new_right is None:
        return None
    if after.startswith(right):
        after = new_right + after[len(right) :]
    return f"{step[:start]}{before}<<{new_left}={new_right}>>{after}"


_EDITS = ("result", "operand", "operator", "swap")


def _result(expression: str) -> str | None:
    try:
        return format_number(exact(read_expression(expression).node))
    except FormulaError:
        return None


def _replace_operand(
    rng: np.random.Generator, left: str, before: str, pool: Sequence[str]
) -> tuple[str | None, str]:
    operands = list(_NUMBER.finditer(left))
    if not operands:
        return None, before
    old = operands[int(rng.integers(len(operands)))]
    if pool and rng.random() < 0.5:
        new = pool[int(rng.integers(len(pool)))].replace(",", "")
    else:
        new = _nearby(rng, old[0])
    if new is None:
        return None, before
    spelt = list(re.finditer(rf"(?<![0-9.,]){re.escape(old[0])}(?![0-9])", before))
    if spelt:
        last = spelt[-1]
        before = before[: last.start()] + new + before[last.end() :]
    return left[: old.start()] + new + left[old.end() :], before


def _replace_operator(rng: np.random.Generator, left: str) -> str | None:
    operators = list(_OPERATOR.finditer(left))
    if not operators:
        return None
    old = operators[int(rng.integers(len(operators)))]
    others = [op for op in "+-*/" if op != old[0]]
    return left[: old.start()] + str(rng.choice(others)) + left[old.end() :]


def _respell(before: str, left: str, new_left: str) -> str:
    """Puts the new expression where the text spells the old one, spaces aside."""
    spelt = r"\s*".join(
        "[x×*]" if char == "*" else re.escape(char) for char in left if char != " "
    )
    found = list(re.finditer(spelt, before, re.IGNORECASE))
    if not found:
        return before
    last = found[-1]
    return before[: last.start()] + new_left + before[last.end() :]


def _other_number(rng: np.random.Generator, text: str) -> str | None:
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    old = numbers[int(rng.integers(len(numbers)))]
    new = _nearby(rng, old[0])
    return None if new is None else text[: old.start()] + new + text[old.end() :]


def _swapped_numbers(rng: np.random.Generator, text: str) -> str | None:
    numbers = list(_NUMBER.finditer(text))
    if len(numbers) < 2:
        return None
    first, second = sorted(rng.choice(len(numbers), size=2, replace=False))
    a, b = numbers[first], numbers[second]
    middle = text[a.end() : b.start()]
    return text[: a.start()] + b[0] + middle + a[0] + text[b.end() :]


def _nearby(rng: np.random.Generator, text: str) -> str | None:
    """Another number like the given one: off by a little, a digit, or a factor ten."""
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    if not _NUMBER.fullmatch(text):
        return None
    try:
        value = read_literal(text)
    except LiteralError:
        return None
    way = int(rng.integers(4))
    if way <= 1:
        places = len(text.partition(".")[2])
        new = value + Fraction(int(rng.choice([-2, -1, 1, 2, 5, 10])), 10**places)
    elif way == 2:
        digits = [k for k, char in enumerate(text) if char.isdigit()]
        at = int(rng.choice(digits))
        digit = (int(text[at]) + int(rng.integers(1, 10))) % 10
        return sign + text[:at] + str(digit) + text[at + 1 :]
    else:
        new = value * 10 if rng.random() < 0.5 else value / 10
    if new <= 0 or new == value:
        new = value + 1
    return sign + format_number(new)
