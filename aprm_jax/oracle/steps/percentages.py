"""Where a percentage of the problem is taken for a number, or for what comes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import NUMBER
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact
from aprm_jax.oracle.steps.mentions import Mention, value_of
from aprm_jax.oracle.units import singular

_HUNDRED = Fraction(100)
_SHARES = re.compile(
    r"\b(?:new|sale|sales|final|discounted|reduced|increased) (?:price|value|cost"
    r"|salary|amount|population|rent|fare|size|weight|height|number)\b",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    r"\b(?:increas\w+|decreas\w+|discount\w*|off|rais\w+|ris\w+|drop\w*|reduc\w+"
    r"|lower\w*|higher|more|less)\b",
    re.IGNORECASE,
)

_OFF = re.compile(r"%\s?(?:off|discount)|percent (?:off|discount)", re.IGNORECASE)
_PAYS = re.compile(
    r"^(?:(?:So|Then|Thus),? )?[A-Za-z]+ (?:pays?|paid|costs?)\b"
    r"|^(?:(?:So|Then|Thus),? )?[Tt]he price (?:is|was)\b"
)
_CHANGE_ITSELF = re.compile(
    r"\b(?:discount\w*|off|less|fewer|more|extra|sav\w+|reduc\w+|down|tax\w*|tips?|fees?"
    r"|increas\w+|decreas\w+|rais\w+|interest)\b",
    re.IGNORECASE,
)
_ON_TOP = re.compile(r"\b(?:tax\w*|tips?|increas\w+|interest)\b", re.IGNORECASE)
_TOTAL = re.compile(
    r"\b[Tt]he (?:(?:total|final|whole)(?: cost| price| bill| amount)?) (?:is|was)\b"
)
_PERCENT = r"\s?(?:\\?%|percent\b)"
_UP = re.compile(
    rf"\b(?:increas|rais|ris|rose)\w* by (?P<by>{NUMBER}){_PERCENT}"
    rf"|(?<![0-9.])(?P<of>{NUMBER}){_PERCENT} (?:increase|raise|rise|markup)\b",
    re.IGNORECASE,
)
_DOWN = re.compile(
    rf"\b(?:decreas|reduc|lower|drop|fell|discount)\w* by (?P<by>{NUMBER}){_PERCENT}"
    rf"|(?<![0-9.])(?P<of>{NUMBER}){_PERCENT} (?:off|discount|decrease|reduction)\b",
    re.IGNORECASE,
)
_ONE_PERCENT = re.compile(rf"(?<![0-9.])1{_PERCENT}|\b(?:one|each) percent\b", re.I)
_ANY = re.compile(rf"(?<![0-9.])(?P<by>{NUMBER}){_PERCENT}", re.IGNORECASE)
_ARE = re.compile(
    rf"(?<![0-9.])(?P<by>{NUMBER}){_PERCENT}(?: of (?:the |them|all )?[a-z]*)?"
    r" (?:are|were) (?P<name>[a-z]+)",
    re.IGNORECASE,
)
_COMPLEMENTS = {
    word: frozenset([other])
    for pair in ("boy girl", "man woman", "male female", "adult child")
    for word, other in (pair.split(), pair.split()[::-1])
}


def of_percent(
    node: Node,
    known: Mapping[Fraction, tuple[Mention, ...]],
    others: Sequence[Fraction],
    text: str,
) -> str | None:
    """`80 - 15` where the problem takes 15 % off."""
    if _HUNDRED in others or 1 / _HUNDRED in others:
        return None
    percents = {v for v, ms in known.items() if all(m.percent for m in ms)}
    bare = [arg.value for arg in node.args if arg.op == "number"]
    shares = [value for value in bare if value in percents]
    if len(shares) != 1 or any(arg.op == "percent" for arg in node.args):
        return None
    if node.op == "/" and (bare[1:] != shares or _ONE_PERCENT.search(text)):
        return None
    if node.op in "*/" and not (
        len(bare) == 2 and any(v not in percents for v in bare)
    ):
        return None
    if node.op in "*/" and not any(v in known for v in bare if v not in percents):
        return None
    return f"{shares[0]} is a percentage in the problem"


def of_change(
    node: Node, known: Mapping[Fraction, tuple[Mention, ...]], question: str, text: str
) -> str | None:
    """`50 * 0.2` as the new price, where 20 % are taken off."""
    if node.op != "*" or not _is_what_comes(question, text):
        return None
    shares = {v / _HUNDRED for v, ms in known.items() if all(m.percent for m in ms)}
    for arg in node.args:
        try:
            if exact(arg) in shares:
                return "a change in the place of what comes of it"
        except FormulaError:
            continue
    return None


def _is_what_comes(question: str, text: str) -> bool:
    """Whether a step is about what a change leaves: a new price, a total with tax."""
    if _SHARES.search(text) and _CHANGES.search(question):
        return True
    if _CHANGE_ITSELF.search(text):
        return False
    if _OFF.search(question) and _PAYS.search(text):
        return True
    return bool(_ON_TOP.search(question) and _TOTAL.search(text))


def of_direction(
    node: Node, known: Mapping[Fraction, tuple[Mention, ...]], question: str
) -> str | None:
    """`120 * 1.25`, where 25 % are taken off; `800 * 0.9`, where 10 % are added."""
    if node.op != "*":
        return None
    for share, sign in _directions(question).items():
        turned = 1 - sign * share / _HUNDRED
        if turned in known or _HUNDRED * turned in known:
            continue
        if turned in _factors(node):
            return "turns a change of the problem round"
    return None


def of_complement(
    node: Node,
    result: Mention,
    known: Mapping[Fraction, tuple[Mention, ...]],
    question: str,
) -> str | None:
    """`50 * 0.6 = 30 girls`, or `50 * 0.4 = 20 boys`, where 40 % are girls."""
    if node.op != "*":
        return None
    said = [(value_of(m["by"]), singular(m["name"])) for m in _ARE.finditer(question)]
    if len(said) != 1 or said[0][0] is None:
        return None
    share, name = said[0][0] / _HUNDRED, said[0][1]
    factors = _factors(node)
    rest = 1 - share
    if rest in known or rest * _HUNDRED in known or rest == share:
        return None
    if rest in factors and name in result.nouns:
        return f"takes the rest for the {name}s"
    if share in factors and result.nouns & _COMPLEMENTS.get(name, frozenset()):
        return f"takes the {name}s for the rest"
    return None


def _directions(question: str) -> dict[Fraction, int]:
    """The percentages that are added (1) or taken off (-1), and nothing else."""
    found: dict[Fraction, set[int]] = {}
    for pattern, sign in ((_UP, 1), (_DOWN, -1)):
        for match in pattern.finditer(question):
            share = value_of(match["by"] or match["of"])
            if share is not None:
                found.setdefault(share, set()).add(sign)
    every = [value_of(m["by"]) for m in _ANY.finditer(question)]
    return {
        share: min(signs)
        for share, signs in found.items()
        if len(signs) == 1 and every.count(share) == 1
    }


def _factors(node: Node) -> list[Fraction]:
    """The values of the two factors that have one."""
    values = []
    for arg in node.args:
        try:
            values.append(exact(arg))
        except FormulaError:
            continue
    return values
