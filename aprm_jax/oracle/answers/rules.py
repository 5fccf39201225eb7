"""What the comparison of answers rests on: names, rounding, `±`, small rewritings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.answers.numbers import Number, NumberError, approximate
from aprm_jax.oracle.answers.tokens import Term, is_numeric, number, symbol
from aprm_jax.oracle.answers.units import LETTERS, read_unit
from aprm_jax.oracle.answers.values import mentions

MAX_ITEMS = 64
SETS = frozenset(["union", "intersection", "difference"])
COLLECTIONS = frozenset(["list", "tuple", "set"])
_LETTER = r"(?:\\[a-zA-Z]+|[A-Za-z])"
_INDEX = r"(?:_(?:\{[^{}]*\}|\\?[A-Za-z0-9]+)|\^\{?(?:\\prime|\\ast|\*)\}?|')*"
_NAME = re.compile(
    rf"(?:{_LETTER}{_INDEX}(?:\([^()=]{{0,12}}\))?"
    r"|\|?[A-Z]{2,5}\|?|\\(?:angle|triangle|overline|text|mathrm|operatorname)\b.*"
    r"|\\(?:sin|cos|tan|cot|log|ln)\s*\\?[A-Za-z]+"
    r"|[A-Za-z][A-Za-z ]{2,60}|\([A-Za-z](?:,[A-Za-z]){1,5}\))"
)
_FRACTION = re.compile(r"\\frac\{([^{}]+)\}\{([^{}]+)\}")


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a number may be off: either bound suffices."""

    absolute: Fraction | None = None
    relative: Fraction | None = None


def is_name(raw: str) -> bool:
    """Whether a side of an equation only names what the other side is."""
    raw = re.sub(r"\s*([_^(),|])\s*", r"\1", raw.strip())
    fraction = _FRACTION.fullmatch(raw)
    parts = fraction.groups() if fraction else re.split(r"[:/]", raw)
    return len(parts) <= 3 and all(_NAME.fullmatch(part.strip()) for part in parts)


def named(term: Term) -> tuple[str, Term]:
    """Splits `x = 5` into its name and its value; no name for anything else."""
    if term.op != "rel":
        return "", term
    signs, sides = term.name.split(), term.args
    if not set(signs) <= {"=", "~", "in", "->"}:
        return "", term
    first, last = sides[0], sides[-1]
    if is_name(first.name):
        exact = [s for s, sign in zip(sides[1:], signs, strict=True) if sign != "~"]
        return first.name, (exact or sides[1:])[-1].args[0]
    if len(sides) == 2 and signs == ["="]:
        if is_name(last.name):
            return last.name, first.args[0]
        if is_numeric(first) and is_numeric(last):
            return "", last.args[0]
        return "", term
    exact = [s for s, sign in zip(sides[1:], signs, strict=True) if sign != "~"]
    return "", (exact or sides[1:])[-1].args[0]


