"""Where a true equation contradicts what the problem says its numbers are.

It knows eight ways: a percentage counted like a number, or taken for what comes of it,
quantities of two dimensions added, a result in another unit than what it was computed
of, a part taken of other things than the result is (or such things added to it), a
product with other things than the step is about, an average over another number than
that of its addends, and a comparison turned round.
Whoever finds none has not shown that the equation means what was asked.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import CARDINALS, NUMBER, LiteralError, read_literal
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact, numbers
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.prose import word_set
from aprm_jax.oracle.units import everyday, singular

MAX_TEXT = 4_000  # characters that are read of one text

_HUNDRED = Fraction(100)
_ROUGHLY = Fraction(1, 10)
_CARDINAL = "|".join(sorted(CARDINALS, key=len, reverse=True))
_MENTION = re.compile(
    rf"(?P<money>[$€£]\s?)?(?<![0-9.])(?P<number>{NUMBER}|\b(?:{_CARDINAL})\b)"
    r"(?P<percent>\s?\\?%|[ -]percent\b)?(?P<words>(?:[ -][A-Za-z]+){0,4})",
    re.IGNORECASE,
)
# Words that end the name of what is counted.
_ENDS = word_set(
    """and or in on at for to from with that who which whose per each every a an the
    is are was were be has have had more less fewer than as times he she they it
    of by if but so then when while after before into out away left long old tall
    wide high deep will would can did do does sells sold costs cost only total
    altogether off"""
)
_MORE_OF = word_set(
    "more other another additional extra"
)  # before a name: no part of it
_NUM = rf"(?:{NUMBER}|{_CARDINAL})"
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
_MULTIPLE = re.compile(
    rf"(?:\b(?P<word>twice|double|thrice|triple|half)\b|\b(?P<by>{_NUM}) times)"
    r"(?: as (?:many|much|[a-z]+))(?: (?P<thing>[a-z]+)\b)?(?: [a-z]+){0,2}?"
    rf" as{_OTHER}",
    re.IGNORECASE,
)
_TIMES_LESS = re.compile(  # "3 times more than" is said of three times and of four
    rf"\b(?P<by>{_NUM}) times (?P<way>{_LESS}){_THAN}{_OTHER}",
    re.IGNORECASE,
)
_COMPARISONS = (_DIFFERENCE, _MULTIPLE, _TIMES_LESS)
_WORDS = {"twice": 2, "double": 2, "thrice": 3, "triple": 3, "half": Fraction(1, 2)}
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_THING = re.compile(r"\b(?:[Tt]he|[Aa]n?|[Hh]er|[Hh]is) ([a-z]+)\b")
_PRONOUN = re.compile(r"\s*(?:He|She|It|They|This|That|Which)\b")
_WHO = re.compile(r"(?:(?:So|Then|Thus|That)\W+)?(?:He|She|It|They|Together)\b", re.I)
_SENTENCE = re.compile(r"(?:(?!,? (?:and|but|while) [A-Z][a-z]+ )[^.;!?])+")
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
_MEAN = re.compile(r"\b(?:average|mean)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Mention:
    """A number that a problem gives, and of what.

    Attributes:
      value: the number.
      percent: whether it is a percentage.
      unit: its dimension and size, or None for things that are counted.
      nouns: the words behind it, singular; empty where there are none.
    """

    value: Fraction
    percent: bool
    unit: tuple[str, Fraction] | None
    nouns: frozenset[str]

    @property
    def dimension(self) -> str | None:
        """Of the unit."""
        return self.unit[0] if self.unit else None


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


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a problem says of its numbers."""

    mentions: dict[Fraction, tuple[Mention, ...]]
    turned: tuple[Turned, ...]


@functools.lru_cache(maxsize=1 << 11)
def read_problem(question: str) -> Problem:
    """The numbers and comparisons of a problem."""
    question = question[:MAX_TEXT]
    mentions: dict[Fraction, tuple[Mention, ...]] = {}
    for mention in _mentions(question):
        mentions[mention.value] = (*mentions.get(mention.value, ()), mention)
    by_noun: dict[str, set[Fraction]] = {}
    for value, found in mentions.items():
        for noun in (n for m in found for n in m.nouns):
            by_noun.setdefault(noun, set()).add(value)
    once = {noun: values.pop() for noun, values in by_noun.items() if len(values) == 1}
    return Problem(mentions, tuple(_turned(question, once)))


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
    found = set().union(*map(_values, prefix))
    subject = _subject_of(text)
    spoken = [t for t in problem.turned if t.name in text or _WHO.match(text)]
    known = {v: m for v, m in problem.mentions.items() if v not in found}
    for side, result, following in sides:
        for node in _operations(side.node):
            reason = (
                _of_percent(node, known, numbers(side.node))
                or _of_dimensions(node, known)
                or _of_comparison(node, spoken)
            )
            if reason is not None:
                return reason
        reason = (
            _of_change(side.node, known, question, text)
            or _of_mean(side.node, text)
            or _of_subject(side.node, subject, problem, found)
        )
        if reason is not None:
            return reason
        one = ("$1 " if result.money else "1 ") + following.strip()
        named = next(_mentions(one), None)
        if named is None or not named.nouns:
            continue
        reason = _of_units(side.node, named, known) or _of_things(
            side.node, named, problem, found
        )
        if reason is not None:
            return reason
    return None


@functools.lru_cache(maxsize=1 << 12)
def _values(line: str) -> frozenset[Fraction]:
    return frozenset(mention.value for mention in _mentions(line[:MAX_TEXT]))


