"""Exact arithmetic on hostile text: numbers and expressions as rationals, no eval.

Every limit below bounds the work of one call, so that a tower of powers, a thousand
brackets or a million digits is an `ExpressionError` within microseconds.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from fractions import Fraction

MAX_CHARS = 240
MAX_TOKENS = 96
MAX_DEPTH = 16
MAX_DIGITS = 30
MAX_BITS = 512
MAX_EXPONENT = 64

# ASCII digits only: \d would also read Arabic-Indic or full-width digits.
NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"

_VULGAR = {
    "½": Fraction(1, 2),
    "¼": Fraction(1, 4),
    "¾": Fraction(3, 4),
    "⅓": Fraction(1, 3),
    "⅔": Fraction(2, 3),
}
_SAME = str.maketrans(
    {
        **dict.fromkeys("×·⋅∙xX", "*"),
        "÷": "/",
        **dict.fromkeys("−–—", "-"),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        **dict.fromkeys("$€£", None),
        **dict.fromkeys("\t\xa0", " "),
    }
)
_TOKEN = re.compile(
    rf"(?P<number>{NUMBER})(?P<tail>[½¼¾⅓⅔]|\.(?![0-9]))?|(?P<vulgar>[½¼¾⅓⅔])"
    r"|(?P<op>\*\*|//|[-+*/^()%])"
)
# `2000 / 2/3`: a division by a fraction to one reader, two divisions to another.
_AMBIGUOUS = re.compile(r"[0-9)]\s{0,3}/\s{1,3}[0-9]{1,4}/[0-9]|[0-9]/[0-9]+\s{1,3}/")
_MIXED = re.compile(r"\s+([0-9]{1,4})/([0-9]{1,4})(?![0-9.])")
_STATED = re.compile(rf"[-−–]?(?:{NUMBER})")


class ExpressionError(ValueError):
    """A text is not an expression, or is one beyond the limits."""


@dataclasses.dataclass(frozen=True)
class Expression:
    """A value with what it was computed from.

    Attributes:
      value: the exact value, `p%` read as p/100.
      bare_value: the value with percent signs ignored (`100% - 10% = 90`).
      numbers: the literals, in order of appearance.
      operations: how many binary operations there are.
    """

    value: Fraction
    bare_value: Fraction
    numbers: tuple[Fraction, ...]
    operations: int

    @property
    def readings(self) -> tuple[Fraction, ...]:
        """The values that the text may mean: two where it has percent signs."""
        if self.value == self.bare_value:
            return (self.value,)
        return self.value, self.bare_value


@dataclasses.dataclass(frozen=True)
class Stated:
    """A number as somebody wrote it; `decimals` tells how far it may be rounded."""

    value: Fraction
    decimals: int


@functools.lru_cache(maxsize=1 << 12)
def read_literal(text: str) -> Fraction:
    """The value of a text that matches `NUMBER`."""
    whole, _, decimals = text.replace(",", "").partition(".")
    if len(whole) + len(decimals) > MAX_DIGITS:
        raise ExpressionError(f"a number of more than {MAX_DIGITS} digits")
    return Fraction(int(whole + decimals or "0"), 10 ** len(decimals))


def read_stated(text: str) -> Stated | None:
    """A single number such as `-1,234.50` or `$5`; None where it is anything else."""
    text = text[:MAX_CHARS].strip().rstrip(".").lstrip("$€£ ")
    if not _STATED.fullmatch(text):
        return None
    sign = -1 if text[0] in "-−–" else 1
    digits = text.lstrip("-−–")
    try:
        value = read_literal(digits)
    except ExpressionError:
        return None
    return Stated(sign * value, len(digits.partition(".")[2]))


def evaluate(text: str) -> Expression:
    """Evaluates `+ - * / // ^ %`, brackets and signs in exact rationals.

    Args:
      text: for example `48/2`, `(1,200 + 30) x .5` or `20% * 50`.

    Raises:
      ExpressionError: unreadable, division by zero, or beyond a limit.
    """
    tokens = _tokens(text)
    percent = "%" in text
    value, numbers, operations = _Parser(tokens, percents=True).parse()
    bare = _Parser(tokens, percents=False).parse()[0] if percent else value
    return Expression(value, bare, numbers, operations)


def terminating(value: Fraction) -> int | None:
    """Decimals that write a value exactly; None where no finite number does."""
    denominator, decimals = value.denominator, 0
    while denominator % 10 == 0:
        denominator, decimals = denominator // 10, decimals + 1
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator, decimals = denominator // prime, decimals + 1
    return decimals if denominator == 1 else None


def format_number(value: Fraction, decimals: int = 2) -> str:
    """A value in decimal text: exact where 6 decimals do, else rounded."""
    needed = terminating(value)
    places = needed if needed is not None and needed <= 6 else decimals
    scaled = round(value * 10**places)
    if places == 0:
        return str(scaled)
    digits = str(abs(scaled)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


def _tokens(text: str) -> list[str | Fraction]:
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"more than {MAX_CHARS} characters")
    text = text.translate(_SAME).strip()
    if _AMBIGUOUS.search(text):
        raise ExpressionError("an ambiguous division by a fraction")
    tokens: list[str | Fraction] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected character {text[at]!a}")
        if match["op"]:
            tokens.append("^" if match["op"] == "**" else match["op"])
        elif match["vulgar"]:
            tokens.append(_VULGAR[match["vulgar"]])
        else:
            tail = _VULGAR.get(match["tail"] or "", Fraction(0))
            value = read_literal(match["number"]) + tail
            mixed = _MIXED.match(text, match.end())  # `1 1/2`
            if mixed and "." not in match[0] and 0 < int(mixed[1]) < int(mixed[2]):
                value += Fraction(int(mixed[1]), int(mixed[2]))
                match = mixed
            tokens.append(value)
        at = match.end()
        while at < len(text) and text[at] == " ":
            at += 1
        if len(tokens) > MAX_TOKENS:
            raise ExpressionError(f"more than {MAX_TOKENS} tokens")
    if not tokens:
        raise ExpressionError("empty")
    return tokens


class _Parser:
    """Recursive descent over a bounded list of tokens."""

    def __init__(self, tokens: list[str | Fraction], percents: bool):
        self.tokens = tokens
        self.percents = percents
        self.at = 0
        self.depth = 0
        self.operations = 0

    def parse(self) -> tuple[Fraction, tuple[Fraction, ...], int]:
        value = self._sum()
        if self.at != len(self.tokens):
            raise ExpressionError(f"unexpected {self.tokens[self.at]}")
        numbers = tuple(t for t in self.tokens if isinstance(t, Fraction))
        return value, numbers, self.operations

    def _peek(self) -> str | Fraction | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _sum(self) -> Fraction:
        value = self._product()
        while (op := self._peek()) in ("+", "-"):
            self.at += 1
            right = self._product()
            value = _bounded(value + right if op == "+" else value - right)
            self.operations += 1
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while True:
            op = self._peek()
            if op in ("*", "/", "//"):
                self.at += 1
            elif op != "(":  # `2(3)` is a product; `2 3` is not an expression
                return value
            right = self._signed()
            if op in ("/", "//") and right == 0:
                raise ExpressionError("division by zero")
            if op == "//":
                value = Fraction(value // right)
            else:
                value = _bounded(value / right if op == "/" else value * right)
            self.operations += 1

    def _signed(self) -> Fraction:
        op = self._peek()
        if op not in ("+", "-"):
            return self._power()
        self.at += 1
        self._enter()
        value = self._signed()
        self.depth -= 1
        return -value if op == "-" else value

    def _power(self) -> Fraction:
        base = self._atom()
        if self._peek() != "^":
            return base
        self.at += 1
        self._enter()
        exponent = self._signed()
        self.depth -= 1
        self.operations += 1
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise ExpressionError("an exponent that is no small integer")
        if base == 0 and exponent < 0:
            raise ExpressionError("division by zero")
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent.numerator) > MAX_BITS:
            raise ExpressionError("a number out of range")
        return Fraction(base**exponent.numerator)

    def _atom(self) -> Fraction:
        token = self._peek()
        if isinstance(token, Fraction):
            self.at += 1
            value = token
        elif token == "(":
            self.at += 1
            self._enter()
            value = self._sum()
            self.depth -= 1
            if self._peek() != ")":
                raise ExpressionError("a bracket is not closed")
            self.at += 1
        else:
            raise ExpressionError(f"unexpected {'end' if token is None else token}")
        while self._peek() == "%":
            self.at += 1
            value = _bounded(value / 100) if self.percents else value
        return value

    def _enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}")


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ExpressionError("a number out of range")
    return value