def by_case(term: Term) -> Term:
    """Groups `p = 5, q = 2, p = 7, q = 3` by case, as `;` would; else the term."""
    names = [named(item)[0] for item in term.args]
    count = len(set(names))
    if term.op != "list" or "" in names or not 1 < count < len(names):
        return term
    if len(names) % count or names != names[:count] * (len(names) // count):
        return term
    starts = range(0, len(names), count)
    cases = (Term("list", term.args[at : at + count]) for at in starts)
    return Term("list", tuple(cases))


def letter(name: str) -> str:
    """The letter of a name that is one variable, without its index; else ""."""
    match = re.fullmatch(rf"({_LETTER}){_INDEX}", name.replace(" ", ""))
    return match[1] if match else ""


def spread(term: Term) -> Term:
    """Writes out `±`: a list of both values, in a collection its items."""
    if term.op in ("list", "set"):
        items: list[Term] = []
        for item in term.args:
            whole = spread(item)
            items.extend(whole.args if whole.op == "list" != item.op else (whole,))
        return dataclasses.replace(term, args=tuple(items[: MAX_ITEMS + 1]))
    if term.op == "rel" or not mentions(term, frozenset(["pm", "mp"])):
        return term
    return Term("list", (_signed(term, False), _signed(term, True)))


def _signed(term: Term, minus: bool) -> Term:
    args = tuple(_signed(arg, minus) for arg in term.args)
    if term.op in ("pm", "mp"):
        return Term("neg", args) if minus == (term.op == "pm") else args[0]
    return dataclasses.replace(term, args=args)


FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


@dataclasses.dataclass(frozen=True)
class _Stated:
    """A decimal as somebody wrote it: the place of its last digit, and its digits."""

    unit: Fraction
    digits: int


def stated(term: Term) -> _Stated | None:
    """How precisely a literal is stated; None for integers and anything computed."""
    if term.op in ("neg", "percent", "degree"):
        return stated(term.args[0])
    if term.op == "mul" and term.args[1].op == "pow":  # 1.5 * 10^3
        base, exponent = term.args[1].args
        head = stated(term.args[0])
        sign = -1 if exponent.op == "neg" else 1
        exponent = exponent.args[0] if exponent.op == "neg" else exponent
        if head and base.value == 10 and exponent.op == "num":
            power = sign * exponent.value
            if power.denominator == 1 and abs(power) <= 1_000:
                return _Stated(head.unit * Fraction(10) ** int(power), head.digits)
        return None
    if term.op != "num" or "." not in term.name or "e" in term.name.lower():
        return None
    decimals = len(term.name.partition(".")[2])
    digits = len(term.name.replace(",", "").replace(".", "").lstrip("0"))
    return _Stated(Fraction(1, 10**decimals), digits) if decimals else None


def rounded(
    stated: _Stated | None,
    given: Fraction,
    wanted: _Stated | None,
    expected: Fraction,
) -> bool:
    """Whether one number is the other one, rounded as far as it is stated.

    The expected answer may be the rounded one from three digits on (two where the given
    one is stated to many more); the given one where it is right to one in 10,000.
    """
    gap = abs(given - expected)
    if stated is not None and stated.digits >= 9 and gap <= abs(expected) / 10**8:
        return True  # printed from floating point: 63.99999999
    if wanted is not None and gap <= wanted.unit / 2:
        if stated is None:
            return wanted.digits >= 3 and given.denominator != 1
        much_finer = stated.unit * 1_000 <= wanted.unit
        finer = stated.unit < wanted.unit
        return (finer and wanted.digits >= 3) or (much_finer and wanted.digits >= 2)
    if stated is None:
        return False
    if wanted is not None or expected.denominator == 1:
        return False
    return gap <= stated.unit / 2 and gap * 9_999 <= abs(expected)


def as_fraction(value: Number) -> Fraction:
    """The exact value of a real number's decimals; NumberError far out of range."""
    if isinstance(value, Fraction):
        return value
    size = value.re.adjusted()
    if abs(size) > 2_000:
        raise NumberError("out of range")
    return Fraction(approximate(value).re)


def bare(term: Term, ops: Sequence[str]) -> Term:
    """The term without an outermost percent sign, where `ops` names it."""
    if term.op == "neg":
        return Term("neg", (bare(term.args[0], ops),))
    return term.args[0] if term.op in ops else term


def without_letter(term: Term) -> Term:
    """`5 m` as a number with a unit, where the letter can be one."""
    if term.op == "mul" and is_numeric(term.args[0]):
        letter = term.args[1]
        base = letter.args[0] if letter.op == "pow" else letter
        if base.op == "sym" and base.name in LETTERS:
            exponent = letter.args[1].name if letter.op == "pow" else ""
            unit = read_unit(f"{base.name}^{exponent}" if exponent else base.name)
            return Term("unit", (term.args[0],), unit=unit)
    return term


def infinite(term: Term) -> int:
    """1 for infinity, -1 for minus infinity, else 0."""
    if term.op == "const" and term.name == "inf":
        return 1
    return -infinite(term.args[0]) if term.op == "neg" else 0


def is_set_symbol(term: Term) -> bool:
    """Whether a term is a set such as the real numbers."""
    return term.op == "sym" and term.name.startswith("set ")


def flat(term: Term) -> tuple[Term, ...]:
    """The parts of nested unions."""
    if term.op == "union":
        return flat(term.args[0]) + flat(term.args[1])
    return (term,)


def same_brackets(a: Term, b: Term) -> bool:
    """Whether two tuples may be one: an interval has its own brackets."""
    # Two items may be an interval; longer ones are vectors in either kind.
    return a.name == b.name or (len(a.args) > 2 and {a.name, b.name} <= {"()", "[]"})


def clock(ratio: Term) -> bool:
    """Whether a ratio may be a time of day."""
    return len(ratio.args) == 2 and bool(re.fullmatch("[0-5][0-9]", ratio.args[1].name))


def difference(relation: Term) -> Term:
    """Left side minus right side."""
    left, right = relation.args
    return Term("add", (left, Term("neg", (right,))))


def times(factor: int, term: Term) -> Term:
    """An integer multiple."""
    return Term("mul", (number(Fraction(factor)), term))


def substitute(term: Term, name: str, value: Term) -> Term:
    """The term with a value in the place of a variable."""
    if term.op == "sym":
        return value if term.name == name else term
    args = tuple(substitute(arg, name, value) for arg in term.args)
    return dataclasses.replace(term, args=args)


def renamed(name: str, term: Term) -> Term:
    """The value of `f(t) = ...` with its variable called as in every other one."""
    match = re.fullmatch(r"[^()]+\(([a-zA-Z])\)", name.replace(" ", ""))
    return substitute(term, match[1], symbol("argument")) if match else term


def pairing(table: Sequence[Sequence[bool]]) -> bool:
    """Whether a bipartite graph has a perfect matching (augmenting paths)."""
    partner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(table[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in partner or place(partner[column], seen):
                    partner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))