def _mentions(text: str) -> Iterator[Mention]:
    """The numbers of a text."""
    for match in _MENTION.finditer(text):
        value = _value(match["number"])
        if value is None:
            continue
        nouns, words = [], match["words"].lower().replace("-", " ").split()
        for word in words:
            if not nouns and word in _MORE_OF and "than" not in words:
                continue
            if word in _ENDS:
                break
            nouns.append(singular(word))
        units = ["dollar"] if match["money"] else nouns
        unit = next((unit for unit in map(everyday, units) if unit), None)
        yield Mention(value, bool(match["percent"]), unit, frozenset(units))


def _value(text: str) -> Fraction | None:
    if text.lower() in CARDINALS:
        return Fraction(CARDINALS[text.lower()])
    try:
        return read_literal(text)
    except LiteralError:
        return None


def _operations(node: Node) -> Iterator[Node]:
    if node.op in ("+", "-", "*", "/"):
        yield node
    for arg in node.args:
        yield from _operations(arg)


def _of_percent(
    node: Node,
    known: dict[Fraction, tuple[Mention, ...]],
    others: Sequence[Fraction],
) -> str | None:
    """`80 - 15` where the problem takes 15 % off."""
    if node.op == "/" or _HUNDRED in others or 1 / _HUNDRED in others:
        return None
    percents = {v for v, ms in known.items() if all(m.percent for m in ms)}
    bare = [arg.value for arg in node.args if arg.op == "number"]
    shares = [value for value in bare if value in percents]
    if len(shares) != 1 or any(arg.op == "percent" for arg in node.args):
        return None
    if node.op == "*" and not (len(bare) == 2 and any(v not in percents for v in bare)):
        return None
    if node.op == "*" and not any(v in known for v in bare if v not in percents):
        return None
    return f"{shares[0]} is a percentage in the problem"


def _of_change(
    node: Node, known: dict[Fraction, tuple[Mention, ...]], question: str, text: str
) -> str | None:
    """`50 * 0.2` as the new price, where 20 % are taken off."""
    if node.op != "*" or not _SHARES.search(text) or not _CHANGES.search(question):
        return None
    shares = {v / _HUNDRED for v, ms in known.items() if all(m.percent for m in ms)}
    for arg in node.args:
        try:
            if exact(arg) in shares:
                return "a change in the place of what comes of it"
        except FormulaError:
            continue
    return None


def _of_mean(node: Node, text: str) -> str | None:
    """An average of three numbers as a half of their sum."""
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


def _of_dimensions(
    node: Node, known: dict[Fraction, tuple[Mention, ...]]
) -> str | None:
    """`5 + 40` of miles and minutes, `12 + 3` of eggs and dollars."""
    if node.op not in ("+", "-") or any(arg.op != "number" for arg in node.args):
        return None
    both = [known.get(arg.value, ()) for arg in node.args]
    if any(not ms or any(m.percent or not m.nouns for m in ms) for ms in both):
        return None
    a, b = ({m.dimension for m in ms} for ms in both)
    if a & b:
        return None
    return "adds quantities of different kinds"


def _of_comparison(node: Node, turned: Sequence[Turned]) -> str | None:
    values = []
    for arg in node.args:
        try:
            values.append(exact(arg))
        except FormulaError:
            return None
    for wrong in turned:
        by, inverse = wrong.by, 1 / wrong.by if wrong.by else Fraction(0)
        asked = [(wrong.op, wrong.value, by)]
        if wrong.op in "*/":
            asked.append(("/" if wrong.op == "*" else "*", wrong.value, inverse))
        for op, value, other in asked:
            pair = [value, other]
            if node.op == op and (
                values == pair or (op in "+*" and values == pair[::-1])
            ):
                return "turns a comparison of the problem round"
    return None


def _of_units(
    node: Node, result: Mention, known: dict[Fraction, tuple[Mention, ...]]
) -> str | None:
    """`3*80 = $240` of 80 cents, `5 + 300 = 305 m` of 5 km."""
    done = list(_operations(node))
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


def _near(values: Sequence[Fraction], wanted: Fraction) -> bool:
    """Whether one is a conversion's factor; a month has 28 days or 31."""
    return any(abs(value / wanted - 1) <= _ROUGHLY for value in values)


def _of_things(
    node: Node, result: Mention, problem: Problem, found: set[Fraction]
) -> str | None:
    """`12/4 = 3 marbles` of 12 cards, where other numbers count marbles."""
    done, operands = list(_operations(node)), numbers(node)
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


def _turned(question: str, counts: Mapping[str, Fraction]) -> Iterator[Turned]:
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
            if match["thing"] and other.islower() and not match["article"]:
                name, value = match["thing"], counts.get(singular(match["thing"]))
                of_other = counts.get(singular(other))
            else:
                name, value = _subject(sentence[: match.start()], last, known)
                of_other = known.get(other)
                named = bool(other[0].isupper() or match["article"]) or (
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
    yield from (t for t in wrong if (t.op, t.value, t.by) not in right)


_NO_NAMES = word_set(
    "the a an his her their its it he she they him them that this my our"
)
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


def _operation(match: re.Match[str]) -> tuple[str, Fraction | None]:
    """What makes the compared quantity of the other one."""
    groups = match.groupdict()
    if groups.get("word"):
        return "*", Fraction(_WORDS[match["word"].lower()])
    by = _value(match["by"])
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
        numbers_before = [m.value for m in _mentions(before)]
        return "", numbers_before[-1] if numbers_before else None
    if _PRONOUN.match(before):
        numbers_before = [m.value for m in _mentions(last)]
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
        if next(_comparisons(sentence), None) is not None:
            continue
        names, given = _names(sentence), [m.value for m in _mentions(sentence)]
        if len(names) == 1 and len(given) == 1:
            yield names[0], given[0]
