"""Finds the operations that the comparisons of a problem speak against.

Of `Ben has 14 books, twice as many as Amy` hers are 14 / 2; 14 * 2 means nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import NUMBER, PARTS
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact
from aprm_jax.oracle.steps.mentions import CARDINAL, mentions, value_of
from aprm_jax.oracle.steps.prose import word_set
from aprm_jax.oracle.units import singular

_HUNDRED = Fraction(100)
_NUM = rf"(?:{NUMBER}|{CARDINAL})"
_MORE = "more|older|taller|longer|heavier|higher|greater|bigger|larger|faster|farther"
_LESS = "fewer|less|younger|shorter|lighter|lower|smaller|slower"
_THAN = (
    r"\b(?: (?P<thing>[a-z]+)\b)?(?: [a-z]+){0,2}? than(?: (?:the number of|on|in))?"
)
_OTHER = r" (?P<article>(?:the|an?|her|his) )?(?P<other>\w+)"
_DIFFERENCE = re.compile(
    rf"\$?(?<![\d.])(?P<by>{_NUM})\b(?P<percent>\s?\\?%| percent\b)?"
    rf"(?:(?! times\b) [a-z]+){{0,2}}? (?P<way>{_MORE}|{_LESS}){_THAN}{_OTHER}",
    re.IGNORECASE,
)
_TIMES = (
    r"(?:\b(?P<word>twice|double|thrice|triple|half|(?:an?|one)[ -](?:third|quarter"
    rf"|fourth|fifth|sixth|tenth))\b|\b(?P<by>{_NUM}) times)"
)
_MULTIPLE = re.compile(
    rf"{_TIMES}"
    r"(?: as (?:many|much|[a-z]+))(?: (?P<thing>[a-z]+)\b)?(?: [a-z]+){0,2}?"
    rf" as{_OTHER}",
    re.IGNORECASE,
)
# "The number of boys is 4 times the number of girls", "which is twice the number of".
_OF_NUMBER = re.compile(
    r"(?:\bthe number of (?P<thing>[a-z]+)(?: [a-z]+){0,2}? (?:is|was|are|equals) )?"
    rf"{_TIMES} the number of{_OTHER}",
    re.IGNORECASE,
)
# "Twice as many people came on Sunday as on Saturday".
_ON_DAYS = re.compile(
    rf"(?i:{_TIMES}) as (?:many|much)(?: [a-z]+){{1,4}}? (?:on|in|at|during)"
    r" (?P<first>[A-Z]\w+)"
    r" (?:as|than) (?:on|in|at|during) (?P<other>[A-Z]\w+)",
)
_TIMES_LESS = re.compile(  # "3 times more than" is said of three times and of four
    rf"\b(?P<by>{_NUM}) times (?P<way>{_LESS}){_THAN}{_OTHER}",
    re.IGNORECASE,
)
_COMPARISONS = (_DIFFERENCE, _ON_DAYS, _MULTIPLE, _OF_NUMBER, _TIMES_LESS)
# What speaks of the sentence before, or of a person's age.
_THAT = re.compile(
    r"(?P<name>[A-Z][a-z]+) (?:has|had|got|read|ran|made|ate|sold|bought)"
    rf" {_TIMES} that\b(?! of)",
)
_HALF_HER_AGE = re.compile(
    rf"(?P<name>[A-Z][a-z]+)'s [a-z]+ is (?P<value>{NUMBER})(?: years old)?,? {_TIMES}"
    r" (?:her|his|their) age"
)
_WHO_HAS = re.compile(rf"\b([A-Z][a-z]+), who (?:has|had|is|was) ({_NUM})\b")
_PARTS = {
    f"{one} {name}": Fraction(1, parts)
    for name, parts in PARTS.items()
    for one in ("a", "an", "one")
}
_WORDS = {
    **_PARTS,
    "twice": 2,
    "double": 2,
    "thrice": 3,
    "triple": 3,
    "half": Fraction(1, 2),
}
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_THING = re.compile(r"\b(?:[Tt]he|[Aa]n?|[Hh]er|[Hh]is) ([a-z]+)\b")
_PRONOUN = re.compile(r"\s*(?:He|She|It|They|This|That|Which)\b")
_SENTENCE = re.compile(r"(?:(?!,? (?:and|but|while) [A-Z][a-z]+ )[^.;!?])+")


@dataclasses.dataclass(frozen=True)
class Turned:
    """An operation that a comparison in the problem speaks against.

    `14, twice as many as Amy` makes hers 14 / 2, so that 14 * 2 means nothing.

    Attributes:
      op, value, by: the operation.
      name: whose number it would give.
    """

    op: str
    value: Fraction
    by: Fraction
    name: str


def of_comparison(node: Node, turned: Sequence[Turned]) -> str | None:
    """What speaks against an operation that a comparison was turned round for."""
    values = []
    for arg in node.args:
        try:
            values.append(exact(arg))
        except FormulaError:
            return None
    for wrong in turned:
        by, inverse = wrong.by, 1 / wrong.by if wrong.by else Fraction(0)
        asked = [(wrong.op, wrong.value, by)]
        if wrong.op == "*" and _addends(node) == [wrong.value] * int(by) and by >= 2:
            return "turns a comparison of the problem round"  # 14 + 14
        if wrong.op in "*/":
            asked.append(("/" if wrong.op == "*" else "*", wrong.value, inverse))
        for op, value, other in asked:
            pair = [value, other]
            if node.op == op and (
                values == pair or (op in "+*" and values == pair[::-1])
            ):
                return "turns a comparison of the problem round"
    return None


def _addends(node: Node) -> list[Fraction | None]:
    """The numbers that are added; None for what is no plain number."""
    if node.op == "+":
        return [value for arg in node.args for value in _addends(arg)]
    return [node.value if node.op == "number" else None]


def turned(question: str, counts: Mapping[str, Fraction]) -> Iterator[Turned]:
    """The operations that the comparisons of a problem speak against.

    Args:
      question: the problem.
      counts: what is counted by one number alone, and by which.
    """
    sentences = [m[0] for m in _SENTENCE.finditer(question)]
    known = dict(_known(sentences))
    wrong: list[Turned] = []
    right: set[tuple[str, Fraction, Fraction]] = set()
    for last, sentence in zip(["", *sentences], sentences, strict=False):
        for match in _comparisons(sentence):
            other, (op, by) = match["other"], _operation(match)
            if not by or other.lower() in _NO_NAMES:
                continue
            # `5 times as many dogs as cats`
            groups = match.groupdict()
            if match.re is _ON_DAYS:
                name, value = match["first"], known.get(match["first"])
                of_other = known.get(other)
            elif groups.get("thing") and other.islower() and not groups.get("article"):
                name, value = match["thing"], counts.get(singular(match["thing"]))
                of_other = counts.get(singular(other))
            else:
                name, value = _subject(sentence[: match.start()], last, known)
                of_other = known.get(other)
                named = bool(other[0].isupper() or groups.get("article")) or (
                    name == "" and singular(other) not in counts
                )
                if name == other or not named:
                    continue
            if (value is None) == (of_other is None):
                continue
            if value is not None:
                asked, number, way = other, value, op
            else:
                asked, number, way = name, of_other or Fraction(0), _INVERSE[op]
            wrong.append(Turned(way, number, by, asked))
            right.add((_INVERSE[way], number, by))
            # 25 % more than hers is not hers less 25 %.
            if match.re is _DIFFERENCE and match["percent"]:
                wrong.append(Turned("*", number, 2 - by, asked))
        for name, op, by, value in _of_words(sentence, last):
            wrong.append(Turned(_INVERSE[op], value, by, name))
            right.add((op, value, by))
    yield from (t for t in wrong if (t.op, t.value, t.by) not in right)


def _of_words(
    sentence: str, last: str
) -> Iterator[tuple[str, str, Fraction, Fraction]]:
    """Whose number is which operation of what, where one sentence says it all."""
    before = [m.value for m in mentions(last)]
    for match in _THAT.finditer(sentence):
        op, by = _operation(match)
        if by and len(before) == 1:
            yield match["name"], op, by, before[0]
    for match in _HALF_HER_AGE.finditer(sentence):
        op, by = _operation(match)
        value = value_of(match["value"])
        if by and value is not None:
            yield match["name"], _INVERSE[op], by, value


_NO_NAMES = word_set(
    "the a an his her their its it he she they him them that this my our"
)
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


def _operation(match: re.Match[str]) -> tuple[str, Fraction | None]:
    """What makes the compared quantity of the other one."""
    groups = match.groupdict()
    if groups.get("word"):
        return "*", Fraction(_WORDS[match["word"].lower().replace("-", " ")])
    by = value_of(match["by"])
    if match.re is not _DIFFERENCE:
        return ("/" if match.re is _TIMES_LESS else "*"), by
    more = re.fullmatch(_MORE, match["way"], re.IGNORECASE) is not None
    if by is not None and match["percent"]:
        return "*", 1 + by / _HUNDRED * (1 if more else -1)
    return ("+" if more else "-"), by


def _comparisons(sentence: str) -> Iterator[re.Match[str]]:
    for pattern in _COMPARISONS:
        yield from pattern.finditer(sentence)


def _subject(
    before: str, last: str, known: dict[str, Fraction]
) -> tuple[str, Fraction | None]:
    """Of whom a comparison speaks, by the words before it, and what is known of it."""
    clause = before.rpartition(",")[2]
    names = _names(clause)
    if "," in before and not names:
        # `Ben has 14 books, twice as many as ...`
        numbers_before = [m.value for m in mentions(before)]
        return "", numbers_before[-1] if numbers_before else None
    if _PRONOUN.match(before):
        numbers_before = [m.value for m in mentions(last)]
        return "", numbers_before[-1] if len(numbers_before) == 1 else None
    return (names[0], known.get(names[0])) if names else ("", None)


def _names(text: str) -> list[str]:
    """Who or what a text speaks of: `Ben`, the `oak`; people before things."""
    people = [n for n in _NAME.findall(text) if n.lower() not in _NO_NAMES | _OPENERS]
    return people or _THING.findall(text)


_OPENERS = word_set("there how what on in if when each every all some one")


def _known(sentences: Sequence[str]) -> Iterator[tuple[str, Fraction]]:
    """Names with the one number that their sentence gives them."""
    for sentence in sentences:
        for name, number in _WHO_HAS.findall(sentence):
            value = value_of(number)
            if value is not None:
                yield name, value
        if next(_comparisons(sentence), None) is not None:
            continue
        names, given = _names(sentence), [m.value for m in mentions(sentence)]
        if len(names) == 1 and len(given) == 1:
            yield names[0], given[0]
