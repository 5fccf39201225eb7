"""Expressions of the embedded arithmetic: reading, value, and one-operation rewrites.

A line is tokens separated by spaces, `3 + 4 * ( 5 - 2 )`: numbers of one or two digits
(a digit is a token, so 47 is `4 7`), the operators `+ - *` and at most one pair of
brackets. Every result is written as its last digit: arithmetic is modulo 10.

A *contraction* replaces one `x op y` by a single number. Which ones the rules license:

* both operands are numbers, so a bracket is resolved before its neighbours touch it;
* `x * y` always;
* `x + y` and `x - y` only if no `*` stands beside the pair (it binds tighter) and no
  `-` stands before it (a - b + c is not a - (b + c)).

Every licensed contraction preserves the value modulo 10; a bracket that is left with
a single number disappears.
"""

from __future__ import annotations

import dataclasses
import functools

MAX_CHARS = 256  # longer text is not read
MAX_NUMBERS = 12  # bounds the work on one line; the problems have at most seven
OPERATORS = ("+", "-", "*")
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
    opened = closed = False
    for piece in line.split():
        last = tokens[-1] if tokens else None
        operand_next = last is None or last == "(" or last in OPERATORS
        if piece in _DIGITS:
            if operand_next:
                tokens.append(piece)
            elif last == ")":
                raise MalformedExpressionError("no operator after the bracket")
            elif len(str(last)) == 2:
                raise MalformedExpressionError("a number of more than two digits")
            else:
                tokens[-1] += piece
        elif piece in OPERATORS:
            if operand_next:
                raise MalformedExpressionError(f"no number before {piece!r}")
            tokens.append(piece)
        elif piece == "(":
            if opened or not operand_next:
                raise MalformedExpressionError("a bracket opens where none may")
            opened = True
            tokens.append(piece)
        elif piece == ")":
            if not opened or closed or operand_next:
                raise MalformedExpressionError("a bracket closes where none may")
            if tokens[-2] == "(":
                raise MalformedExpressionError("a bracket around a single number")
            closed = True
            tokens.append(piece)
        else:
            raise MalformedExpressionError(f"{piece[:16]!r} is no part of one")
    if not tokens:
        raise MalformedExpressionError("empty")
    if tokens[-1] in OPERATORS or tokens[-1] == "(":
        raise MalformedExpressionError(f"it ends after {tokens[-1]!r}")
    if opened and not closed:
        raise MalformedExpressionError("a bracket is not closed")
    if count_numbers(tokens) > MAX_NUMBERS:
        raise MalformedExpressionError(f"more than {MAX_NUMBERS} numbers")
    return tuple(tokens)


def write(tokens: Tokens | list[str]) -> str:
    """The canonical line of an expression: every digit, operator, bracket a token."""
    return " ".join("".join(tokens))


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


def apply(operator: str, x: str, y: str) -> int:
    """`x operator y` modulo 10."""
    a, b = int(x), int(y)
    result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return result % 10


def value(line: str) -> int | None:
    """The value of a line modulo 10; None where it is not an expression."""
    try:
        tokens = list(parse(line))
    except MalformedExpressionError:
        return None
    if "(" in tokens:
        start, end = tokens.index("("), tokens.index(")")
        tokens[start : end + 1] = [str(_flat_value(tokens[start + 1 : end]))]
    return _flat_value(tokens)


def _flat_value(tokens: list[str]) -> int:
    total, sign, product = 0, 1, int(tokens[0])
    for operator, number in zip(tokens[1::2], tokens[2::2], strict=True):
        if operator == "*":
            product *= int(number)
        else:
            total += sign * product
            sign, product = (1 if operator == "+" else -1), int(number)
    return (total + sign * product) % 10


@dataclasses.dataclass(frozen=True)
class Contraction:
    """One `x operator y` of a line, rewritten as a single number.

    Attributes:
      left, right: what stands before and after the result.
      x, operator, y: the operation.
      value: its right result.
      line: the right next line.
      obstacle: why the rules do not license it, for a person; None where they do.
    """

    left: Tokens
    x: str
    operator: str
    y: str
    right: Tokens
    value: int
    line: str
    obstacle: str | None

    @property
    def legal(self) -> bool:
        return self.obstacle is None

    @property
    def text(self) -> str:
        return f"{self.x} {self.operator} {self.y}"

    def tokens(self, result: int | str | None = None) -> Tokens:
        """The next line with `result`, by default the right one, in its place."""
        result = self.value if result is None else result
        return (*self.left, str(result), *self.right)


@functools.lru_cache(maxsize=1 << 16)
def contractions_of(tokens: Tokens) -> tuple[Contraction, ...]:
    """Every adjacent pair of numbers of an expression, left to right."""
    found = []
    for i in range(1, len(tokens) - 1):
        x, operator, y = tokens[i - 1 : i + 2]
        if operator not in OPERATORS or not (is_number(x) and is_number(y)):
            continue
        left, right = tokens[: i - 1], tokens[i + 2 :]
        obstacle = _obstacle(operator, left, right)
        if left and right and left[-1] == "(" and right[0] == ")":
            left, right = left[:-1], right[1:]
        result = apply(operator, x, y)
        line = write((*left, str(result), *right))
        found.append(Contraction(left, x, operator, y, right, result, line, obstacle))
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


def all_contractions(line: str) -> tuple[Contraction, ...]:
    """Every adjacent pair of a line, licensed or not; none for a malformed line."""
    try:
        return contractions_of(parse(line))
    except MalformedExpressionError:
        return ()


def legal_contractions(line: str) -> tuple[Contraction, ...]:
    """The licensed contractions of a line: its correct continuations."""
    return tuple(c for c in all_contractions(line) if c.legal)


def is_single_number(line: str) -> bool:
    """Whether a line is one number, which ends a solution."""
    try:
        return len(parse(line)) == 1
    except MalformedExpressionError:
        return False
