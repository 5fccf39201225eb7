"""Where an operation does not fit the units of its numbers, in problem or step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import NUMBER
from aprm_jax.oracle.steps.formula import Node, numbers
from aprm_jax.oracle.steps.mentions import Mention, mentions, operations_of, value_of
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.units import everyday

_ROUGHLY = Fraction(1, 10)
_RATE = re.compile(
    rf"(?P<rate>{NUMBER})(?: [a-z]+)? (?:per|an?|each|every) (?P<per>[a-z]+)", re.I
)
_SPEEDS = frozenset(["mph", "kph"])
_CONVERSIONS = frozenset(map(Fraction, (7, 12, 24, 52, 60, 365)))
_SQUARE = re.compile(r"[a-z]\s?(?:\^|²|\*\*)|\b(?:sq|square)\b", re.IGNORECASE)


def of_dimensions(
    node: Node, known: Mapping[Fraction, tuple[Mention, ...]]
) -> str | None:
    """`5 + 40` of miles and minutes, `12 + 3` of eggs and dollars."""
    if node.op not in ("+", "-") or any(arg.op != "number" for arg in node.args):
        return None
    both = [known.get(arg.value, ()) for arg in node.args]
    if any(not ms or any(m.percent or not m.nouns for m in ms) for ms in both):
        return None
    a, b = ({m.dimension for m in ms} for ms in both)
    if not a & b:
        return "adds quantities of different kinds"
    # Not of money: three quarters and two dimes are five coins.
    if a == b and len(a) == 1 and not a & {None, "money"}:
        x, y = ({m.unit for m in ms} for ms in both)
        if not x & y:
            return "adds quantities in different units"
    return None


def of_own_units(side: Formula, text: str) -> str | None:
    """`12 eggs + 3 dollars`, by the words of the step itself."""
    node, said = side.node, _said(side, text)
    if node.op not in ("+", "-") or any(arg.op != "number" for arg in node.args):
        return None
    if len(said) != 2 or any(m.percent or not m.nouns for m in said):
        return None
    if said[0].dimension == said[1].dimension:
        return None
    return "adds quantities of different kinds"


def _said(side: Formula, text: str) -> list[Mention]:
    """The numbers of an expression with the words that the step has behind them."""
    last = re.match(r"(?: ?[A-Za-z]+){1,3}", text[side.end :])
    return list(mentions(side.text + (last[0] if last else "")))


def of_units(
    side: Formula,
    result: Mention,
    known: Mapping[Fraction, tuple[Mention, ...]],
    question: str,
    text: str,
) -> str | None:
    """Why a result cannot be in the unit that it has; None where it may be."""
    return (
        _of_sizes(side.node, result, known)
        or _of_rate(side.node, result, known, question)
        or _of_own_factors(side, result, known, text)
    )


def _of_sizes(
    node: Node, result: Mention, known: Mapping[Fraction, tuple[Mention, ...]]
) -> str | None:
    """`3*80 = $240` of 80 cents, `5 + 300 = 305 m` of 5 km."""
    done = list(operations_of(node))
    if result.unit is None or not done or any(n.op == "/" for n in done):
        return None
    dimension, size = result.unit
    for term in node.args if node.op in ("+", "-") else (node,):
        factors = numbers(term)
        sizes = {
            m.unit[1]
            for v in factors
            for m in known.get(v, ())
            if m.unit and m.unit[0] == dimension
        }
        by = {ratio for s in sizes for ratio in (s / size, size / s)}
        if sizes and size not in sizes and not any(_near(factors, r) for r in by):
            return "the result has another unit than what it is computed of"
    return None


def _of_rate(
    node: Node,
    result: Mention,
    known: Mapping[Fraction, tuple[Mention, ...]],
    question: str,
) -> str | None:
    """`60 * 3 = 180 hours`, and `60 / 3 = 20 miles`, of 60 miles per hour."""
    if node.op not in ("*", "/") or any(arg.op != "number" for arg in node.args):
        return None
    a, b = (arg.value for arg in node.args)
    for rate, other in ((a, b), (b, a))[: 2 if node.op == "*" else 1]:
        per, of = _per(question, rate), known.get(rate, ())
        amounts = {m.unit for m in known.get(other, ())}
        if per is None or amounts != {per} or len(of) != 1 or of[0].unit in (None, per):
            continue
        is_speed = bool(result.nouns & _SPEEDS)
        if node.op == "*" and (is_speed or result.unit == per):
            return "the result has another unit than what it is computed of"
        if node.op == "/" and result.unit == of[0].unit:
            return "divides a rate by what it has to be multiplied with"
    return None


def _per(question: str, rate: Fraction) -> tuple[str, Fraction] | None:
    """Of what one is meant in `60 miles per hour`, `$15 an hour`."""
    found = {
        everyday(match["per"])
        for match in _RATE.finditer(question)
        if value_of(match["rate"]) == rate
    }
    return found.pop() if len(found) == 1 else None


def _of_own_factors(
    side: Formula,
    result: Mention,
    known: Mapping[Fraction, tuple[Mention, ...]],
    text: str,
) -> str | None:
    """`5 ft * 3 ft = 15 ft`, `2 hours * 60 = 120 hours`, by the step's own words."""
    node, said = side.node, _said(side, text)
    if node.op != "*" or any(arg.op != "number" for arg in node.args):
        return None
    if result.unit is None or len(said) != 2 or _SQUARE.search(text):
        return None
    units = [mention.unit for mention in said]
    if units == [result.unit] * 2 and result.dimension == "length":
        return "a product of two lengths is no length"
    for unit, other in (units, units[::-1]):
        factor = next((m.value for m in said if m.unit is None), None)
        converts = factor in _CONVERSIONS and factor not in known
        converts = converts and result.dimension == "time"
        if unit == result.unit and other is None and converts:
            return "converts, and keeps the unit"
    return None


def _near(values: Sequence[Fraction], wanted: Fraction) -> bool:
    """Whether one is a conversion's factor; a month has 28 days or 31."""
    return any(abs(value / wanted - 1) <= _ROUGHLY for value in values)
