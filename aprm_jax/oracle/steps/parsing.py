"""Parses a run of mathematical tokens into one formula, or refuses it.

What people read in two ways is refused: `1/2x`, `2000 / 2/3`, `sin 2x`.
"""

from __future__ import annotations

import dataclasses
import functools
import string
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import MAX_CHARS, Stated
from aprm_jax.oracle.steps.formula import FUNCTIONS, FormulaError, Node, exact
from aprm_jax.oracle.steps.tokens import Token, tokenize

MAX_LENGTH = 120  # tokens of one formula
MAX_DEPTH = 16

_ATOMS = ("number", "variable", "constant", "open", "command")


@dataclasses.dataclass(frozen=True)
class Formula:
    """A formula as a text states it.

    Attributes:
      node: its tree.
      start, end: its place in the text.
      text: what stands there.
      stated: the number, where the formula is a plain one such as `-1,234.50`.
      percent: whether a percent sign stands in it.
      money: whether a currency sign stands before it.
    """

    node: Node
    start: int
    end: int
    text: str
    stated: Stated | None
    percent: bool
    money: bool = False


def parse_formula(tokens: Sequence[Token], text: str) -> Formula:
    """Reads a run of tokens of `text` as one formula.

    Raises:
      FormulaError: it is none, an ambiguous one, or one beyond the limits.
    """
    if not tokens or len(tokens) > MAX_LENGTH:
        raise FormulaError("empty" if not tokens else "too long")
    node = _Parser(tokens).parse()
    start, end = tokens[0].start, tokens[-1].end
    plain = [t for t in tokens if t.text != "%" and t.kind not in ("open", "close")]
    negative = plain[0].text == "-"
    stated = None
    if len(plain) == 1 + negative and plain[-1].kind == "number":
        value = -plain[-1].value if negative else plain[-1].value
        stated = Stated(value, plain[-1].decimals)
    percent = any(t.text == "%" for t in tokens)
    money = text[max(0, start - 3) : start].rstrip(" ")[-1:] in ("$", "€", "£")
    return Formula(node, start, end, text[start:end], stated, percent, money)


@functools.lru_cache(maxsize=1 << 12)
def read_expression(text: str) -> Formula:
    """A text that is a single expression of numbers: `48/2`, `(1,200 + 30) x .5`.

    Raises:
      FormulaError: it is none, has no rational value, or is beyond the limits.
    """
    if len(text) > MAX_CHARS:
        raise FormulaError(f"more than {MAX_CHARS} characters")
    text = text.strip().removesuffix(".")
    formula = parse_formula(tokenize(text), text)
    exact(formula.node)
    return formula


