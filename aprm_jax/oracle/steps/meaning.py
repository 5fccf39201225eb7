"""Where a true equation contradicts what the problem says its numbers are.

It knows these ways: a percentage counted like a number, or taken for what comes of it,
or in the other direction; quantities of two dimensions or units added; a result in
another unit than what it was computed of; a part taken of other things than the result
is, or than the problem takes it of (or such things added to it); a product with other
things than the step is about; an average over another number than that of its addends,
or a mere sum; and a comparison turned round.
Whoever finds none has not shown that the equation means what was asked.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import NUMBER, PARTS, format_number
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact, numbers
from aprm_jax.oracle.steps.measures import of_dimensions, of_own_units, of_units
from aprm_jax.oracle.steps.mentions import (
    MAX_TEXT,
    Mention,
    mentions,
    nouns_of,
    operations_of,
    value_of,
    values_of,
)
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.percentages import (
    of_change,
    of_complement,
    of_direction,
    of_percent,
)
from aprm_jax.oracle.steps.turned import Turned, of_comparison, turned
from aprm_jax.oracle.units import singular

_HUNDRED = Fraction(100)
_WHO = re.compile(r"(?:(?:So|Then|Thus|That)\W+)?(?:He|She|It|They|Together)\b", re.I)
_MEAN_IS = re.compile(r"\b(?:average|mean)(?: \w+){0,3} (?:is|was|=)\s*\$?$", re.I)
_INTRODUCED = re.compile(
    r"\b(?:number|count) of (?P<name>[A-Za-z ]+?) (?:is|are|was|were|=)\s*\$?$"
    r"|^\s*(?P<label>[A-Za-z ]+?):\s*\$?$"
)
# "A third of the hens", "20 % of the girls".
_SHARE_OF = re.compile(
    rf"(?:\b(?P<half>half)|\b(?:an?|one)[ -](?P<part>[a-z]+)"
    rf"|(?P<percent>{NUMBER})\s?\\?%|(?P<by>{NUMBER}) percent) of "
    r"(?:the|his|her|their|all(?: the)?) (?P<name>[a-z]+(?: [a-z]+){0,2})",
    re.IGNORECASE,
)
_DOUBLES = re.compile(r"\b(?:half|double|twice)\b", re.IGNORECASE)
_MEAN = re.compile(r"\b(?:average|mean)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a problem says of its numbers."""

    mentions: dict[Fraction, tuple[Mention, ...]]
    turned: tuple[Turned, ...]


@functools.lru_cache(maxsize=1 << 11)
def read_problem(question: str) -> Problem:
    """The numbers and comparisons of a problem."""
    question = question[:MAX_TEXT]
    given: dict[Fraction, tuple[Mention, ...]] = {}
    for mention in mentions(question):
        given[mention.value] = (*given.get(mention.value, ()), mention)
    by_noun: dict[str, set[Fraction]] = {}
    for value, found in given.items():
        for noun in (n for m in found for n in m.nouns):
            by_noun.setdefault(noun, set()).add(value)
    once = {noun: values.pop() for noun, values in by_noun.items() if len(values) == 1}
    return Problem(given, tuple(turned(question, once)))


def conflict(
    question: str,
    prefix: Sequence[str],
    text: str,
    sides: Iterable[tuple[Formula, Formula, str]],
) -> str | None:
    """Why a step's numbers cannot mean what it computes with them; None if they may.

    Args:
      question: the problem.
      prefix: the steps before: what they find counts as any quantity.
      text: the step.
      sides: the expressions of the step, each with its result and what follows that.
    """
    problem = read_problem(question)
    if not problem.mentions:
        return None
    found = set().union(*map(values_of, prefix))
    subject = _subject_of(text)
    spoken = [t for t in problem.turned if t.name in text or _WHO.match(text)]
    known = {v: m for v, m in problem.mentions.items() if v not in found}
    for side, result, following in sides:
        reason = _of_operations(side, text, known, spoken) or (
            of_change(side.node, known, question, text)
            or of_direction(side.node, known, question)
            or _of_mean(side, result, text, following)
            or _of_subject(side.node, subject, problem, found)
            or _of_part(side.node, problem, question, found)
            or _of_siblings(side.node, problem, question, found)
            or _of_result(side, result, text, following, problem, question, found)
        )
        if reason is not None:
            return reason
    return None


