"""What answers say in words: residues, spans, directions, opposites.

A parser of terms takes such words for units or for nothing, and an answer that means
the opposite then has the same number.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from aprm_jax.oracle.numerals import (
    PARTS,
    format_number,
    multiple,
    number_in_words,
)
from aprm_jax.oracle.units import everyday

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_I = re.IGNORECASE
_WRAPPER = re.compile(r"\\(?:text|mathrm|textbf|mbox|rm)\s*\{([^{}]*)\}")


@functools.lru_cache(maxsize=1 << 12)
def bare(text: str) -> str:
    """The text without fonts and with single blanks."""
    return " ".join(_WRAPPER.sub(r" \1 ", text).replace("~", " ").split())


# Residues.
_MODULUS = r"\s*\{?\s*(?P<modulus>[0-9]{1,300})\s*\}?\s*\)?"
_RESIDUE = re.compile(
    r"(?:(?P<name>[^=<>]*?)\s*\\equiv\s*)?(?P<value>-?[0-9]{1,300})\s*"
    rf"(?:\\p?mod|\\bmod|\(\s*\\?(?:mod|bmod)|mod){_MODULUS}"
)


def same_residue(a: str, b: str) -> bool | None:
    """Whether `3 \\pmod 7` and `10 \\pmod 7` say one; None for other texts."""
    x, y = _RESIDUE.fullmatch(a.strip()), _RESIDUE.fullmatch(b.strip())
    if x is None or y is None or (x["name"] or "") != (y["name"] or ""):
        return None
    moduli = int(x["modulus"]), int(y["modulus"])
    if moduli[0] != moduli[1] or not moduli[0]:
        return False
    return (int(x["value"]) - int(y["value"])) % moduli[0] == 0


# Quantities.
_HALF_MORE = re.compile(r"(?P<count>[a-z0-9. -]+?) (?P<unit>[a-z]+) and a half", _I)
_HOURS = re.compile(rf"({_NUMBER})\s?h(?:rs?)?\s?([0-9]+)\s?m(?:ins?)?(?![a-z])", _I)
_FEET = re.compile(rf"(?<![0-9.])({_NUMBER})\s?'\s?({_NUMBER})\s?(?:\"|'')")
_OF = re.compile(
    r"(?:an? )?(increase|decrease|profit|loss|gain|rise|drop)"
    r"(?: of|:) (.*[0-9].*)",
    _I,
)
_BELOW_ZERO = re.compile(r"(.*[0-9].*?)\s+below zero", _I)


def feet_and_inches(text: str) -> str:
    """`6'2"` as `6 ft 2 in`."""
    return _FEET.sub(r"\1 ft \2 in", text)


def in_figures(text: str) -> str:
    """`half an hour` as `1/2 hour`, `2 h 30 m` as `2 h 30 min`; else the text."""
    plain = bare(text)
    found = _HOURS.fullmatch(plain)
    if found is not None:
        return f"{found[1]} h {found[2]} min"
    found = _OF.fullmatch(plain)
    if found is not None:
        return f"{found[2]} {found[1].lower()}"
    found = _BELOW_ZERO.fullmatch(text)
    if found is not None:
        return f"-{found[1]}"
    found = _HALF_MORE.fullmatch(plain)
    if found is not None and everyday(found["unit"]):
        count = {"a": Fraction(1), "an": Fraction(1)}.get(found["count"].lower())
        count = count or _value(found["count"])
        if count is not None and count.denominator == 1:
            return f"{format_number(count + Fraction(1, 2))} {found['unit']}"
    return _counted(plain.split()) or _things(plain.split()) or text


def _things(words: list[str]) -> str:
    """`twelve apples` in figures; "" for other words, or where all are a number."""
    *count, thing = words or [""]
    if not count or not thing.isalpha() or number_in_words(" ".join(words)) is not None:
        return ""
    known = multiple(thing) or thing.lower().removesuffix("s") in PARTS
    value = None if known else number_in_words(" ".join(count))
    return "" if value is None else f"{format_number(value)} {thing}"


def _counted(words: list[str]) -> str:
    """Numbers in words, each with its unit, in figures; "" for other words."""
    out: list[str] = []
    count: list[str] = []
    for word in words:
        if not everyday(word) or not count or word.lower().removesuffix("s") in PARTS:
            count.append(word)
            continue
        while len(count) > 1 and count[-1].lower() in ("of", "a", "an"):
            count.pop()
        if out and count[0] == "and":
            count.pop(0)
        value = number_in_words(" ".join(count))
        if value is None:
            return ""
        out.append(f"{value} {word}")
        count = []
    return "" if count else " ".join(out)


def _value(text: str) -> Fraction | None:
    return Fraction(text) if re.fullmatch(_NUMBER, text) else number_in_words(text)


# Opposites.
_PAIRS = (
    "left right",
    "north south",
    "east west",
    "up down",
    "upward downward",
    "upwards downwards",
    "above below",
    "clockwise counterclockwise",
    "more less",
    "more fewer",
    "increase decrease",
    "increased decreased",
    "rise fall",
    "gain loss",
    "profit loss",
    "older younger",
    "taller shorter",
    "longer shorter",
    "larger smaller",
    "greater smaller",
    "greater less",
    "faster slower",
    "heavier lighter",
    "earlier later",
    "early late",
    "before after",
    "ahead behind",
    "forward backward",
    "forwards backwards",
    "hotter colder",
    "warmer colder",
    "maximum minimum",
    "convergent divergent",
    "converges diverges",
    "even odd",
    "inside outside",
    "horizontal vertical",
    "forward back",
    "won lost",
    "win loss",
    "wins losses",
    "much little",
    "boys girls",
    "boy girl",
    "men women",
    "adults children",
    "heads tails",
)
_OPPOSITES = tuple(tuple(pair.split()) for pair in _PAIRS)
_CORNERS = frozenset(["northeast", "northwest", "southeast", "southwest"])
_TURNED = frozenset(" ".join(_PAIRS).split()) | _CORNERS
_WAYS = re.compile(r"\b(north|south|east|west) of (north|south|east|west)\b", _I)
_WORD = re.compile(r"[a-z]+")
_SPELLINGS = {
    "anticlockwise": "counterclockwise",
    "counter-clockwise": "counterclockwise",
    "anti-clockwise": "counterclockwise",
    "north-east": "northeast",
    "north-west": "northwest",
    "south-east": "southeast",
    "south-west": "southwest",
}
_SPELLED = re.compile(rf"\b(?:{'|'.join(_SPELLINGS)})\b", _I)
_COMPASS = {"ne": "northeast", "nw": "northwest", "se": "southeast", "sw": "southwest"}


def one_spelling(text: str) -> str:
    """Directions in one spelling: `anticlockwise`, `north-east`, `NE`."""
    text = _SPELLED.sub(lambda m: _SPELLINGS[m[0].lower()], text)
    whole = bare(text)
    return _COMPASS.get(whole.lower(), text) if whole.isupper() else text


def opposed(a: str, b: str) -> bool:
    """Whether two texts differ in words that mean the opposite of each other."""
    ours, theirs = (bare(text).lower() for text in (a, b))
    x, y = _WAYS.search(ours), _WAYS.search(theirs)
    if x and y:
        return x.groups() != y.groups()
    ours, theirs = (
        {_COMPASS.get(word, word) for word in _WORD.findall(text)}
        for text in (ours, theirs)
    )
    ours, theirs = ours & _TURNED, theirs & _TURNED
    if not ours or not theirs:
        return False
    points = ours & _CORNERS, theirs & _CORNERS
    if all(points) and not points[0] & points[1]:
        return True
    for one, other in _OPPOSITES:
        if {one, other} <= ours or {one, other} <= theirs:
            continue
        if (one in ours and other in theirs) or (other in ours and one in theirs):
            return True
    return False


def has_way(text: str) -> bool:
    """Whether a text has `north of east` or the like."""
    return _WAYS.search(bare(text)) is not None


def without_ways(text: str) -> str:
    """The text without `north of east` and the like."""
    return " ".join(_WAYS.sub(" ", bare(text)).split())
