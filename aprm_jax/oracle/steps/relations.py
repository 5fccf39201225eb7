"""Finds what a step claims: equations, chains of them, and assignments.

A reader that is not sure what a text claims reads nothing: a missed claim costs an
undecidable verdict, an invented one a wrong verdict.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from aprm_jax.oracle.steps.formula import FormulaError, operations, variables
from aprm_jax.oracle.steps.parsing import Formula, parse_formula
from aprm_jax.oracle.steps.tokens import Token, tokenize

MAX_TEXT = 4_000  # characters that are read of one step
MAX_RELATIONS = 24


def _words(text: str) -> list[str]:
    return text.split()


# Words that belong to the expression beside them: "half of 10 + 3 = 8".
_BEFORE = frozenset(
    _words(
        """of times plus minus over by than divided into from twice half double mod
        modulo log base power to"""
    )
)
_AFTER = frozenset(
    _words(
        """times plus minus over divided more less fewer percent hundred thousand
        million billion trillion dozen dozens cent cents mod modulo choose squared cubed
        factorial remainder multiplied"""
    )
)
_VALUES = _AFTER | {"half", "quarter", "pair", "pairs"}
# "Day 1 = 5 + 3": a number behind another word than these is a label.
_OPENERS = frozenset(
    _words(
        """so then thus get gets have has that means is and or since because therefore
        hence gives give find know where with"""
    )
)
_DIMENSIONS = (
    "second sec minute min hour hr day week month year decade",
    "inch in foot feet ft yard mile mm cm m km meter metre centimeter kilometer",
    "ounce oz pound lb ton gram g kg kilogram mg",
    "cup pint quart gallon liter litre ml l teaspoon tablespoon",
    "cent penny nickel dime quarter dollar",
)
_DIMENSION = {word: k for k, words in enumerate(_DIMENSIONS) for word in words.split()}


@dataclasses.dataclass(frozen=True)
class Relation:
    """One side beside another.

    Attributes:
      left, right: the sides.
      sign: `=` or `≈`.
      chained: whether `left` is the right side of the relation before it.
    """

    left: Formula
    right: Formula
    sign: str
    chained: bool

    @property
    def span(self) -> tuple[int, int]:
        """Where it stands in the text."""
        return self.left.start, self.right.end

    @property
    def closed(self) -> bool:
        """Whether it has no variables."""
        return not variables(self.left.node) and not variables(self.right.node)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a step.

    Attributes:
      relations: in order.
      values: right sides of which the left side is words or could not be read:
        `Cost = 15`.
      unread: relation signs with a side that could not be read.
    """

    relations: tuple[Relation, ...]
    values: tuple[Formula, ...]
    unread: int


@functools.lru_cache(maxsize=1 << 11)
def read_relations(text: str) -> Reading:
    """All relations of a step, from its first `MAX_TEXT` characters."""
    text = text[:MAX_TEXT]
    if "=" not in text and "≈" not in text and "approx" not in text:
        return Reading((), (), 0)
    tokens = tokenize(text)
    found: list[Relation] = []
    values: list[Formula] = []
    unread = 0
    last: tuple[int, int] | None = None  # tokens of the right side before
    last_formula: Formula | None = None
    places = [k for k, token in enumerate(tokens) if token.kind == "relation"]
    for k in places[:MAX_RELATIONS]:
        after = _right(tokens, k)
        right = _formula(tokens, after, text)
        before = _left(tokens, k)
        linked = last_formula is not None and (
            before == last or (before is None and _continues(tokens, k, last))
        )
        left = last_formula if linked else _formula(tokens, before, text)
        last, last_formula = after, right
        if left is None or right is None or _units_clash(tokens, before, after):
            unread += 1
            if right is not None:
                values.append(right)
        elif not linked and _is_label(tokens, before, left):
            values.append(right)
        else:
            found.append(Relation(left, right, tokens[k].text, linked))
    return Reading(tuple(found), tuple(values), unread)


