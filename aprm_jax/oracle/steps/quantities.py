"""Which numbers a text licenses: its figures, its number words, and what follows.

A license is generous on purpose: it answers "could this number come from here", and
only a number that could not is held against a step.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from fractions import Fraction

from aprm_jax.oracle.numerals import (
    CARDINALS,
    NUMBER,
    PARTS,
    SCALES,
    VULGAR,
    LiteralError,
    read_literal,
)

MAX_TEXT = 8_000  # characters that are read of one line

# Words that bring numbers along: counts, coins (in cents), time and measures.
_MEANINGS: dict[str, tuple[int, ...]] = {
    "once": (1,),
    "first": (1,),
    "second": (2, 60),
    "twice": (2,),
    "double": (2,),
    "doubled": (2,),
    "couple": (2,),
    "pair": (2,),
    "both": (2,),
    "twin": (2,),
    "other": (1, 2),
    "another": (1,),
    "each": (1,),
    "thrice": (3,),
    "triple": (3,),
    "tripled": (3,),
    "triplet": (3,),
    "quadruple": (4,),
    "dozen": (12,),
    "score": (20,),
    "penny": (1,),
    "nickel": (5,),
    "dime": (10,),
    "quarter": (25, 15),
    "minute": (60,),
    "hour": (60, 3600),
    "day": (24, 60, 7),
    "daily": (24, 7, 365),
    "night": (24, 7),
    "week": (7, 5, 2, 52),
    "weekly": (7, 4, 52),
    "weekend": (2, 5),
    "weekday": (5, 2),
    "monday": (7, 5),
    "friday": (7, 5),
    "saturday": (7, 2),
    "sunday": (7, 2),
    "month": (30, 31, 28, 4, 12),
    "monthly": (30, 4, 12),
    "january": (31,),
    "february": (28, 29),
    "april": (30,),
    "june": (30,),
    "year": (12, 52, 365, 4),
    "yearly": (12, 52, 365),
    "annual": (12, 52, 365),
    "decade": (10,),
    "century": (100,),
    "inch": (12,),
    "foot": (12, 3),
    "feet": (12, 3),
    "yard": (3, 36),
    "mile": (5280, 1760),
    "ounce": (16,),
    "pound": (16,),
    "ton": (2000,),
    "gallon": (4, 8, 16, 128),
    "quart": (2, 4),
    "pint": (2, 8),
    "cup": (8, 16),
    "square": (2, 4),
    "rectangle": (2, 4),
    "rectangular": (2, 4),
    "triangle": (3, 2),
    "cube": (3, 6),
    "average": (2, 3),
}

_FIGURE = re.compile(
    rf"(?P<number>{NUMBER})(?:\s{{0,2}}/\s{{0,2}}(?P<over>{NUMBER}))?"
    r"(?P<vulgar>[½¼¾⅓⅔])?(?P<percent>\s?%|\s?percent|\s?cent|¢)?"
)
_NUMBER = re.compile(NUMBER)
_WORD = re.compile(r"[a-z]{2,12}")


def licensed_by(text: str) -> frozenset[Fraction]:
    """The numbers that a line licenses, from figures and from words."""
    return _licensed_by(text[:MAX_TEXT])


@functools.lru_cache(maxsize=1 << 13)
def _licensed_by(text: str) -> frozenset[Fraction]:
    text = text.lower()
    return frozenset(_from_figures(text) | _from_words(text))


def figures(text: str) -> tuple[Fraction, ...]:
    """The figures of a text in order, without reading words into it."""
    return tuple(_figures(text[:MAX_TEXT]))


def skeleton(text: str) -> str:
    """A text with its figures blanked, to compare wordings."""
    return " ".join(_NUMBER.sub("#", text[:MAX_TEXT]).split())


def _figures(text: str) -> Iterator[Fraction]:
    for figure in _NUMBER.findall(text):
        with contextlib.suppress(LiteralError):
            yield read_literal(figure)


def _from_figures(text: str) -> set[Fraction]:
    found: set[Fraction] = set()
    for char, part in VULGAR.items():
        if char in text:
            found |= _of_part(Fraction(part.numerator), Fraction(part.denominator))
    for match in _FIGURE.finditer(text):
        try:
            value = read_literal(match["number"])
            over = read_literal(match["over"]) if match["over"] else None
        except LiteralError:
            continue
        found.add(value)
        if match["vulgar"]:
            found.add(value + VULGAR[match["vulgar"]])
        if over:
            found |= _of_part(value, over)
        if match["percent"]:
            found |= _of_percent(value)
            if over:
                found |= _of_percent(value / over)
    return found


def _of_part(top: Fraction, bottom: Fraction) -> set[Fraction]:
    part = top / bottom
    return {top, bottom, part, 1 - part, 1 + part, bottom - top}


def _of_percent(percent: Fraction) -> set[Fraction]:
    share = percent / 100
    return {percent, share, 1 - share, 1 + share, 100 - percent, 100 + percent}


def _from_words(text: str) -> set[Fraction]:
    found: set[Fraction] = set()
    total, current = 0, None
    previous: Fraction | None = None  # the number just before this word
    for word in _WORD.findall(text):
        if word in CARDINALS:
            current = min((current or 0) + CARDINALS[word], 10**15)
            found |= {Fraction(CARDINALS[word]), Fraction(total + current)}
            previous = Fraction(total + current)
            continue
        if word in SCALES:
            scale = SCALES[word]
            current = min((1 if current is None else current) * scale, 10**15)
            found |= {Fraction(scale), Fraction(total + current)}
            if scale >= 1_000:
                total, current = min(total + current, 10**15), 0
            previous = Fraction(total + (current or 0))
            continue
        if word == "and" and current is not None:
            continue
        part = PARTS.get(word) or PARTS.get(word.removesuffix("s"))
        if part:
            found |= _of_part(previous or Fraction(1), Fraction(part))
        elif previous is not None and word in ("percent", "cent", "cents"):
            found |= _of_percent(previous)
        meanings = _MEANINGS.get(word) or _MEANINGS.get(word.removesuffix("s"))
        if word in ("inches", "pennies"):
            meanings = (12,) if word == "inches" else (1,)
        found |= {Fraction(m) for m in meanings or ()}
        total, current, previous = 0, None, None
    return found
