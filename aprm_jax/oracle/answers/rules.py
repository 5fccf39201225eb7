"""What the comparison of answers rests on: names, rounding, `±`, small rewritings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.answers.tokens import Term, is_numeric, number
from aprm_jax.oracle.answers.values import mentions
from aprm_jax.oracle.numerals import MAX_POWER, Stated
from aprm_jax.oracle.units import (
    DEGREE,
    LETTERS,
    PERCENT,
    RADIAN,
    Unit,
    conversion,
    read_unit,
    shift,
)

MAX_ITEMS = 64
SETS = frozenset(["union", "intersection", "difference"])
COLLECTIONS = frozenset(["list", "tuple", "set"])


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a number may be off: either bound suffices."""

    absolute: Fraction | None = None
    relative: Fraction | None = None


def spread(term: Term) -> Term:
    """Writes out `±`: a list of both values, in a collection its items."""
    if term.op in ("list", "set"):
        items: list[Term] = []
        for item in term.args:
            whole = spread(item)
            items.extend(whole.args if whole.op == "list" != item.op else (whole,))
        return dataclasses.replace(term, args=tuple(items[: MAX_ITEMS + 1]))
    if term.op == "rel" and term.name != "!=":
        return term
    if not mentions(term, frozenset(["pm", "mp"])):
        return term
    return Term("list", (_signed(term, False), _signed(term, True)))


def _signed(term: Term, minus: bool) -> Term:
    args = tuple(_signed(arg, minus) for arg in term.args)
    if term.op in ("pm", "mp"):
        return Term("neg", args) if minus == (term.op == "pm") else args[0]
    return dataclasses.replace(term, args=args)


FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def stated(term: Term) -> Stated | None:
    """A decimal as it is written; None for integers and anything computed."""
    if term.op in ("neg", "percent", "degree"):
        inner = stated(term.args[0])
        if inner is None or term.op == "degree":
            return inner
        return inner.scaled(-2) if term.op == "percent" else -inner
    if term.op == "mul" and term.args[1].op == "pow":  # 1.5 * 10^3
        base, exponent = term.args[1].args
        head = stated(term.args[0])
        sign = -1 if exponent.op == "neg" else 1
        exponent = exponent.args[0] if exponent.op == "neg" else exponent
        if head and base.value == 10 and exponent.op == "num":
            power = sign * exponent.value
            if power.denominator == 1 and abs(power) <= MAX_POWER:
                return head.scaled(int(power))
        return None
    digits, _, power = term.name.lower().partition("e")  # 1.5e3
    decimals = len(digits.partition(".")[2]) if term.op == "num" else 0
    if not decimals or not re.fullmatch("[-+]?[0-9]{0,4}", power):
        return None
    return Stated(term.value, decimals - int(power or 0))


def without_percent(term: Term) -> Term:
    """The term without an outermost percent sign; `0.5%` keeps it, as 0.5 is 50 %."""
    if term.op == "neg":
        return Term("neg", (without_percent(term.args[0]),))
    inner = term.args[0] if term.op == "percent" else term
    share = inner.op == "num" and inner.value < 1
    if inner.op == "div" and all(arg.op == "num" for arg in inner.args):
        share = inner.args[0].value < inner.args[1].value
    share = share and term.op == "percent"
    return term.args[0] if term.op == "percent" and not share else term


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


def unit_of(term: Term) -> Unit | None:
    """The unit of a quantity, a percentage or an angle; None for a bare number."""
    if term.op == "neg":
        return unit_of(term.args[0])
    signs = {"percent": PERCENT, "degree": DEGREE}
    if term.op != "unit" or term.unit is None:
        return signs.get(term.op)
    sign = signs.get(term.args[0].op)
    return sign.times(term.unit) if sign else term.unit  # 25% of the apples


def converted(value: Term, unit: Unit | None, other: Unit | None) -> Term:
    """The value of a quantity in another unit that it can be told in."""
    factor, more = conversion(unit, other), shift(unit, other)
    if factor not in (None, 1):
        value = Term("mul", (number(factor), value))
    return Term("add", (value, number(more))) if more else value


def noun(term: Term) -> str:
    """What a quantity counts, where that is no unit: the girls of `5 girls`."""
    if term.op != "unit" or term.unit is None:
        return ""
    counted = term.unit.noun
    return " ".join(
        [*sorted(counted.before), counted.head, *sorted(counted.of)]
    ).strip()


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
    minutes = ratio.args[-1]
    minutes = minutes.args[0] if minutes.op == "unit" else minutes
    return len(ratio.args) == 2 and bool(re.fullmatch("[0-5][0-9]", minutes.name))


def in_base(name: str) -> int | None:
    """The integer that `1011_2` is; None where its digits or its base are none."""
    digits, _, base = name.partition("_")
    try:
        return int(digits, int(base))
    except ValueError:
        return None


def in_radians(angle: Term, other: Term) -> Term:
    """Degrees as the share of pi that they are, where the other one is in radians.

    It is where it says so, or has pi in it.
    """
    if angle.op == "neg":
        inner = in_radians(angle.args[0], other)
        return angle if inner is angle.args[0] else Term("neg", (inner,))
    degrees = angle.op == "unit" and angle.unit == DEGREE
    radians = other.op == "unit" and other.unit == RADIAN
    if not (degrees or angle.op == "degree") or not (radians or _has_pi(other)):
        return angle
    half_turn = Term("div", (Term("const", name="pi"), number(Fraction(180))))
    return Term("mul", (angle.args[0], half_turn))


def in_percent(share: Term, other: Term) -> Term:
    """`5%` as 5 of a unit, where the other one is a number of percent."""
    if other.op != "unit" or other.unit != PERCENT:
        return share
    if share.op == "neg":
        inner = in_percent(share.args[0], other)
        return Term("unit", (Term("neg", inner.args),), unit=PERCENT)
    return Term("unit", share.args, unit=PERCENT) if share.op == "percent" else share


def _has_pi(term: Term) -> bool:
    own = (term.op, term.name) == ("const", "pi")
    angle = term.op == "fn" and term.name.startswith("arc")
    return own or angle or any(map(_has_pi, term.args))


def difference(relation: Term) -> Term:
    """Left side minus right side."""
    left, right = relation.args
    return Term("add", (left, Term("neg", (right,))))


def cleared(term: Term) -> Term:
    """A sum of fractions times its denominators, as written."""
    return _fraction(term)[0]


def _fraction(term: Term) -> tuple[Term, Term]:
    """Numerator and denominator of sums, products and quotients."""
    one = number(Fraction(1))
    if term.op == "side":
        return _fraction(term.args[0])
    if term.op == "neg":
        above, below = _fraction(term.args[0])
        return Term("neg", (above,)), below
    of_two = term.op == "ratio" and len(term.args) == 2
    if term.op not in ("add", "mul", "div") and not of_two:
        return term, one
    (a, b), (c, d) = map(_fraction, term.args)
    if term.op == "mul":
        return _product(a, c), _product(b, d)
    if term.op == "div" or of_two:
        return _product(a, d), _product(b, c)
    if b == d:
        return Term("add", (a, c)), b
    return Term("add", (_product(a, d), _product(c, b))), _product(b, d)


def _product(a: Term, b: Term) -> Term:
    one = number(Fraction(1))
    return b if a == one else a if b == one else Term("mul", (a, b))


def times(factor: int, term: Term) -> Term:
    """An integer multiple."""
    return Term("mul", (number(Fraction(factor)), term))


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
