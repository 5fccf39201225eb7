"""Where a true equation contradicts what the problem says its numbers are.

It knows four ways: a percentage counted like a number, quantities of two dimensions
added, a part taken of other things than the result is, and a comparison turned round.
Whoever finds none has not shown that the equation means what was asked.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import CARDINALS, NUMBER, LiteralError, read_literal
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact, numbers
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.prose import word_set
from aprm_jax.oracle.units import everyday, singular

MAX_TEXT = 4_000  # characters that are read of one text

_HUNDRED = Fraction(100)
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
_NUM = rf"(?:{NUMBER}|{_CARDINAL})"
_MORE = "more|older|taller|longer|heavier|higher|greater|bigger|larger|faster|farther"
_LESS = "fewer|less|younger|shorter|lighter|lower|smaller|slower"
_DIFFERENCE = re.compile(
    rf"\$?\b(?P<by>{_NUM})\b(?: [a-z]+){{0,2}}? (?P<way>{_MORE}|{_LESS})\b"
    r"(?: [a-z]+){0,3}? than (?P<other>\w+)",
    re.IGNORECASE,
)
_MULTIPLE = re.compile(
    rf"(?:\b(?P<word>twice|double|thrice|triple|half)\b|\b(?P<by>{_NUM}) times)"
    r"(?: as (?:many|much|[a-z]+))(?: [a-z]+){0,3}? as (?P<other>\w+)",
    re.IGNORECASE,
)
_WORDS = {"twice": 2, "double": 2, "thrice": 3, "triple": 3, "half": Fraction(1, 2)}
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_PRONOUN = re.compile(r"\s*(?:He|She|It|They|This|That|Which)\b")
_WHO = re.compile(r"(?:(?:So|Then|Thus|That)\W+)?(?:He|She|It|They|Together)\b", re.I)
_SENTENCE = re.compile(r"[^.;!?]+")


@dataclasses.dataclass(frozen=True)
class Mention:
    """A number that a problem gives, and of what.

    Attributes:
      value: the number.
      percent: whether it is a percentage.
      dimension: of its unit, or None for things that are counted.
      nouns: the words behind it, singular; empty where there are none.
    """

    value: Fraction
    percent: bool
    dimension: str | None
    nouns: frozenset[str]


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
    counted = frozenset(n for ms in mentions.values() for m in ms for n in m.nouns)
    return Problem(mentions, tuple(_turned(question, counted)))


def conflict(
    question: str,
    prefix: Sequence[str],
    text: str,
    sides: Iterable[tuple[Formula, str]],
) -> str | None:
    """Why a step's numbers cannot mean what it computes with them; None if they may.

    Args:
      question: the problem.
      prefix: the steps before: what they find counts as any quantity.
      text: the step.
      sides: the expressions of the step, each with the text that follows its result.
    """
    problem = read_problem(question)
    if not problem.mentions:
        return None
    found = set().union(*map(_values, prefix))
    spoken = [t for t in problem.turned if t.name in text or _WHO.match(text)]
    known = {v: m for v, m in problem.mentions.items() if v not in found}
    for side, following in sides:
        for node in _operations(side.node):
            reason = (
                _of_percent(node, known, numbers(side.node))
                or _of_dimensions(node, known)
                or _of_comparison(node, spoken)
            )
            if reason is not None:
                return reason
        reason = _of_things(side.node, following, problem, found)
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
        nouns = []
        for word in match["words"].replace("-", " ").split():
            if word.lower() in _ENDS:
                break
            nouns.append(singular(word))
        units = ["dollar"] if match["money"] else nouns
        size = next((unit[0] for unit in map(everyday, units) if unit), None)
        names = frozenset(["dollar"] if match["money"] else nouns)
        yield Mention(value, bool(match["percent"]), size, names)


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


def _of_things(
    node: Node, following: str, problem: Problem, found: set[Fraction]
) -> str | None:
    """`12/4 = 3 marbles` of 12 cards, where other numbers count marbles."""
    done = [n for n in _operations(node)]
    if not done or any(n.op == "*" or _is_rate(n, problem) for n in done):
        return None
    first = next(_mentions("1 " + following.strip()), None)
    if first is None or not first.nouns:
        return None
    nouns, operands = first.nouns, numbers(node)
    counted = [
        v for v, ms in problem.mentions.items() if any(nouns <= m.nouns for m in ms)
    ]
    if not counted or any(v in counted or v in found for v in operands):
        return None
    given = [problem.mentions[v] for v in operands if v in problem.mentions]
    if not given or any(not m.nouns or m.percent for ms in given for m in ms):
        return None
    if first.dimension is not None and any(
        m.dimension == first.dimension for ms in given for m in ms
    ):
        return None  # it may be converted
    return f"{' '.join(sorted(nouns))} are other numbers of the problem"


def _is_rate(node: Node, problem: Problem) -> bool:
    """Whether a quotient is by something that the problem counts too, or by a part."""
    divisor = node.args[1]
    if node.op != "/":
        return False
    return divisor.value < 1 or any(
        m.nouns for m in problem.mentions.get(divisor.value, ())
    )


def _turned(question: str, counted: frozenset[str]) -> Iterator[Turned]:
    """The operations that the comparisons of a problem speak against.

    Args:
      question: the problem.
      counted: what its numbers count.
    """
    sentences = [m[0] for m in _SENTENCE.finditer(question)]
    known = dict(_known(sentences))
    wrong: list[Turned] = []
    right: set[tuple[str, Fraction, Fraction]] = set()
    for last, sentence in zip(["", *sentences], sentences, strict=False):
        for match in (*_DIFFERENCE.finditer(sentence), *_MULTIPLE.finditer(sentence)):
            name, value = _subject(sentence[: match.start()], last, known)
            other, (op, by) = match["other"], _operation(match)
            named = other[0].isupper() or (
                name == "" and singular(other) not in counted
            )
            if not by or name == other or not named or other.lower() in _NO_NAMES:
                continue
            if value is not None and other not in known:
                wrong.append(Turned(op, value, by, other))
                right.add((_INVERSE[op], value, by))
            elif value is None and other in known:
                wrong.append(Turned(_INVERSE[op], known[other], by, name))
                right.add((op, known[other], by))
    yield from (t for t in wrong if (t.op, t.value, t.by) not in right)


_NO_NAMES = word_set(
    "the a an his her their its it he she they him them that this my our"
)
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


def _operation(match: re.Match[str]) -> tuple[str, Fraction | None]:
    """What makes the compared quantity of the other one."""
    groups = match.groupdict()
    if groups.get("way"):
        op = "+" if re.fullmatch(_MORE, match["way"], re.IGNORECASE) else "-"
        return op, _value(match["by"])
    if match["word"]:
        return "*", Fraction(_WORDS[match["word"].lower()])
    return "*", _value(match["by"])


def _subject(
    before: str, last: str, known: dict[str, Fraction]
) -> tuple[str, Fraction | None]:
    """Of whom a comparison speaks, by the words before it, and what is known of it."""
    clause = before.rpartition(",")[2]
    names = _NAME.findall(clause)
    if "," in before and not names:
        # `Ben has 14 books, twice as many as ...`
        numbers_before = [m.value for m in _mentions(before)]
        return "", numbers_before[-1] if numbers_before else None
    if _PRONOUN.match(before):
        numbers_before = [m.value for m in _mentions(last)]
        return "", numbers_before[-1] if len(numbers_before) == 1 else None
    return (names[0], known.get(names[0])) if names else ("", None)


def _known(sentences: Sequence[str]) -> Iterator[tuple[str, Fraction]]:
    """Names with the one number that their sentence gives them."""
    for sentence in sentences:
        plain = _MULTIPLE.sub(" ", _DIFFERENCE.sub(" ", sentence))
        if plain != sentence:
            continue
        names, given = _NAME.findall(plain), [m.value for m in _mentions(plain)]
        if len(names) == 1 and len(given) == 1:
            yield names[0], given[0]
