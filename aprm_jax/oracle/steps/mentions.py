"""Reads which numbers a text gives, and of what: `60 miles`, `25 %`, `$4`, `9 hens`."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from fractions import Fraction

from aprm_jax.oracle.numerals import CARDINALS, NUMBER, LiteralError, read_literal
from aprm_jax.oracle.steps.formula import Node
from aprm_jax.oracle.steps.prose import word_set
from aprm_jax.oracle.units import everyday, singular

CARDINAL = "|".join(sorted(CARDINALS, key=len, reverse=True))
MAX_TEXT = 4_000  # characters that are read of one text

_MENTION = re.compile(
    rf"(?P<money>[$€£]\s?)?(?<![0-9.])(?P<number>{NUMBER}|\b(?:{CARDINAL})\b)"
    r"(?P<percent>\s?\\?%|[ -]percent\b)?(?P<words>(?:[ -][A-Za-z]+){0,4})",
    re.IGNORECASE,
)
# Words that end the name of what is counted.
_ENDS = word_set(
    """and or in on at for to from with that who which whose per each every a an the
    is are was were be has have had more less fewer than as times he she they it
    of by if but so then when while after before into out away left long old tall
    wide high deep will would can did do does sells sold costs cost only total
    altogether off"""
)
_MORE_OF = word_set(
    "more other another additional extra"
)  # before a name: no part of it


@dataclasses.dataclass(frozen=True)
class Mention:
    """A number that a problem gives, and of what.

    Attributes:
      value: the number.
      percent: whether it is a percentage.
      unit: its dimension and size, or None for things that are counted.
      nouns: the words behind it, singular; empty where there are none.
    """

    value: Fraction
    percent: bool
    unit: tuple[str, Fraction] | None
    nouns: frozenset[str]

    @property
    def dimension(self) -> str | None:
        """Of the unit."""
        return self.unit[0] if self.unit else None


@functools.lru_cache(maxsize=1 << 12)
def values_of(line: str) -> frozenset[Fraction]:
    """The numbers of one text, of which `MAX_TEXT` characters are read."""
    return frozenset(mention.value for mention in mentions(line[:MAX_TEXT]))


def mentions(text: str) -> Iterator[Mention]:
    """The numbers of a text."""
    for match in _MENTION.finditer(text):
        value = value_of(match["number"])
        if value is None:
            continue
        nouns = nouns_of(match["words"])
        units = ["dollar"] if match["money"] else nouns
        unit = next((unit for unit in map(everyday, units) if unit), None)
        yield Mention(value, bool(match["percent"]), unit, frozenset(units))


def nouns_of(text: str) -> list[str]:
    """The name of what is counted that a text starts with, in singular words."""
    nouns: list[str] = []
    words = text.lower().replace("-", " ").split()
    for word in words:
        if not nouns and word in _MORE_OF and "than" not in words:
            continue
        if word in _ENDS:
            break
        nouns.append(singular(word))
    return nouns


def value_of(text: str) -> Fraction | None:
    """The number that a numeral or a cardinal says; None for other texts."""
    if text.lower() in CARDINALS:
        return Fraction(CARDINALS[text.lower()])
    try:
        return read_literal(text)
    except LiteralError:
        return None


def operations_of(node: Node) -> Iterator[Node]:
    """The sums, differences, products and quotients of an expression, outer first."""
    if node.op in ("+", "-", "*", "/"):
        yield node
    for arg in node.args:
        yield from operations_of(arg)
