"""Arithmetic in words: `12 minus 3`, `the square root of 12`, `three more than x`.

A reader of terms takes the words between two numbers for units and multiplies, and
whoever looks for the last number of a sentence finds the one that is taken away.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from aprm_jax.oracle.numerals import PARTS, multiple, number_in_words

_LONGEST = 120  # characters
_TOKEN = re.compile(
    r"\s*(?:(?P<figure>\$?[0-9][0-9.,]*(?:/[0-9]+)?%?|\.[0-9]+)|(?P<word>[A-Za-z]+)"
    r"|(?P<other>\\(?:pi|theta|alpha|beta|sqrt|frac)(?:\s*\{[^{}]*\}){0,2}|-))"
)
_SUMS = {"plus": "+", "minus": "-"}
_PRODUCTS = {
    **{("times",): r"\cdot ", ("multiplied", "by"): r"\cdot "},
    **{("divided", "by"): "/", ("over",): "/"},
}
_FACTORS = {"twice": "2", "double": "2", "thrice": "3", "triple": "3"}
_RAISED = {"squared": "^2", "cubed": "^3", "factorial": "!"}
_OF_TWO = {"sum": "+", "product": r"\cdot ", "difference": "-", "quotient": "/"}
_MORE = frozenset(["more", "greater", "larger", "higher"])
_LESS = frozenset(["less", "fewer", "smaller", "lower"])
_ORDINALS = {"square": 2, "cube": 3, "second": 2, "third": 3, "fourth": 4, "fifth": 5}
_ORDINALS |= {"sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10}


class _NotSpokenError(ValueError):
    """Words that are no arithmetic."""


@functools.lru_cache(maxsize=1 << 12)
def in_signs(text: str) -> str:
    """Arithmetic that words say, in signs: `12 minus 3 apples` as `{12-3} apples`.

    All of the text has to be it, but for things that are counted behind numbers. Any
    other text comes back as it is.
    """
    if len(text) > _LONGEST or not re.search("[A-Za-z]{3}", text):
        return text
    try:
        return _Reader(_tokens(text)).whole()
    except (_NotSpokenError, RecursionError):
        return text


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _NotSpokenError(text)
        tokens.append(match[0].strip())
        at = match.end()
    return tokens


class _Reader:
    """Reads tokens from the left; every method returns LaTeX of what it has read."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.lower() if len(token) > 1 else token for token in tokens]
        self._at = 0
        self._said = False  # whether a word has stood for a sign
        self._letters = False

    def whole(self) -> str:
        """The text in signs, and what is counted behind it."""
        read = self._sum()
        if self._next() in _MORE | _LESS and self._next(1) == "than":
            sign = "+" if self._take() in _MORE else "-"
            self._take()
            self._said = True
            read = f"{self._sum()}{sign}({read})"
        things = self._tokens[self._at :]
        counted = all(thing.isalpha() and len(thing) > 1 for thing in things)
        if not self._said or (things and (self._letters or not counted)):
            raise _NotSpokenError(read)
        return f"{{{read}}} {' '.join(things)}" if things else read

    def _next(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip(self, *words: str) -> bool:
        """Takes the words where they come next, as words for a sign."""
        if any(self._next(k) != word for k, word in enumerate(words)):
            return False
        self._at += len(words)
        self._said = True
        return True

    def _chain(self, part: Callable[[], str], signs: dict[tuple[str, ...], str]) -> str:
        read = part()
        while True:
            sign = next((s for words, s in signs.items() if self._skip(*words)), None)
            if sign is None:
                return read
            read += sign + part()

    def _sum(self) -> str:
        signs = {(word,): sign for word, sign in _SUMS.items()}
        return self._chain(self._product, signs)

    def _product(self) -> str:
        return self._chain(self._power, _PRODUCTS)

    def _power(self) -> str:
        base = self._factor()
        while True:
            if self._next() in _RAISED:
                self._said = True
                base = f"{{{base}}}{_RAISED[self._take()]}"
            elif self._skip("to", "the", "power", "of"):
                base = f"{{{base}}}^{{{self._factor()}}}"
            elif (
                (self._next(), self._next(1)) == ("to", "the")
                and self._next(2) in _ORDINALS
                and self._next(3) == "power"
            ):
                base = f"{{{base}}}^{{{_ORDINALS[self._next(2)]}}}"
                self._said = True
                self._at += 4
            else:
                return base

    def _factor(self) -> str:
        start = self._at
        if self._next() == "the":
            self._at += 1
        word = self._next()
        if word in ("negative", "minus", "-"):
            self._take()
            return f"(-{self._factor()})"
        if word in _FACTORS:
            self._said = True
            return rf"{_FACTORS[self._take()]}\cdot {self._factor()}"
        if word in _OF_TWO and self._next(1) == "of":
            self._at += 2
            self._said = True
            first = self._power()
            if self._next() != "and":
                raise _NotSpokenError(word)
            self._take()
            return f"({first}{_OF_TWO[word]}{self._power()})"
        if word == "root" or (word in _ORDINALS and self._next(1) == "root"):
            return self._root()
        if start != self._at:  # only of these an article is part
            raise _NotSpokenError(word)
        return self._number()

    def _root(self) -> str:
        order = 2 if self._next() == "root" else _ORDINALS[self._take()]
        self._take()
        if self._next() == "of":
            self._take()
        self._said = True
        index = "" if order == 2 else f"[{order}]"
        return rf"\sqrt{index}{{{self._factor()}}}"

    def _number(self) -> str:
        token = self._next()
        if token[:1].isdigit() or (token[:1] in (".", "$", "\\") and len(token) > 1):
            number = self._take().replace(",", "").strip("$.")
            if multiple(self._next()):
                number = rf"({number}\cdot {multiple(self._take())})"
            number = number.replace("%", r"\%")
            if len(self._next()) == 1 and self._next().isalpha():  # 2x
                self._letters = True
                number += self._take()
            return number
        if token == "pi":
            self._letters = True
            self._take()
            return r"\pi"
        words = self._in_words()
        if words:
            return words
        if len(token) == 1 and token.isalpha():
            self._letters = True
            return self._take()
        raise _NotSpokenError(token)

    def _in_words(self) -> str:
        """The longest number in words that comes next, a share `of` something too."""
        for end in range(min(len(self._tokens), self._at + 12), self._at, -1):
            words = self._tokens[self._at : end]
            value = number_in_words(" ".join(words))
            if value is None:
                continue
            share = words[-1].removesuffix("s") in PARTS
            self._at = end
            number = str(value) if value.denominator == 1 else f"({value})"
            if share and self._skip("of"):
                return rf"{number}\cdot {self._factor()}"
            return number
        return ""