class _Parser:
    """Recursive descent; depth and length are bounded."""

    def __init__(self, tokens: Sequence[Token]):
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._sum()
        if self._at != len(self._tokens):
            raise FormulaError(f"unexpected {self._tokens[self._at].text[:8]!a}")
        return node

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _op(self, *allowed: str) -> Token | None:
        """Takes the next token if it is one of the operators."""
        token = self._peek()
        if token is None or token.kind != "op" or token.text not in allowed:
            return None
        self._at += 1
        return token

    def _sum(self) -> Node:
        node = self._product()
        while token := self._op("+", "-"):
            node = Node(token.text, (node, self._product()))
        return node

    def _product(self) -> Node:
        node = self._signed()
        slash: Token | None = None
        while True:
            token = self._op("*", "/", "//")
            if token is None:
                following = self._peek()
                if following is None or following.kind not in _ATOMS:
                    return node
                if slash is not None:
                    raise FormulaError("a product behind a division")
                if following.kind == "number":
                    raise FormulaError("two numbers without an operator")
                node = Node("*", (node, self._power()))
                continue
            if token.text != "*":
                if slash is not None and self._is_fraction(slash, token):
                    raise FormulaError("an ambiguous division by a fraction")
                slash = token
            node = Node(token.text, (node, self._signed()))

    def _is_fraction(self, first: Token, second: Token) -> bool:
        """Whether `b/c` of `a / b/c` or `14 / 1 / 4` may be a fraction."""
        before, after = self._tokens[self._at - 2], self._peek()
        if before.kind != "number" or after is None or after.kind != "number":
            return first.spaced != second.spaced
        opens = first.spaced or before.spaced
        return opens != (second.spaced or after.spaced) or before.value < after.value

    def _signed(self) -> Node:
        token = self._op("+", "-")
        if token is None:
            return self._power()
        self._enter()
        node = self._signed()
        self._depth -= 1
        return Node("negate", (node,)) if token.text == "-" else node

    def _power(self) -> Node:
        base = self._postfix()
        if not self._op("^"):
            return base
        self._enter()
        sign = self._op("-")
        exponent = self._power()
        self._depth -= 1
        return Node("^", (base, Node("negate", (exponent,)) if sign else exponent))

    def _postfix(self) -> Node:
        node = self._atom()
        while True:
            token = self._peek()
            if token is None or token.kind != "op":
                return node
            if token.text == "%":
                node = Node("percent", (node,))
            elif token.text == "degrees":
                node = Node("degrees", (node,))
            elif token.text == "!":
                node = Node("factorial", (node,))
            else:
                return node
            self._at += 1

    def _atom(self) -> Node:
        token = self._peek()
        if token is None or token.kind not in _ATOMS:
            shown = "the end" if token is None else f"{token.text[:8]!a}"
            raise FormulaError(f"unexpected {shown}")
        if token.kind == "open":
            return self._group()
        self._at += 1
        if token.kind == "number":
            return self._number(token)
        if token.kind == "variable" and token.text in _FUNCTION_NAMES:
            return Node("variable", name=token.text + self._application())
        if token.kind in ("variable", "constant"):
            return Node(token.kind, name=token.text)
        return self._command(token)

    def _number(self, token: Token) -> Node:
        if token.text.startswith("\\"):  # \\frac12
            parts = token.value.as_integer_ratio()
            return Node("/", tuple(Node("number", value=Fraction(n)) for n in parts))
        whole = Node("number", value=token.value)
        part = self._mixed(token)
        return Node("+", (whole, Node("number", value=part))) if part else whole

    def _application(self) -> str:
        """The bracket of `f(3)`, which names a value; empty where there is none."""
        start = self._peek()
        if start is None or start.kind != "open":
            return ""
        if start.spaced:
            raise FormulaError("a function's value or a product")
        begin = self._at
        self._group()
        return "".join(t.text for t in self._tokens[begin : self._at])

    def _group(self) -> Node:
        token = self._peek()
        if token is None or token.kind != "open":
            raise FormulaError("a bracket is missing")
        self._at += 1
        self._enter()
        node = self._sum()
        self._depth -= 1
        token = self._peek()
        if token is None or token.kind != "close":
            raise FormulaError("a bracket is not closed")
        self._at += 1
        return node

    def _mixed(self, whole: Token) -> Fraction:
        """The fraction behind an integer: of `1 1/2`, `2½` or `1\\frac{1}{2}`."""
        rest = self._tokens[self._at : self._at + 7]
        if whole.decimals or whole.value.denominator != 1 or not rest:
            return Fraction(0)
        shapes = [t.kind if t.kind != "op" else t.text for t in rest]
        if shapes[:1] == ["number"] and 0 < rest[0].value < 1 and rest[0].decimals == 9:
            self._at += 1
            return rest[0].value
        if shapes[:3] == ["number", "/", "number"] and rest[0].spaced:
            part = _proper(rest[0], rest[2])
            self._at += 3
            return part
        braced = ["open", "number", "close"]
        if shapes == ["command", *braced, *braced] and rest[0].text == "frac":
            part = _proper(rest[2], rest[5])
            self._at += 7
            return part
        return Fraction(0)

    def _command(self, token: Token) -> Node:
        self._enter()
        try:
            if token.text in FUNCTIONS:
                return Node(token.text, (self._argument(),))
            if token.text == "sqrt":
                return Node("root", (self._radicand(), Node("number", value=_TWO)))
            if token.text.startswith("root "):
                index = Node("number", value=Fraction(token.text[-1]))
                return Node("root", (self._group(), index))
            top = self._group()
            op = "/" if token.text == "frac" else "binomial"
            return Node(op, (top, self._group()))
        finally:
            self._depth -= 1

    def _argument(self) -> Node:
        """A function's argument: brackets, or one number or variable at the end."""
        following = self._peek()
        if following is not None and following.kind == "open":
            return self._group()
        node = self._postfix()
        following = self._peek()
        if following is not None and following.kind in _ATOMS:
            raise FormulaError("a function of how much of this")
        return node

    def _radicand(self) -> Node:
        following = self._peek()
        if following is not None and following.kind == "number":
            if len(following.text) > 1 and not following.spaced:
                raise FormulaError("a root of one digit or of all")
            self._at += 1
            return Node("number", value=following.value)
        return self._group()

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormulaError(f"nested deeper than {MAX_DEPTH}")


_FUNCTION_NAMES = frozenset("fghpqr" + string.ascii_uppercase)
_TWO = Fraction(2)


def _proper(top: Token, bottom: Token) -> Fraction:
    if top.decimals or bottom.decimals or not 0 < top.value < bottom.value:
        raise FormulaError("a number beside a fraction")
    return top.value / bottom.value
