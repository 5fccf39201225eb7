"""Finds the signs to which a text gives a meaning of its own: `a * b = a + b + ab`.

Laws that the usual operations obey (`a * b = b * a`) give none; a condition that they
do not obey (`x * y = x + y`) may be a definition, and is taken for one.
"""

from __future__ import annotations

import re

from aprm_jax.oracle.steps.formula import FormulaError, identical
from aprm_jax.oracle.steps.parsing import Formula, parse_formula
from aprm_jax.oracle.steps.tokens import tokenize

MAX_SIDE = 80  # characters that are read of what an operation is said to be

_LETTER = r"(?<![A-Za-z\\])([A-Za-z])"
_BARE_SIGN = r"\*|\+|-|/|\^|×|·|∗|÷|\\cdot|\\times|\\ast|\\div|\\star"
_SIGN = rf"({_BARE_SIGN})"
_OPERATION = re.compile(rf"{_LETTER}\s?{_SIGN}\s?([A-Za-z])(?![A-Za-z])")
_DEFINES = re.compile(
    r"\b(?:defin\w+|operations?|operators?|denot\w+|given by)\b", re.IGNORECASE
)
_MEANS = r"(?:means?|stands? for|represents?|denotes?|signif(?:y|ies))"
_IS = re.compile(rf"\$?\s?(?:=|{_MEANS}\b)[ $]*", re.IGNORECASE)
_SIDE_END = re.compile(
    r"\$|[=,;.](?:\s|$)|(?<![\\A-Za-z])[A-Za-z]{3,}|\s(?:so|is|if)\b"
)
_QUOTES = r"[\"'`$‘’“”]{0,2}"
_TOLD = rf"{_QUOTES}({_BARE_SIGN}|\bx\b){_QUOTES}"
# Signs without letters: `+ means x`, `using * for addition`, `swap + and -`.
_AS = (
    rf"{_QUOTES}(?:{_BARE_SIGN}|x\b|plus|minus|times|add|sum|subtract|differ|multipl|prod"
    r"|divi|quot|pow)"
)
_RENAMES = re.compile(
    r"(?:^|[,;.]|\b(?:if|when|where|and|let|that|signs?|symbols?))\s*"
    rf"{_TOLD} {_MEANS} {_AS}"
    rf"|\b(?:us(?:e|es|ing)|writ(?:e|es|ing)) {_TOLD} (?:for|to mean|instead of) {_AS}",
    re.IGNORECASE,
)
_SWAPS = re.compile(
    r"\b(?:swap|interchang|exchang|switch)\w*(?: the)?(?: signs?| symbols?)?"
    rf" {_TOLD} (?:and|with|for) {_TOLD}"
    rf"|{_TOLD} and {_TOLD}(?: signs?)?(?: are| were| have been)?"
    r" (?:swapp|interchang|exchang|switch)ed",
    re.IGNORECASE,
)
_TREE_OP = {
    **dict.fromkeys(
        ("*", "×", "·", "∗", r"\cdot", r"\times", r"\ast", r"\star", "x"), "*"
    ),
    **dict.fromkeys(("/", "÷", r"\div"), "/"),
}


def redefined(text: str) -> frozenset[str]:
    """The operations (of formula nodes) that a text gives a meaning of its own."""
    found = {
        sign
        for pattern in (_RENAMES, _SWAPS)
        for match in pattern.finditer(text)
        for sign in match.groups()
        if sign
    }
    found |= {m[2] for m in _OPERATION.finditer(text) if _is_defined(text, m)}
    return frozenset(_TREE_OP.get(sign, sign) for sign in found)


def _is_defined(text: str, match: re.Match[str]) -> bool:
    """Whether what follows `a * b` says what it shall be."""
    a, sign, b = match.groups()
    rest = text[match.end() : match.end() + MAX_SIDE]
    if a == b:
        return False
    said = _IS.match(rest)
    if said is None:
        return bool(_DEFINES.search(rest) and _DEFINES.search(text))
    side = _SIDE_END.split(rest[said.end() :], maxsplit=1)[0]
    equates = "=" in said[0]
    if a not in side or b not in side:
        return False
    if equates and sign in "+-" and not _DEFINES.search(text):
        return False  # `x + y = 2x - 3y` is a condition
    return not _is_law(match[0], side)


def _is_law(left: str, right: str) -> bool:
    """Whether the usual operations obey an equation, or it is of the kind that says so.

    A commuted side counts as a law of whatever sign: `x^y = y^x` is a condition.
    """
    if sorted("".join(left.split())) == sorted("".join(right.split())):
        return True
    sides = _formula(left), _formula(right)
    if sides[0] is None or sides[1] is None:
        return False
    return identical(sides[0].node, sides[1].node) is True


def _formula(text: str) -> Formula | None:
    try:
        return parse_formula(tokenize(text), text)
    except FormulaError:
        return None