def _of_operations(
    side: Formula,
    text: str,
    known: Mapping[Fraction, tuple[Mention, ...]],
    spoken: Sequence[Turned],
) -> str | None:
    """What speaks against one of the operations of an expression."""
    for node in operations_of(side.node):
        reason = (
            of_percent(node, known, numbers(side.node), text)
            or of_dimensions(node, known)
            or of_comparison(node, spoken)
        )
        if reason is not None:
            return reason
    return of_own_units(side, text)


def _of_result(
    side: Formula,
    result: Formula,
    text: str,
    following: str,
    problem: Problem,
    question: str,
    found: set[Fraction],
) -> str | None:
    """What speaks against the name of a result, which follows or introduces it."""
    one = ("$1 " if result.money else "1 ") + following.strip()
    named = next(mentions(one), None)
    if named is None or not named.nouns:
        name = _introduced(text[: side.start])
        if not name:
            return None
        named = Mention(Fraction(1), False, None, frozenset(name))
    known = {v: m for v, m in problem.mentions.items() if v not in found}
    return (
        of_units(side, named, known, question, text)
        or of_complement(side.node, named, known, question)
        or _of_things(side.node, named, problem, found)
    )


def _introduced(before: str) -> list[str]:
    """What is counted by what follows: `The number of hens is`, `Black hens:`."""
    match = _INTRODUCED.search(before)
    return nouns_of(match["name"] or match["label"]) if match else []


def _of_mean(side: Formula, result: Formula, text: str, following: str) -> str | None:
    """An average of three numbers as a half of their sum, or as the sum itself."""
    node = side.node
    summed = node.op == "+" and result.stated is not None and side is not result
    if summed and _MEAN_IS.search(text[: side.start]):
        goes_on = re.match(r"\s*(?:/|÷|,? ?divided|\\div)", following)
        return None if goes_on or "/" in text else "a sum in the place of an average"
    if node.op != "/" or not _MEAN.search(text) or node.args[1].op != "number":
        return None
    addends, here = 1, node.args[0]
    while here.op == "+":
        addends, here = addends + 1, here.args[0]
    if addends < 3 or node.args[1].value == addends:
        return None
    return "divides a sum by another number than that of its addends"


_SUBJECT = re.compile(r"(?:(?:So|Then|Thus),? )?(?:[Tt]he|[Aa]ll|[Ee]ach) ([a-z]+)\b")


def _subject_of(text: str) -> str:
    """What a step is about, `dogs` of `The dogs eat ...`; "" where that is not said."""
    found = _SUBJECT.match(text)
    return singular(found[1]) if found else ""


def _of_subject(
    node: Node, subject: str, problem: Problem, found: set[Fraction]
) -> str | None:
    """`The dogs eat 7 * 2` of 5 dogs and 7 cats."""
    if not subject or node.op != "*" or any(a.op != "number" for a in node.args):
        return None
    operands = [arg.value for arg in node.args]
    counted = [
        v for v, ms in problem.mentions.items() if any(subject in m.nouns for m in ms)
    ]
    if len(counted) != 1 or counted[0] in operands or any(v in found for v in operands):
        return None
    others = [
        m
        for v in operands
        for m in problem.mentions.get(v, ())
        if m.nouns and m.unit is None and subject not in m.nouns
    ]
    return f"computes with what is no number of {subject}s" if others else None


def _of_things(
    node: Node, result: Mention, problem: Problem, found: set[Fraction]
) -> str | None:
    """`12/4 = 3 marbles` of 12 cards, where other numbers count marbles."""
    done, operands = list(operations_of(node)), numbers(node)
    in_parts = _HUNDRED in operands
    if not done or any(
        _is_rate(n, problem) or (n.op == "*" and not (in_parts or _is_part(n)))
        for n in done
    ):
        return None
    every = {v: ms for v, ms in problem.mentions.items() if any(m.nouns for m in ms)}
    counted = {v for v, ms in every.items() if any(result.nouns <= m.nouns for m in ms)}
    if not counted:  # "sick hens" are hens
        counted = {
            v for v, ms in every.items() if any(result.nouns & m.nouns for m in ms)
        }
    if not counted or any(v in found for v in operands):
        return None
    given = {v: problem.mentions[v] for v in operands if v in problem.mentions}
    of_others = [
        v
        for v, ms in given.items()
        if v not in counted and not all(m.percent for m in ms)
    ]
    sums = all(n.op in ("+", "-") for n in done)
    if not of_others or (not sums and counted & set(operands)):
        return None
    if counted <= set(operands) or any(
        not m.nouns or m.percent for v in of_others for m in given[v]
    ):
        return None
    if result.dimension is not None and any(
        m.dimension == result.dimension for v in of_others for m in given[v]
    ):
        return None  # it may be converted
    return f"{' '.join(sorted(result.nouns))} are other numbers of the problem"


