"""Numbers as people write them, in figures and in words, read exactly; no eval.

Every limit below bounds the work of one call: a million digits is a `LiteralError`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from fractions import Fraction

MAX_CHARS = 240
MAX_DIGITS = 30
MAX_POWER = 1_000  # of ten
MAX_WORDS = 16  # of one number

# ASCII digits only: \d would also read Arabic-Indic or full-width digits.
NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
VULGAR = {
    "½": Fraction(1, 2),
    "¼": Fraction(1, 4),
    "¾": Fraction(3, 4),
    "⅓": Fraction(1, 3),
    "⅔": Fraction(2, 3),
}
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
CARDINALS = {word: k for k, word in enumerate(_ONES.split())} | {
    word: 20 + 10 * k for k, word in enumerate(_TENS.split())
}
SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9}
MULTIPLES = {**SCALES, "trillion": 10**12, "dozen": 12, "score": 20, "gross": 144}
MULTIPLES |= {"lakh": 10**5, "crore": 10**7, "bn": 10**9}
PARTS = {
    **{"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5},
    **{"sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10},
    **{"twelfth": 12, "hundredth": 100, "thousandth": 1_000},
}

_STATED = re.compile(rf"[-−–]?(?:{NUMBER})")


class LiteralError(ValueError):
    """A number beyond the limits."""


@dataclasses.dataclass(frozen=True)
class Stated:
    """A number as somebody wrote it; `decimals` tells how far it may be rounded.

    They are negative where its last digits are not told: -2 of `1.5 * 10^3`.
    """

    value: Fraction
    decimals: int

    @property
    def unit(self) -> Fraction:
        """The place of its last digit."""
        return Fraction(10) ** -self.decimals

    @property
    def digits(self) -> int:
        """How many significant digits it has."""
        return len(str(abs(self.value) // self.unit).lstrip("0"))

    def __neg__(self) -> Stated:
        return Stated(-self.value, self.decimals)

    def scaled(self, power: int) -> Stated:
        """The number times ten to a power, its last digit where it then stands."""
        return Stated(self.value * Fraction(10) ** power, self.decimals - power)


@functools.lru_cache(maxsize=1 << 12)
def read_literal(text: str, max_digits: int = MAX_DIGITS) -> Fraction:
    """The value of a text that matches `NUMBER`, or of one such as `1.5e-3`."""
    digits, _, exponent = text.replace(",", "").lower().partition("e")
    whole, _, decimals = digits.partition(".")
    if len(whole) + len(decimals) > max_digits:
        raise LiteralError(f"a number of more than {max_digits} digits")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals))
    if not exponent:
        return value
    if len(exponent) > 5 or abs(int(exponent)) > MAX_POWER:
        raise LiteralError("a number out of range")
    return value * Fraction(10) ** int(exponent)


def read_stated(text: str) -> Stated | None:
    """A single number such as `-1,234.50` or `$5`; None where it is anything else."""
    text = text[:MAX_CHARS].strip().rstrip(".").lstrip("$€£ ")
    if not _STATED.fullmatch(text):
        return None
    digits = text.lstrip("-−–")
    try:
        value = read_literal(digits)
    except LiteralError:
        return None
    sign = 1 if digits == text else -1
    return Stated(sign * value, len(digits.partition(".")[2]))


def multiple(word: str) -> int | None:
    """How many a `dozen` or some `millions` are; None for other words."""
    word = word.lower()
    return MULTIPLES.get(word) or MULTIPLES.get(word.removesuffix("s"))


def part(word: str) -> Fraction | None:
    """The share that one of some `tenths` is; None for other words, and for coins."""
    word = word.lower().removesuffix("s")
    return None if word == "quarter" or word not in PARTS else Fraction(1, PARTS[word])


def number_in_words(text: str) -> Fraction | None:
    """The number that words are, such as `two hundred and five` or `minus one half`.

    Also `half a dozen` and `two and three quarters`. None for other words, and for an
    ordinal alone: `a third` is a number, `third` is not.
    """
    words = text.lower().replace("-", " ").split()
    sign = -1 if words and words[0] in ("negative", "minus") else 1
    words = words[sign < 0 :]
    if not 0 < len(words) <= MAX_WORDS:
        return None
    if words[:2] == ["half", "a"] and len(words) == 3:
        size = MULTIPLES.get(words[2])
        return None if size is None else sign * Fraction(size, 2)
    part = PARTS.get(words[-1]) or PARTS.get(words[-1].removesuffix("s"))
    if part is None:
        whole = _integer_in_words(words)
        return None if whole is None else sign * Fraction(whole)
    *before, count = [[]] if len(words) == 1 else _split(words[:-1])
    tops = {"": None if words[-1] != "half" else 1, "a": 1, "an": 1}
    above = tops.get(" ".join(count), _integer_in_words(count))
    whole = _integer_in_words(before[0]) if before else 0
    if above is None or whole is None:
        return None
    return sign * (whole + Fraction(above, part))


def _split(words: list[str]) -> list[list[str]]:
    """What stands before the last `and`, and what behind it."""
    if "and" not in words:
        return [words]
    at = len(words) - 1 - words[::-1].index("and")
    return [words[:at], words[at + 1 :]]


def _integer_in_words(words: Sequence[str]) -> int | None:
    total, group, last = 0, 0, ""
    if words and words[0] in ("a", "an"):
        words = ["one", *words[1:]] if len(words) > 1 else []
    if words and words[-1] in MULTIPLES.keys() - SCALES.keys():
        count = _integer_in_words(words[:-1])
        return None if count is None else count * MULTIPLES[words[-1]]
    for word in words:
        if word in CARDINALS:
            size = CARDINALS[word]
            tens = CARDINALS.get(last, 0) >= 20 and 0 < size < 10
            if last in CARDINALS and not tens:
                return None
            group += size
        elif word in SCALES:
            if not group and total:
                return None
            group = (group or 1) * SCALES[word]
            if SCALES[word] >= 1_000:
                total, group = total + group, 0
        elif word != "and" or last not in SCALES:
            return None
        last = word
    return total + group if words and last != "and" else None


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