def _formula(
    tokens: Sequence[Token], place: tuple[int, int] | None, text: str
) -> Formula | None:
    if place is None:
        return None
    run = [t for t in tokens[place[0] : place[1]] if t.kind not in ("word", "row")]
    try:
        return parse_formula(run, text)
    except FormulaError:
        return None


def _is_end(token: Token) -> bool:
    """Whether an operand may end with a token."""
    return token.kind in ("number", "variable", "constant", "close") or (
        token.kind == "op" and token.text in ("%", "!", "degrees")
    )


def _is_start(token: Token) -> bool:
    return token.kind in ("number", "variable", "constant", "open", "command")


def _apart(before: Token, after: Token) -> bool:
    """Whether two neighbours belong to different formulas."""
    return after.soft and _is_end(before) and _is_start(after)


def _left(tokens: Sequence[Token], k: int) -> tuple[int, int] | None:
    """The run that ends before the relation at `k`; None where there is none."""
    at, depth = k, 0
    while at > 0:
        token = tokens[at - 1]
        if depth == 0 and at < k and _apart(token, tokens[at]):
            break
        if token.kind == "close":
            depth += 1
        elif token.kind == "open":
            if depth == 0:
                break
            depth -= 1
        elif token.kind in ("relation", "row", "break"):
            if depth == 0:
                break
            return None
        elif token.kind == "bad":
            return None
        elif token.kind == "word" and not _is_unit(tokens, at - 1, k):
            if depth or token.text.lower() in _BEFORE:
                return None
            break
        at -= 1
    if depth or at == k:
        return None
    if _is_operand(tokens, at):
        return None
    if tokens[at].kind == "op" and (tokens[at].text != "-" or tokens[at + 1].spaced):
        return None  # the end of a longer expression
    if at > 0 and tokens[at - 1].text == ":" and _digit(tokens, at - 2):
        return None  # a time of day or a ratio
    if at > 0 and tokens[at - 1].text == "," and depth == 0 and _in_list(tokens, at):
        return None
    return at, k


def _is_operand(tokens: Sequence[Token], at: int) -> bool:
    """Whether words before a run bind it to an operator: `angle P + angle Q = 60`."""
    start = at
    while start > 0 and at - start < 4 and tokens[start - 1].kind == "word":
        start -= 1
    if start in (0, at) or tokens[start - 1].kind != "op":
        return False
    sign = tokens[start - 1].text
    if sign == "-":  # else a dash or a list's bullet
        return start > 1 and _is_end(tokens[start - 2])
    return sign in "+*/^"


def _right(tokens: Sequence[Token], k: int) -> tuple[int, int] | None:
    """The run that starts behind the relation at `k`."""
    at, depth = k + 1, 0
    while at < len(tokens):
        token = tokens[at]
        if depth == 0 and at > k + 1 and _apart(tokens[at - 1], token):
            break
        if token.kind == "open":
            following = tokens[at + 1] if at + 1 < len(tokens) else None
            if depth == 0 and following is not None and following.kind == "word":
                if following.text.lower() in ("mod", "modulo", "base"):
                    return None
                break
            depth += 1
        elif token.kind == "close":
            if depth == 0:
                break
            depth -= 1
        elif token.kind in ("relation", "row", "break"):
            if depth:
                return None
            break
        elif token.kind == "bad":
            return None
        elif token.kind == "word":
            if depth or _goes_on(tokens, at) or _is_mixed(tokens, at):
                return None
            if not _is_unit(tokens, at, None):
                break
        at += 1
    if depth or at == k + 1:
        return None
    if at < len(tokens):
        after = tokens[at]
        if after.text == ":" and _digit(tokens, at + 1):
            return None
        if after.text == "," and _digit(tokens, at + 1) and _digit(tokens, at - 1):
            return None  # a list of values
        if after.text in ("<", ">", "≤", "≥"):
            return None
    if tokens[at - 1].text == "!" and _ends_sentence(tokens, at):
        return None  # a factorial or an exclamation
    return k + 1, at