def _of_part(
    node: Node, problem: Problem, question: str, found: set[Fraction]
) -> str | None:
    """`12/4` of 12 cards, where a quarter of the 48 marbles is given away."""
    taken = _taken(node)
    if taken is None:
        return None
    whole, share = taken
    given = problem.mentions.get(whole, ())
    if whole in found or not given or share.denominator in problem.mentions:
        return None
    shares = [(s, n) for s, n in _shares(question) if s == share]
    if len(shares) != 1 or any(m.unit or not m.nouns for m in given):
        return None
    percents = [m for m in problem.mentions.get(share * _HUNDRED, ()) if m.percent]
    if len(percents) > 1:  # "50% of the red ones, 50% pink ones"
        return None
    name = shares[0][1]
    while name and not _counting(name, problem):  # "girls" of "girls play chess"
        name = name[:-1]
    of_name = _counting(name, problem) if name else set()
    if not of_name or whole in of_name or len(_DOUBLES.findall(question)) > 1:
        return None
    return f"the part is taken of the {' '.join(name)} in the problem"


def _of_siblings(
    node: Node, problem: Problem, question: str, found: set[Fraction]
) -> str | None:
    """`40 - 10` of 40 pens and 25 pencils, where 10 pencils are taken."""
    if node.op != "-" or any(arg.op != "number" for arg in node.args):
        return None
    whole, part = (arg.value for arg in node.args)
    both = [problem.mentions.get(value, ()) for value in (whole, part)]
    if {whole, part} & found or any(len(ms) != 1 or not ms[0].nouns for ms in both):
        return None
    ours, name = both[0][0], both[1][0]
    if name.unit or ours.unit or ours.nouns & name.nouns:
        return None
    for other in _counting(tuple(name.nouns), problem) - {part}:
        if any(_beside(question, *pair) for pair in ((whole, other), (other, whole))):
            return f"takes {' '.join(sorted(name.nouns))} from something else"
    return None


def _beside(question: str, a: Fraction, b: Fraction) -> bool:
    """Whether two numbers count things side by side: `40 pens and 25 pencils`."""
    first, last = map(format_number, (a, b))
    return (
        re.search(rf"\b{first} [a-z ]{{1,30}}(?:,| and) {last}\b", question) is not None
    )


def _counting(name: Sequence[str], problem: Problem) -> set[Fraction]:
    """The numbers of a problem that count something."""
    given = problem.mentions.items()
    return {v for v, ms in given if any(m.nouns.issuperset(name) for m in ms)}


def _taken(node: Node) -> tuple[Fraction, Fraction] | None:
    """Of `12 / 4`, `12 * 0.25`, `12 * 25 / 100` the whole and the share."""
    if node.op not in ("*", "/"):
        return None
    whole: Node = node
    while whole.op in ("*", "/"):
        whole = whole.args[0]
    if whole.op != "number" or not whole.value:
        return None
    try:
        return whole.value, exact(node) / whole.value
    except FormulaError:
        return None


def _shares(question: str) -> Iterator[tuple[Fraction, tuple[str, ...]]]:
    """The shares that a problem speaks of, and of what they are."""
    for match in _SHARE_OF.finditer(question):
        percent = match["percent"] or match["by"]
        if percent:
            share = (value_of(percent) or Fraction(0)) / _HUNDRED
        else:
            parts = 2 if match["half"] else PARTS.get(match["part"].lower(), 0)
            share = Fraction(1, parts) if parts else Fraction(0)
        name = tuple(nouns_of(match["name"]))
        if share and name:
            yield share, name


def _is_part(node: Node) -> bool:
    """Whether a product takes a share of something."""
    for arg in node.args:
        try:
            value = exact(arg)
        except FormulaError:
            continue
        if 0 < value < 1:
            return True
    return False


def _is_rate(node: Node, problem: Problem) -> bool:
    """Whether a quotient is by something that the problem counts too, or by a part."""
    divisor = node.args[1]
    if node.op != "/":
        return False
    return divisor.value < 1 or any(
        m.nouns for m in problem.mentions.get(divisor.value, ())
    )
