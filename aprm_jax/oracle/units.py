"""The one table of units: which words are units, and what one is of another."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from fractions import Fraction

from aprm_jax.oracle.nouns import (
    NOTHING,
    TAIL,
    Noun,
    contradict,
    plural,
    read_noun,
    stem,
)

MAX_UNIT = 80  # characters that are read of one unit

_TABLE: dict[str, dict[str, str]] = {
    # dimension: {factor to the base unit: names, by blanks}
    "length": {
        "1": "m meter meters metre metres",
        "1000": "km kms kilometer kilometers kilometre kilometres",
        "1/10": "dm decimeter decimeters",
        "1/100": "cm cms centimeter centimeters centimetre centimetres",
        "1/1000": "mm millimeter millimeters millimetre millimetres",
        "1/1000000": "μm um micrometer micrometers micron microns",
        "1/1000000000": "nm nanometer nanometers",
        "1/10000000000": "å angstrom angstroms",
        "1/1000000000000": "pm picometer picometers",
        "127/5000": "in inch inches",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard yards",
        "201168/125": "mi mile miles",
        "149597870700": "AU",
        "9460730472580800": "ly lightyear lightyears",
    },
    "mass": {
        "1": "g gram grams gramme grammes",
        "1000": "kg kgs kilogram kilograms kilo kilos",
        "1/1000": "mg milligram milligrams",
        "1000000": "tonne tonnes",
        "45359237/100000": "lb lbs pound pounds",
        "45359237/1600000": "oz ounce ounces",
        "45359237/50": "ton tons",
        "14593.903": "slug slugs",
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
    "temperature": {"1": "k kelvin kelvins °c celsius", "5/9": "°f fahrenheit"},
    "area": {
        "10000": "hectare hectares",
        "4046.8564224": "acre acres",
    },
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
    "force": {"1": "n newton newtons"},
    "energy": {
        "1": "j joule joules",
        "1000000": "megajoule megajoules",
        "1/1000": "millijoule millijoules",
        "1000": "kj kilojoule kilojoules",
        "4.184": "cal calorie calories",
        "4184": "kcal",
        "3600000": "kwh",
        "1.602176634e-19": "electronvolt electronvolts",
        "1/10000000": "erg ergs",
    },
    "power": {"1": "w watt watts", "1000": "kw kilowatt kilowatts", "745.7": "hp"},
    "pressure": {
        "1": "pascal pascals",
        "1000": "kpa",
        "1000000": "mpa",
        "100000": "bar bars",
        "101325": "atm",
        "20265/152": "torr",
        "133.322387415": "mmhg",
    },
    "voltage": {"1": "v volt volts"},
    "current": {"1": "a amp amps ampere amperes"},
    "charge": {"1": "c coulomb coulombs", "1/1000": "millicoulomb millicoulombs"},
    "resistance": {"1": "ω ohm ohms"},
    "capacitance": {"1": "farad farads", "1/1000000": "microfarad microfarads"},
    "tesla": {"1": "t tesla teslas"},
    "frequency": {
        "1": "hz hertz",
        "1000": "khz",
        "1000000": "mhz",
        "1000000000": "ghz",
    },
    "level": {"1": "db decibel decibels"},
    "amount": {"1": "mol mols mole moles", "1/1000": "mmol"},
}
# What some quantities are in others; a gram is the unit of mass.
_DERIVED = {
    "area": "1 length^2",
    "volume": "1/1000 length^3",
    "force": "1000 mass length time^-2",
    "energy": "1000 mass length^2 time^-2",
    "power": "1000 mass length^2 time^-3",
    "pressure": "1000 mass length^-1 time^-2",
    "charge": "1 current time",
    "voltage": "1000 mass length^2 time^-3 current^-1",
    "resistance": "1000 mass length^2 time^-3 current^-2",
    "capacitance": "1/1000 mass^-1 length^-2 time^4 current^2",
    "inductance": "1000 mass length^2 time^-2 current^-2",
    "flux": "1000 mass length^2 time^-2 current^-1",
    "tesla": "1000 mass time^-2 current^-1",
    "frequency": "1 time^-1",
}
# Symbols of the SI, whose prefixes are told apart by capitals: MPa is no mPa.
_SYMBOLS = {
    **{"m": "length", "g": "mass", "s": "time", "L": "volume", "N": "force"},
    **{"J": "energy", "W": "power", "Pa": "pressure", "V": "voltage", "A": "current"},
    **{"C": "charge", "ohm": "resistance", "F": "capacitance", "H": "inductance"},
    **{"T": "tesla", "Hz": "frequency", "Wb": "flux", "mol": "amount", "eV": "energy"},
    **{"K": "temperature", "cal": "energy"},
}
_PREFIXES = {
    **{"f": -15, "p": -12, "n": -9, "μ": -6, "u": -6, "m": -3},
    **{"k": 3, "M": 6, "G": 9, "T": 12},
}
# What may be left out, but not turned into its opposite.
_SIDES = frozenset(
    [
        *("north", "south", "east", "west", "up", "down", "left", "right", "above"),
        *("below", "clockwise", "counterclockwise"),
        *("profit", "loss", "gain", "increase", "decrease"),
    ]
)
_TABLE["morning"] = {"1": "am"}
# What a degree of these scales counts from, in kelvin; of a bare degree it is unknown.
_ZEROS = {
    **dict.fromkeys(("°c", "celsius"), Fraction("273.15")),
    **dict.fromkeys(("°f", "fahrenheit"), Fraction("459.67") * 5 / 9),
}
# What may stand beside a number without saying anything of it.
_VAGUE = ("unit", "units", "square", "sq", "cubic", "cu", "each", "total", "number")

UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor))
    for dimension, factors in _TABLE.items()
    for factor, names in factors.items()
    for name in names.split()
}
_WORDS = _SIDES.union(UNITS)


def _prefixed() -> Iterator[tuple[str, tuple[str, Fraction]]]:
    """The symbols of the SI with their prefixes, in their own capitals."""
    sizes = {"eV": UNITS["electronvolt"][1], "cal": UNITS["cal"][1]}
    for symbol, dimension in _SYMBOLS.items():
        size = sizes.get(symbol, Fraction(1))
        yield symbol, (dimension, size)
        for prefix, power in _PREFIXES.items():
            yield prefix + symbol, (dimension, size * Fraction(10) ** power)


UNITS = {**dict(_prefixed()), **UNITS}
_MEASURED = {
    dimension: [part.partition("^")[::2] for part in text.split()[1:]]
    for dimension, text in _DERIVED.items()
}
_FACTORS = {name: Fraction(text.split()[0]) for name, text in _DERIVED.items()}
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
# Symbols without a blank between them: Jmol, JK.
_GLUED = re.compile(r"\b([kM]?[JNWVC]|Pa)(?=(?:mol|kg|[Kmsg])(?![A-Za-z]))")
_LIGHT = re.compile(r"\blight[- ]years?\b")
_CHARGES = re.compile(r"\belementary charges?\b")
_DROP = re.compile(
    r"\\(?:mathrm|text|textrm|mbox|operatorname|rm|hat|mathbf|bf)\b|[{}~$]|\\[,;:! ]"
    r"|\\(?:cdot|times)\b"
)


_Powers = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit as a product of powers, and what is counted in it.

    Attributes:
      powers: the exponent of each dimension; those of the SI that are made of others,
        such as force, are written in them.
      factor: how many base units it is.
      noun: what is counted; of `5 cups of tea` the tea.
      per: for what, where that is no unit: the shirt of `$5 per shirt`.
      side: a direction, or `profit` and the like.
      zero: what it counts from, in kelvin; None for any other unit than a temperature.
    """

    powers: _Powers
    factor: Fraction
    noun: Noun = NOTHING
    per: frozenset[str] = frozenset()
    side: str = ""
    zero: Fraction | None = None

    def times(self, other: Unit) -> Unit:
        """The product, as of `$` and `per hour`."""
        powers = dict(self.powers)
        for name, power in other.powers:
            powers[name] = powers.get(name, 0) + power
        return Unit(
            _sorted(powers),
            self.factor * other.factor,
            self.noun if self.noun != NOTHING else other.noun,
            self.per | other.per,
            self.side or other.side,
        )


