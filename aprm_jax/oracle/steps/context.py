"""Whether a text counts in its own way: bases, clocks, roundings, what is not so.

There an equation may be right though its figures are not equal, or wrong though they
are, and no reader of figures alone can tell.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import multiple
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.quantities import figures
from aprm_jax.oracle.steps.redefined import redefined
from aprm_jax.oracle.units import everyday

MAX_TEXT = 8_000  # characters that are read of one text

_I = re.IGNORECASE
_NUMBER_WORD = (
    r"(?:[0-9]{1,2}\b|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|sixteen|[bnk]\b)"
)
_BASES = re.compile(
    rf"\bbase[- $]{{0,2}}{_NUMBER_WORD}|\b(?:binary|ternary|quaternary|octal|duodecimal"
    r"|hexa?decimal|hex)\b|[0-9)]_\{?[0-9]{1,2}\b|\bfinite field"
    # A base that is asked for, or told by fingers.
    r"|\b(?:what|which|some|another|different|other|unknown) (?:(?:number|integer"
    r"|numeral) )?bases?\b|\b(?:number|numeral) bases?\b|\bbases? in which\b"
    r"|\bfingers\b[^.]{0,40}\bcount|\bcount\w*\b[^.]{0,40}\bfingers\b",
    _I,
)
_SHAPES = re.compile(
    r"\b(?:height|triang\w+|trapez\w+|pyramid\w*|prism\w*|parallelogram\w*|altitude|log\w*"
    r"|cone|cylinder|exponent\w*)\b",
    _I,
)
# Texts that count modulo something, for sure or perhaps.
_CYCLES = re.compile(
    r"\bclocks?\b|\bo'?clock\b|\bmod(?:ulo|ular arith\w+)?\b"
    r"|\\p?mod\b|\\bmod\b|congruen|≡|\\equiv"
    r"|\bresidues?\b|\\mathbb\s?\{?Z\}?_|\bZ_|\b[Zz]/[0-9]",
    _I,
)
_MAY_CYCLE = re.compile(
    r"[0-9]\s?[ap]\.?m\b|\b(?:noon|midnight|weekdays?|days? of the week|(?:mon|tues"
    r"|wednes|thurs|fri|satur|sun)day|next day|what time|time is it|times? of day"
    r"|[0-9]+:[0-9]{2}"
    r"|cycl\w+|wraps?|starts? over|repeats?|rotat\w+|turns?|degrees|circle|(?:units"
    r"|ones|last) digit|compass|months?|dials?|(?:hour|minute|second|clock'?s?) hands?)"
    r"\b|\\circ|°",
    _I,
)
_PERIODS = tuple(map(Fraction, (7, 10, 12, 24, 60, 360)))
_REMAINDERS = re.compile(
    r"\b(?:remainders?|rem|remains|remaining|quotient|left ?over|left|divides?"
    r"|divisible|whole|full|complete)\b",
    _I,
)
# "How many vans", "how many 8 inch pieces": things of which there is no half.
_HOW_MANY = re.compile(
    r"\bhow many (?:[0-9]+[- ][a-z]+ )?(?P<words>[a-z]+(?: [a-z]+)?)", _I
)
_ROUNDS = re.compile(
    r"\b(?:round\w*|nearest|approximat\w+|about|roughly|around|estimat\w+|truncat\w+"
    r"|ceil\w*|floor|at least|at most|integers? part|close to|almost|nearly|whole)\b"
    r"|\\l?[cf](?:eil|loor)|[⌈⌊~]",
    _I,
)
_NEAREST = re.compile(r"\bnearest (ten|hundred|thousand|million)s?\b", _I)
_SCALED = re.compile(
    r"\b(hundred|thousand|million|billion|dozen|cent|penny|pennie|quarter|dime|nickel)"
    r"s?\b",
    _I,
)
_COINS = 100  # cents, or what coins have of them, are a hundredth of a dollar
# What a step says is not so: then no equation of it is a claim.
_DENIES = re.compile(
    r"\b(?:not (?:be )?(?:so that|true|the case|correct|hold|equal|possible|right"
    r"|valid)|(?:is|are|was|does|do|can|could|did)(?:n't| not)"
    r" (?:hold|equal|true|correct|right)"
    r"|cannot (?:be|hold)|can't be|false|untrue"
    r"|(?:is|was|be|it's) wrong|wrong (?:to|that)|wrongly|incorrect\w*|mistake\w*"
    r"|impossib\w+|absurd\w*|contradict\w*|nonsens\w+|contrary|nobody|no one"
    r"|which fails)\b|\?\s*(?:no|nope|never)\b|\\Rightarrow\s?\\Left",
    _I,
)
# What may be said of a case that is not so: no false equation of it is an error.
_SUPPOSES = re.compile(
    r"\b(?:suppos\w+|assum\w+|would (?:follow|mean|imply|force)|might|cannot"
    r"|instead|imagin\w+|pretend\w*|hypothe\w+|fails?|failed|invalid|otherwise|unless"
    r"|rather than|no solutions?|errors?|tempt\w*|whether)\b|\?|≠|\\neq?\b|!=",
    _I,
)
_SUPPOSED_AT = re.compile(
    r"\b(?:if|say|think|were|let|that would be)\s?\$?\s*$", re.IGNORECASE
)
# What somebody else is said to hold.
_THINKS = (
    r"(?:thinks?|thought|believe[sd]?|claim(?:s|ed)?|argue[sd]?|insist(?:s|ed)?"
    r"|assert(?:s|ed)?|says?|said)"
)
_CLAIMED_AT = re.compile(
    r"(?:\b(?:[A-Z][a-z]+|he|she|they|student|somebody|someone|people)"
    rf" (?:mistakenly |falsely )?{_THINKS}"
    r"|(?:'s|his|her|their) (?:claim|assertion|belief|statement|guess|idea))"
    r"(?: that| of| is|:)?\s?\$?\s*$"
)
_CLAIMED_AFTER = re.compile(
    rf"[^.;!?]*?\bis what \w+ (?:wrote|got|{_THINKS})\b"
    r"|[^.;!?]*?\bneeds? (?:fixing|correct\w+|to be (?:fixed|corrected))"
)
_DENIED_NEAR = re.compile(r"\bnot\b|n't\b|\bnever\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!?](?:\s|$)")
_AGAINST = re.compile(
    r"\b(?:contradiction|contrary|absurd\w*|impossib\w+|irrational|assume not)\b", _I
)


class Signs:
    """What one text says of its own way of counting; each is looked for when asked."""

    def __init__(self, text: str):
        self._text = text

    @functools.cached_property
    def otherwise(self) -> bool:
        """Whether it counts in bases or modulo something, or denies what it states."""
        return self.bases or any(p.search(self._text) for p in (_CYCLES, _DENIES))

    @functools.cached_property
    def bases(self) -> bool:
        """Whether it counts in another base than ten."""
        return bool(_BASES.search(self._text)) and not _SHAPES.search(self._text)

    @functools.cached_property
    def cycles(self) -> bool:
        """Whether it may count round a clock, a week or a circle."""
        return any(p.search(self._text) for p in (_CYCLES, _MAY_CYCLE))

    @functools.cached_property
    def divides(self) -> bool:
        """Whether it may speak of a quotient or remainder."""
        return _REMAINDERS.search(self._text) is not None

    @functools.cached_property
    def counts(self) -> bool:
        """Whether it asks how many things there are, and of no measure (`miles`)."""
        return any(
            not any(map(everyday, match["words"].split()))
            for match in _HOW_MANY.finditer(self._text)
        )

    @functools.cached_property
    def rounds(self) -> int:
        """The unit that it may round to; 0 where it does not."""
        nearest = _NEAREST.search(self._text)
        if nearest is not None:
            return multiple(nearest[1]) or 10
        return 1 if _ROUNDS.search(self._text) else 0

    @functools.cached_property
    def scales(self) -> frozenset[int]:
        """What it may leave out behind a number: `5 * 3 = 15,000` of thousands."""
        said = (match[1] for match in _SCALED.finditer(self._text))
        return frozenset(multiple(word) or _COINS for word in said)

    @functools.cached_property
    def supposes(self) -> bool:
        """Whether it may speak of a case that is not so."""
        return _SUPPOSES.search(self._text) is not None

    @functools.cached_property
    def against(self) -> bool:
        """Whether what follows it may be a proof by contradiction."""
        return _AGAINST.search(self._text) is not None

    @functools.cached_property
    def defined(self) -> frozenset[str]:
        """The operations that it gives a meaning of its own: `a * b = a^2 + b^2`."""
        return redefined(self._text)


@functools.lru_cache(maxsize=1 << 12)
def signs(text: str) -> Signs:
    """The signs of a text."""
    return Signs(text)


class Context:
    """How far the figures of a step can be judged, by what it and its problem say.

    Args:
      question: the problem.
      prefix: the steps before.
      candidate: the step.
    """

    def __init__(self, question: str, prefix: Sequence[str], candidate: str):
        self._text = candidate
        self._own = signs(candidate[:MAX_TEXT])
        self._question = question[:MAX_TEXT]
        self._told = [signs(text[:MAX_TEXT]) for text in (question, *prefix)]

    @property
    def counts_otherwise(self) -> bool:
        """Whether figures that differ, or agree, say nothing at all."""
        return self._own.otherwise or any(signs.bases for signs in self._told)

    def settle(
        self, left: Formula, right: Formula, truth: bool | None, start: int | None
    ) -> bool | None:
        """What is left of an equation's truth here.

        Args:
          left, right: its sides, without variables.
          truth: whether it holds by its figures.
          start: where it stands in the candidate, if known.
        """
        if truth is None or self._says_otherwise(left, right):
            return None
        if truth is False and (self._is_supposed(start) or self._may_hold(left, right)):
            return None
        return truth

    def _says_otherwise(self, left: Formula, right: Formula) -> bool:
        if self.counts_otherwise:
            return True
        defined = frozenset().union(*(s.defined for s in (self._own, *self._told)))
        return any(_uses(side.node, defined) for side in (left, right))

    def _is_supposed(self, start: int | None) -> bool:
        if self._own.supposes or any(signs.against for signs in self._told):
            return True
        if start is None:
            return False
        before, after = self._text[:start], self._text[start:]
        sentence = [m.end() for m in _SENTENCE_END.finditer(before)][-1:] or [0]
        end = _SENTENCE_END.search(after)
        around = before[sentence[0] :] + after[: end.start() if end else None]
        supposed = _SUPPOSED_AT.search(before[-24:]) is not None
        claimed = _CLAIMED_AT.search(before[-60:]) or _CLAIMED_AFTER.match(after)
        return (
            supposed or claimed is not None or _DENIED_NEAR.search(around) is not None
        )

    def _may_hold(self, left: Formula, right: Formula) -> bool:
        """Whether sides that differ are one number by a clock, or when rounded."""
        try:
            a, b = exact(left.node), exact(right.node)
        except FormulaError:
            return False
        every = (self._own, *self._told)
        gap = abs(a - b)
        unit = max(signs.rounds for signs in every)
        if unit and (gap < unit or gap * 20 <= max(abs(a), abs(b))):
            return True
        scales = frozenset().union(*(signs.scales for signs in every))
        if any(a * scale == b or b * scale == a for scale in scales):
            return True
        if any(signs.divides for signs in every) and _divides(left.node, b):
            return True
        if self._counts_whole(left, right):
            return True
        if gap.denominator != 1 or not any(signs.cycles for signs in every):
            return False
        periods = {*_PERIODS, *figures(self._question), *figures(self._text)}
        return any(gap % p == 0 and 0 <= b <= p for p in periods - {a, b} if p > 2)

    def _counts_whole(self, left: Formula, right: Formula) -> bool:
        """Whether a quotient is given in whole things: `30 / 8 = 4` vans."""
        if right.money or not any(signs.counts for signs in self._told):
            return False
        unit = re.match(r"\s*([A-Za-z]+)", self._text[right.end :])
        if unit is not None and everyday(unit[1]):
            return False
        return _is_quotient(left.node, exact(right.node))


def _uses(node: Node, operations: frozenset[str]) -> bool:
    return node.op in operations or any(_uses(arg, operations) for arg in node.args)


def _is_quotient(node: Node, shown: Fraction) -> bool:
    """Whether a number is a quotient without its fraction, or one more."""
    if node.op != "/" or shown.denominator != 1:
        return False
    value = exact(node)
    return value.denominator != 1 and abs(value - shown) < 1


def _divides(node: Node, shown: Fraction) -> bool:
    """Whether a number is the whole quotient, or the remainder, of a division."""
    if node.op != "/" or shown.denominator != 1:
        return False
    try:
        top, bottom = (exact(arg) for arg in node.args)
        return bottom != 0 and shown in (top // bottom, -(-top // bottom), top % bottom)
    except FormulaError:
        return False
