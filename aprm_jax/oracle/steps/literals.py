"""Numbers as people write them, read exactly and written again; no eval.

Every limit below bounds the work of one call: a million digits is a `LiteralError`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from fractions import Fraction

MAX_CHARS = 240
MAX_DIGITS = 30

# ASCII digits only: \d would also read Arabic-Indic or full-width digits.
NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
VULGAR = {
    "½": Fraction(1, 2),
    "¼": Fraction(1, 4),
    "¾": Fraction(3, 4),
    "⅓": Fraction(1, 3),
    "⅔": Fraction(2, 3),
}

_STATED = re.compile(rf"[-−–]?(?:{NUMBER})")


class LiteralError(ValueError):
    """A number beyond the limits."""


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
        raise LiteralError(f"a number of more than {MAX_DIGITS} digits")
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
    except LiteralError:
        return None
    return Stated(sign * value, len(digits.partition(".")[2]))


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
