"""Expressions of the embedded arithmetic: reading, value, and one-operation rewrites.

A line is `3 + 4 * ( 5 - 2 )`: natural numbers, the operators `+ - *` and at most one
pair of brackets; spaces do not matter. Arithmetic is ordinary, or modulo a number
(`modulus`, 0 for none): modulo 10 every result is written as its last digit.

A *contraction* replaces one `x op y` by a single number. Which ones the rules license:

* both operands are numbers, so a bracket is resolved before its neighbours touch it;
* `x * y` always;
* `x + y` and `x - y` only if no `*` stands beside the pair (it binds tighter) and no
  `-` stands before it (a - b + c is not a - (b + c));
* the result is a number that a line can say, so not below 0.

Every licensed contraction preserves the value; a bracket that is left with a single
number disappears.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

MAX_CHARS = 256  # longer text is not read
MAX_NUMBERS = 12  # bounds the work on one line; the problems have at most seven
MAX_DIGITS = 6  # of a number; the problems' have at most three
OPERATORS = ("+", "-", "*")
_PIECE = re.compile(r"[0-9]+|\S")
_DIGITS = frozenset("0123456789")

Tokens = tuple[str, ...]  # numbers whole ("47"), operators, brackets


class MalformedExpressionError(ValueError):
    """The text is not an expression; the message says why."""


def is_number(token: str) -> bool:
    """Whether a token of a read expression is a number."""
    return token[0] in _DIGITS


@functools.lru_cache(maxsize=1 << 16)
def parse(line: str) -> Tokens:
    """Reads a line.

    Raises:
      MalformedExpressionError: the line is not an expression.
    """
    if len(line) > MAX_CHARS:
        raise MalformedExpressionError(f"more than {MAX_CHARS} characters")
    tokens: list[str] = []
    for piece in _PIECE.findall(line):
        last = tokens[-1] if tokens else "("
        if piece[0] in _DIGITS:
            _check_number(piece, last)
        elif piece in OPERATORS:
            if last == "(" or last in OPERATORS:
                raise MalformedExpressionError(f"no number before {piece!r}")
        elif piece in ("(", ")"):
            _check_bracket(piece, tokens)
        else:
            raise MalformedExpressionError(f"{piece!r} is no part of one")
        tokens.append(piece)
    if not tokens:
        raise MalformedExpressionError("empty")
    if tokens[-1] in OPERATORS or tokens[-1] == "(":
        raise MalformedExpressionError(f"it ends after {tokens[-1]!r}")
    if "(" in tokens and ")" not in tokens:
        raise MalformedExpressionError("a bracket is not closed")
    if count_numbers(tokens) > MAX_NUMBERS:
        raise MalformedExpressionError(f"more than {MAX_NUMBERS} numbers")
    return tuple(tokens)


def _check_number(piece: str, last: str) -> None:
    if last == ")" or is_number(last):
        raise MalformedExpressionError(f"no operator before {piece[:MAX_DIGITS]!r}")
    if len(piece) > MAX_DIGITS:
        raise MalformedExpressionError(f"a number of more than {MAX_DIGITS} digits")
    if piece[0] == "0" and piece != "0":
        raise MalformedExpressionError(f"{piece!r} begins with a zero")


def _check_bracket(piece: str, tokens: list[str]) -> None:
    operand_next = not tokens or tokens[-1] == "(" or tokens[-1] in OPERATORS
    if piece == "(":
        if "(" in tokens or not operand_next:
            raise MalformedExpressionError("a bracket opens where none may")
    elif "(" not in tokens or ")" in tokens or operand_next:
        raise MalformedExpressionError("a bracket closes where none may")
    elif tokens[-2] == "(":
        raise MalformedExpressionError("a bracket around a single number")


def write(tokens: Tokens | list[str]) -> str:
    """The canonical line of an expression: single spaces between all of its parts."""
    return " ".join(tokens)


def count_numbers(tokens: Tokens | list[str]) -> int:
    """How many numbers an expression has."""
    return sum(map(is_number, tokens))


def simplify(tokens: Tokens) -> Tokens:
    """Removes a bracket around a single number."""
    if "(" in tokens:
        at = tokens.index("(")
        if tokens[at + 2] == ")":
            return (*tokens[:at], tokens[at + 1], *tokens[at + 3 :])
    return tokens


def apply(operator: str, x: str, y: str, modulus: int = 0) -> int:
    """`x operator y`, modulo `modulus` where that is not 0."""
    a, b = int(x), int(y)
    result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return result % modulus if modulus else result


def value(line: str, modulus: int = 0) -> int | None:
    """The value of a line, as `apply` has it; None where it is not an expression."""
    try:
        tokens = list(parse(line))
    except MalformedExpressionError:
        return None
    if "(" in tokens:
        start, end = tokens.index("("), tokens.index(")")
        tokens[start : end + 1] = [str(_flat_value(tokens[start + 1 : end]))]
    result = _flat_value(tokens)
    return result % modulus if modulus else result


def _flat_value(tokens: list[str]) -> int:
    total, sign, product = 0, 1, int(tokens[0])
    for operator, number in zip(tokens[1::2], tokens[2::2], strict=True):
        if operator == "*":
            product *= int(number)
        else:
            total += sign * product
            sign, product = (1 if operator == "+" else -1), int(number)
    return total + sign * product


class Contraction(NamedTuple):
    """One `x operator y` of a line, rewritten as a single number.

    Attributes:
      left, right: what stands before and after the result.
      x, operator, y: the operation.
      value: its right result.
      obstacle: why the rules do not license it, for a person; None where they do.
    """

    left: Tokens
    x: str
    operator: str
    y: str
    right: Tokens
    value: int
    obstacle: str | None

    @property
    def legal(self) -> bool:
        return self.obstacle is None

    @property
    def text(self) -> str:
        return f"{self.x} {self.operator} {self.y}"

    @property
    def line(self) -> str:
        """The right next line."""
        return write(self.tokens())

    def tokens(self, result: int | str | None = None) -> Tokens:
        """The next line with `result`, by default the right one, in its place."""
        result = self.value if result is None else result
        return (*self.left, str(result), *self.right)


@functools.lru_cache(maxsize=1 << 16)
def contractions_of(tokens: Tokens, modulus: int = 0) -> tuple[Contraction, ...]:
    """Every adjacent pair of numbers of an expression, left to right."""
    found = []
    for i in range(1, len(tokens) - 1):
        x, operator, y = tokens[i - 1 : i + 2]
        if operator not in OPERATORS or not (is_number(x) and is_number(y)):
            continue
        left, right = tokens[: i - 1], tokens[i + 2 :]
        result = apply(operator, x, y, modulus)
        obstacle = _obstacle(operator, left, right) or _unwritable(result)
        if left and right and left[-1] == "(" and right[0] == ")":
            left, right = left[:-1], right[1:]
        found.append(Contraction(left, x, operator, y, right, result, obstacle))
    return tuple(found)


def _obstacle(operator: str, left: Tokens, right: Tokens) -> str | None:
    if operator == "*":
        return None
    if left and left[-1] == "*":
        return "the '*' before it binds tighter"
    if right and right[0] == "*":
        return "the '*' after it binds tighter"
    if left and left[-1] == "-":
        return "it stands after a '-'"
    return None


def _unwritable(result: int) -> str | None:
    if result < 0:
        return "a line has no numbers below 0"
    if result >= 10**MAX_DIGITS:
        return f"a number has at most {MAX_DIGITS} digits"
    return None


def all_contractions(line: str, modulus: int = 0) -> tuple[Contraction, ...]:
    """Every adjacent pair of a line, licensed or not; none for a malformed line."""
    try:
        return contractions_of(parse(line), modulus)
    except MalformedExpressionError:
        return ()


def legal_contractions(line: str, modulus: int = 0) -> tuple[Contraction, ...]:
    """The licensed contractions of a line: its correct continuations."""
    return tuple(c for c in all_contractions(line, modulus) if c.legal)


def is_single_number(line: str) -> bool:
    """Whether a line is one number, which ends a solution."""
    try:
        return len(parse(line)) == 1
    except MalformedExpressionError:
        return False
