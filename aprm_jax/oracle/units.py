"""The one table of units: which words are units, and what one is of another."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

MAX_UNIT = 80  # characters that are read of one unit

_TABLE: dict[str, dict[str, str]] = {
    # dimension: {factor to the base unit: names, by blanks}
    "length": {
        "1": "m meter meters metre metres",
        "1000": "km kilometer kilometers kilometre kilometres",
        "1/10": "dm decimeter decimeters",
        "1/100": "cm centimeter centimeters centimetre centimetres",
        "1/1000": "mm millimeter millimeters millimetre millimetres",
        "1/1000000": "μm um micrometer micrometers micron microns",
        "1/1000000000": "nm nanometer nanometers",
        "1/10000000000": "å angstrom angstroms",
        "1/1000000000000": "pm picometer picometers",
        "127/5000": "in inch inches",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard yards",
        "201168/125": "mi mile miles",
    },
    "mass": {
        "1": "g gram grams gramme grammes",
        "1000": "kg kilogram kilograms kilo kilos",
        "1/1000": "mg milligram milligrams",
        "1000000": "tonne tonnes",
        "45359237/100000": "lb lbs pound pounds",
        "45359237/1600000": "oz ounce ounces",
        "45359237/50": "ton tons",
    },
    "time": {
        "1": "s sec secs second seconds",
        "1/1000": "ms millisecond milliseconds",
        "60": "min mins minute minutes",
        "3600": "h hr hrs hour hours",
        "86400": "day days",
        "604800": "week weeks",
        "2629800": "month months",
        "31557600": "yr yrs year years",
        "1209600": "fortnight fortnights",
        "315576000": "decade decades",
        "3155760000": "century centuries",
    },
    "money": {
        "1": "$ dollar dollars usd buck bucks",
        "1/4": "quarter quarters",
        "1/10": "dime dimes",
        "1/20": "nickel nickels",
        "1/100": "¢ cent cents penny pennies",
    },
    "euro": {"1": "€ euro euros eur"},
    "sterling": {"1": "£ gbp"},
    "yen": {"1": "¥ yen"},
    "yuan": {"1": "yuan rmb"},
    "rupee": {"1": "₹ rs rupee rupees"},
    "angle": {"1": "deg degs degree degrees °"},
    "radian": {"1": "rad radian radians"},
    "celsius": {"1": "°c celsius"},
    "fahrenheit": {"1": "°f fahrenheit"},
    "kelvin": {"1": "k kelvin kelvins"},
    "volume": {
        "1": "l liter liters litre litres",
        "1/1000": "ml milliliter milliliters millilitre millilitres cc",
        "3.785411784": "gal gallon gallons",
        "0.946352946": "qt quart quarts",
        "0.473176473": "pt pint pints",
        "0.2365882365": "cup cups",
        "0.01478676478125": "tablespoon tablespoons",
        "0.00492892159375": "teaspoon teaspoons",
    },
    "force": {"1": "n newton newtons", "1000": "kn"},
    "energy": {
        "1": "j joule joules",
        "1000000": "MJ megajoule megajoules",
        "1/1000": "mJ millijoule millijoules",
        "1000": "kj kilojoule kilojoules",
        "4.184": "cal calorie calories",
        "4184": "kcal",
        "3600000": "kwh",
    },
    "electronvolt": {"1": "ev", "1000": "kev", "1000000": "mev", "1000000000": "gev"},
    "power": {"1": "w watt watts", "1000": "kw kilowatt kilowatts"},
    "pressure": {
        "1": "pa pascal pascals",
        "1000": "kpa",
        "1000000": "mpa",
        "100000": "bar bars",
        "101325": "atm",
        "20265/152": "torr",
        "133.322387415": "mmhg",
    },
    "voltage": {"1": "v volt volts", "1/1000": "mv"},
    "current": {"1": "a amp amps ampere amperes", "1/1000": "ma"},
    "charge": {
        "1": "c coulomb coulombs",
        "1000000": "MC",
        "1/1000": "mC millicoulomb millicoulombs",
        "1/1000000": "μc",
        "1/1000000000": "nc",
        "1/1000000000000": "pc",
        "1/1000000000000000": "fc",
    },
    "resistance": {"1": "ω ohm ohms"},
    "tesla": {"1": "t tesla teslas"},
    "frequency": {
        "1": "hz hertz",
        "1000": "khz",
        "1000000": "mhz",
        "1000000000": "ghz",
    },
    "amount": {"1": "mol mols mole moles", "1/1000": "mmol"},
}
# What may be left out, but not turned into its opposite.
_SIDES = (
    "am north south east west up down left right above below clockwise "
    "counterclockwise profit loss gain increase decrease"
)
_TABLE.update({side: {"1": side} for side in _SIDES.split()})
_DEGREES = [{((scale, 1),), (("angle", 1),)} for scale in ("celsius", "fahrenheit")]
# What may stand beside a number without saying anything of it.
_VAGUE = ("unit", "units", "square", "sq", "cubic", "cu", "each", "total", "number")

UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor))
    for dimension, factors in _TABLE.items()
    for factor, names in factors.items()
    for name in names.split()
}
# What the problems of everyday life measure.
EVERYDAY = frozenset(["length", "mass", "time", "money", "volume"])
# Abbreviations that are no product of letters where they touch a number: `5cm`.
GLUED = frozenset(
    [
        "cm",
        "mm",
        "km",
        "kg",
        "mg",
        "ft",
        "lb",
        "lbs",
        "oz",
        "hr",
        "hrs",
        "min",
        "mph",
        "ml",
        "am",
        "pm",
        "sec",
    ]
)
# Read as a unit when they stand alone behind a number; other letters are variables.
LETTERS = frozenset("mgsNJVWLhKAC")
_JOINTS = ("per", "a", "an", "of", "in")
_WORD = re.compile(r"\\[a-zA-Z]+|°[cCfF]?|[A-Za-zμåÅ$€£¥₹¢]+")
_SPEED = re.compile(r"\b(mp|kp|kmp|km)h\b")
_POWER = re.compile(r"\s*\^?\s*\{?\s*(-?[0-9])\s*\}?")
_FRACTION = re.compile(
    r"\\[dt]?frac\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_CHARGES = re.compile(r"\belementary charges?\b")
_DROP = re.compile(
    r"\\(?:mathrm|text|textrm|mbox|operatorname|rm|hat|mathbf|bf)\b|[{}~$]|\\[,;:! ]"
    r"|\\(?:cdot|times)\b"
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit as a product of powers.

    Attributes:
      powers: the exponent of each dimension or of each unknown word.
      factor: how many base units it is.
      known: whether every word of it is in the table.
    """

    powers: tuple[tuple[str, int], ...]
    factor: Fraction
    known: bool