def _sorted(powers: dict[str, int]) -> _Powers:
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def read_unit(text: str) -> Unit | None:
    """The unit that a text spells; None where it names none.

    Args:
      text: for example `cm^2`, `km per hour`, `\\mathrm{kJ} \\mathrm{mol}^{-1}`, `red
        apples left`.
    """
    text = _spelled(text)
    powers: dict[str, int] = {}
    factor, below, side, zero = Fraction(1), 1, "", None
    squared = re.search(r"\b(?:square|sq)\b", text), re.search(r"\b(cubic|cu)\b", text)
    words = list(_WORD.finditer(text))
    alone = all(m[0].lower() in _JOINTS for m in words)  # `in` is an inch then
    counted: list[str] = []
    per: set[str] = set()
    for match in words:
        word = match[0]
        before = text[: match.start()].rstrip("( ")
        exponent = _POWER.match(text, match.end())
        over = before.endswith("/")
        if over or re.search(r"\bper$", before):
            below = -1
        if word.lower() in _JOINTS and not alone and not (over or exponent):
            if word in ("a", "an") and not re.search(r"\bof$", before):
                below = -1  # $5 an hour
            elif word == "of" and below == 1 and (powers or counted):
                counted.append(word)
            elif word == "in" and (powers or counted):
                break
            continue
        if word.lower() in _VAGUE:
            continue
        if word.lower() in _SIDES and not counted:
            side = side or word.lower()
            continue
        if word.lower() in TAIL and not (alone or over or exponent):
            break
        if "of" in counted and below == 1:
            counted.append(word)
            continue
        if counted and below == 1 and plural(counted[-1]):
            continue  # 60 students enrolled this year
        power = int(exponent[1]) if exponent else 1
        count = below * power if power > 0 else power
        if not exponent and (squared[0] or squared[1]):
            count *= 2 if squared[0] else 3
            squared = (None, None)
        found = _found(word)
        if found is None:
            name = word if abs(count) == 1 else f"{word}^{abs(count)}"
            if count < 0:
                per.add(stem(name.lower()))
            else:
                counted.append(name)
            continue
        if abs(count) > 9:
            return None
        factor *= _multiplied(powers, *found, count)
        zero = _ZEROS.get(word.lower(), Fraction(0))
    rest = _sorted(powers)
    noun = read_noun(_phrase(counted, any(power > 0 for _, power in rest)))
    if not (powers or per or side or noun != NOTHING):
        return None
    zero = zero if rest == (("temperature", 1),) else None
    return Unit(rest, factor, noun, frozenset(per), side, zero)