def _goes_on(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word changes the value before it: `5 more than x`, not `5 more`."""
    word = tokens[at].text.lower()
    if word not in _AFTER:
        return False
    following = tokens[at + 1 : at + 5]
    if word in ("more", "less", "fewer"):
        return any(t.text == "than" for t in following)
    if word == "times":
        return bool(following) and (
            _is_start(following[0]) or following[0].text in ("the", "as", "more")
        )
    return True


def _is_mixed(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word is the `and` of `2 and 1/2`."""
    if tokens[at].text != "and" or len(tokens) < at + 4:
        return False
    whole, top, over, bottom = tokens[at - 1], *tokens[at + 1 : at + 4]
    shapes = (whole.kind, top.kind, over.text, bottom.kind)
    return (
        shapes == ("number", "number", "/", "number")
        and whole.decimals == 0
        and top.value < bottom.value
    )


def _ends_sentence(tokens: Sequence[Token], at: int) -> bool:
    return at == len(tokens) or tokens[at].kind in ("word", "row", "variable")


def _digit(tokens: Sequence[Token], at: int) -> bool:
    return 0 <= at < len(tokens) and tokens[at].kind == "number"


def _in_list(tokens: Sequence[Token], at: int) -> bool:
    return _digit(tokens, at - 2) and _digit(tokens, at) and not tokens[at].soft


def _is_unit(tokens: Sequence[Token], at: int, relation: int | None) -> bool:
    """Whether a word is the unit of the number before it, with more to come.

    Args:
      tokens: of the text.
      at: the word.
      relation: the relation sign that a left side ends at; None on a right side.
    """
    word = tokens[at].text.lower()
    if word in _VALUES or word in _BEFORE:
        return False
    start = at
    while start > 0 and at - start < 2 and tokens[start - 1].kind == "word":
        start -= 1
    if start == 0 or not _is_end(tokens[start - 1]):
        return False
    if tokens[start].text.lower() in _VALUES | _BEFORE | _OPENERS:
        return False
    end = at + 1
    while end < len(tokens) and end - at < 3 and tokens[end].kind == "word":
        end += 1
    if end == relation:
        return True
    return end < len(tokens) and tokens[end].kind == "op" and tokens[end].text in "+-*/"


def _continues(tokens: Sequence[Token], k: int, last: tuple[int, int] | None) -> bool:
    """Whether a line that opens with a relation sign goes on from the line before."""
    if last is None:
        return False
    between = tokens[last[1] : k]
    return bool(between) and all(t.kind == "row" for t in between)


def _is_label(
    tokens: Sequence[Token], place: tuple[int, int] | None, left: Formula
) -> bool:
    """Whether a left side only names the right one: `Day 1 = 5 + 3`."""
    if place is None or operations(left.node) or variables(left.node):
        return False
    if any(t.kind == "word" for t in tokens[place[0] : place[1]]):
        return True
    before = tokens[place[0] - 1] if place[0] else None
    if before is None or before.kind != "word":
        return False
    return before.text.lower() not in _OPENERS


def _units_clash(tokens: Sequence[Token], *places: tuple[int, int] | None) -> bool:
    """Whether two units of one dimension occur: `1 hour - 20 minutes = 40 minutes`."""
    seen: dict[int, set[str]] = {}
    for place in places:
        if place is None:
            continue
        for token in tokens[place[0] : place[1] + 1]:
            word = token.text.lower()
            if token.kind != "word":
                continue
            if word in ("pm", "am", "o", "clock"):
                return True
            word = word if word in _DIMENSION else word.removesuffix("s")
            if word in _DIMENSION:
                seen.setdefault(_DIMENSION[word], set()).add(word)
    return any(len(words) > 1 for words in seen.values())