def read_unit(text: str) -> Unit | None:
    """The unit that a text spells; None where it names none.

    Args:
      text: for example `cm^2`, `km per hour`, `\\mathrm{kJ} \\mathrm{mol}^{-1}`.
    """
    money = "$" in text and not any(c.isalnum() for c in text)
    text = (
        text[:MAX_UNIT]
        .replace("\\mu", "μ")
        .replace("µ", "μ")  # the micro sign is another character
        .replace("\\Omega", "ohm")
        .replace("Ω", "ohm")
        .replace("\\degree", "°")
        .replace("%", " percent ")
    )
    text = _FRACTION.sub(r"\1 / \2", _CHARGES.sub("e", text))
    text = _SPEED.sub(lambda m: "mi/h" if m[1] == "mp" else "km/h", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?\s*", "°", text).replace("\\circ", "°")
    text = re.sub(r"°\s*\\?(?:mathrm|text)?\{?\s*([CF])\b\}?", r"°\1 ", text)
    text = "$" if money else _DROP.sub(" ", text)
    powers: dict[str, int] = {}
    factor, known, below = Fraction(1), True, 1
    squared = re.search(r"\b(?:square|sq)\b", text), re.search(r"\b(cubic|cu)\b", text)
    found_words = list(_WORD.finditer(text))
    alone = all(m[0].lower() in _JOINTS for m in found_words)  # `in` is an inch then
    for match in found_words:
        word = match[0]
        before = text[: match.start()].rstrip()
        if before.endswith("/") or re.search(r"\bper$", before):
            below = -1
        if word.lower() in _JOINTS and not alone and len(text.strip()) > 3:
            continue
        if word.lower() in _VAGUE:
            continue
        exponent = _POWER.match(text, match.end())
        count = below * (int(exponent[1]) if exponent else 1)
        if not exponent and (squared[0] or squared[1]):
            count *= 2 if squared[0] else 3
            squared = (None, None)
        found = UNITS.get(word) or UNITS.get(word.lower())  # MJ is no mJ
        if found is None:
            known = False
            name = word.lower().rstrip("s")
            powers[name] = powers.get(name, 0) + count
            continue
        if abs(count) > 9:
            return None
        powers[found[0]] = powers.get(found[0], 0) + count
        factor *= found[1] ** count
    rest = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(rest, factor, known) if rest else None


def everyday(word: str) -> tuple[str, Fraction] | None:
    """The dimension and size of a unit of everyday life; None for other words."""
    found = UNITS.get(word.lower())
    return found if found is not None and found[0] in EVERYDAY else None


def singular(word: str) -> str:
    """A word in lower case, without the `s` of a plural."""
    word = word.lower()
    short = word.removesuffix("s")
    return short if everyday(short) == everyday(word) else word


def is_unit(word: str) -> bool:
    """Whether a word of two letters or more is a unit."""
    return len(word) > 1 and word.lower() in UNITS


def conversion(a: Unit | None, b: Unit | None) -> Fraction | None:
    """What one `a` is in `b`s; 1 where either says nothing, None where they clash."""
    if a is None or b is None or a == b:
        return Fraction(1)
    if a.powers == b.powers:
        return a.factor / b.factor
    if a.known and b.known:
        if {a.powers, b.powers} in _DEGREES:  # "30 degrees", of temperature
            return Fraction(1)
        cube = {("length", 3): Fraction(1000), ("volume", 1): Fraction(1)}  # in liters
        sizes = [cube.get(u.powers[0]) for u in (a, b) if len(u.powers) == 1]
        if len(sizes) == 2 and sizes[0] and sizes[1]:
            return a.factor * sizes[0] / (b.factor * sizes[1])
        return None
    return Fraction(1)  # "12 books", "12 pages": the nouns are the asker's


DEGREE, RADIAN = read_unit("degrees"), read_unit("radians")
PERCENT = read_unit("in percent")  # said of the number: then a share is none