def _multiplied(
    powers: dict[str, int], dimension: str, size: Fraction, count: int
) -> Fraction:
    """Adds a unit's powers to others; returns by what the factor grows."""
    for name, power in _MEASURED.get(dimension, [(dimension, "")]):
        powers[name] = powers.get(name, 0) + count * int(power or 1)
    return (size * _FACTORS.get(dimension, 1)) ** count


def _phrase(words: list[str], measured: bool) -> str:
    """The words of what is counted; of a measure those behind `of`."""
    if measured and "of" in words:
        words = words[words.index("of") :]
    elif measured:
        words = []
    return " ".join(words)


def _spelled(text: str) -> str:
    """The text of a unit in one spelling, without fonts and braces."""
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
    text = _GLUED.sub(r"\1 ", _LIGHT.sub("lightyear", text))
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?\s*", "°", text).replace("\\circ", "°")
    text = re.sub(r"°\s*\\?(?:mathrm|text)?\{?\s*([CF])\b\}?", r"°\1 ", text)
    text = "$" if money else _DROP.sub(" ", text)
    return re.sub(r"μ\s+(?=[A-Za-z])", "μ", text)


def _found(word: str) -> tuple[str, Fraction] | None:
    """The dimension and the size of a unit; a percent is one only here."""
    if word == "percent":
        return word, Fraction(1)
    return UNITS.get(word) or UNITS.get(word.lower())  # MJ is no mJ


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
    """Whether a word of two letters or more is a unit, and no product of letters."""
    symbol = word in UNITS and not (word.islower() or word.isupper())
    return len(word) > 1 and (symbol or word.lower() in _WORDS)


def conversion(a: Unit | None, b: Unit | None) -> Fraction | None:
    """What one `a` is in `b`s; 1 where either says nothing, None where they clash.

    For temperatures `shift` says what is to be added.
    """
    if a is None or b is None or a == b:
        return Fraction(1)
    if a.side and b.side and a.side != b.side:
        return None
    if contradict(a.noun, b.noun) or (a.per and b.per and not a.per & b.per):
        return None
    if a.powers == b.powers:
        return a.factor / b.factor
    if (a.zero or b.zero) and (("angle", 1),) in (a.powers, b.powers):
        return Fraction(1)  # "30 degrees", of temperature
    (above_a, below_a), (above_b, below_b) = map(_halves, (a.powers, b.powers))
    if above_a and above_b:
        return None
    if not above_a and not above_b:
        # 9 cookies a day, in a problem of one day: 9 cookies.
        return None if below_a and below_b else Fraction(1)
    named, below = (b, below_b) if above_a else (a, below_a)
    if named.noun.head or named.per:
        return None  # 12 apples, 12 cm
    if not below:
        return Fraction(1)
    return a.factor / b.factor if below_a == below_b else None  # $40 a week, 40 a week


def _halves(powers: _Powers) -> tuple[_Powers, _Powers]:
    """The powers above the line, and those below it."""
    above = tuple(power for power in powers if power[1] > 0)
    return above, tuple(power for power in powers if power[1] < 0)


def shift(a: Unit | None, b: Unit | None) -> Fraction:
    """What is to be added to a temperature in `a`s, in `b`s: 32 from °C to °F."""
    if a is None or b is None or a.zero is None or b.zero is None:
        return Fraction(0)
    return (a.zero - b.zero) / b.factor


DEGREE, RADIAN, DOLLAR = map(read_unit, ("degrees", "radians", "dollars"))
PERCENT = read_unit("in percent")  # said of the number: then a share is none
