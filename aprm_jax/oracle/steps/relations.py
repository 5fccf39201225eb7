"""Finds what a step claims: equations, chains of them, and assignments.

A reader that is not sure what a text claims reads nothing: a missed claim costs an
undecidable verdict, an invented one a wrong verdict.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from aprm_jax.oracle.steps.aggregates import leads, listed
from aprm_jax.oracle.steps.formula import FormulaError, variables
from aprm_jax.oracle.steps.parsing import Formula, parse_formula
from aprm_jax.oracle.steps.prose import (
    STEPS,
    Place,
    compares,
    goes_on,
    is_after,
    is_conversion,
    is_end,
    is_glued,
    is_label,
    is_marked,
    is_mixed,
    is_name,
    is_operand,
    is_part,
    is_restated,
    is_start,
    is_unit,
    units_clash,
)
from aprm_jax.oracle.steps.tokens import Token, tokenize

MAX_TEXT = 4_000  # characters that are read of one step
MAX_RELATIONS = 24


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
    last: Place | None = None  # tokens of the right side before
    last_formula: Formula | None = None
    places = [k for k, token in enumerate(tokens) if token.kind == "relation"]
    for k in places[:MAX_RELATIONS]:
        before = _left(tokens, k)
        after = _right(tokens, k, before)
        linked = last_formula is not None and _goes_on_from(tokens, k, before, last)
        left = last_formula if linked else _formula(tokens, before, text)
        if left is None and (found_list := listed(tokens, k, text)) is not None:
            before, left = found_list
        sides = last if linked else before, after
        last, last_formula = after, _formula(tokens, after, text)
        right = last_formula
        if left is None or right is None or _mixes(tokens, text, (left, right), sides):
            unread += right is None or not is_name(tokens, k)
            if right is not None:
                values.append(right)
        elif _claims_nothing(tokens, left, right, sides, linked):
            values.append(right)
        else:
            found.append(Relation(left, right, tokens[k].text, linked))
    return Reading(tuple(found), tuple(values), unread)


def _mixes(
    tokens: Sequence[Token],
    text: str,
    formulas: tuple[Formula, Formula],
    places: tuple[Place | None, Place | None],
) -> bool:
    """Whether two units of one dimension occur, and not as in `36 inches = 3 feet`."""
    if not units_clash(tokens, text, *places):
        return False
    before, after = places
    return (
        before is None
        or after is None
        or not is_restated(tokens, formulas, (before, after))
    )


def _claims_nothing(
    tokens: Sequence[Token],
    left: Formula,
    right: Formula,
    places: tuple[Place | None, Place | None],
    linked: bool,
) -> bool:
    """Whether a left side only names the right one, or both name one quantity."""
    before, after = places
    if before is None or after is None:
        return False
    if linked:
        if left.stated == right.stated:
            return False
        return is_conversion(tokens, (left, right), (before, after))
    return is_label(tokens, before, left) or is_conversion(tokens, (left, right), ())


def read_left_side(text: str) -> Formula | None:
    """The left side of a text that ends in a relation sign; None where it has none."""
    tokens = tokenize(text)
    if not tokens or tokens[-1].kind != "relation":
        return None
    return _formula(tokens, _left(tokens, len(tokens) - 1), text)


def _formula(tokens: Sequence[Token], place: Place | None, text: str) -> Formula | None:
    if place is None:
        return None
    run = [t for t in tokens[place[0] : place[1]] if t.kind not in ("word", "row")]
    try:
        return parse_formula(run, text)
    except FormulaError:
        return None


def _apart(before: Token, after: Token) -> bool:
    """Whether two neighbours belong to different formulas."""
    return after.soft and is_end(before) and is_start(after)


def _left(tokens: Sequence[Token], k: int) -> Place | None:
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
        elif token.kind == "bad" or is_glued(tokens, at - 1):
            return None
        elif token.kind == "word" and not is_unit(tokens, at - 1, k):
            if depth:
                return None
            if is_after(tokens, at - 1) and not leads(tokens, at - 1, k):
                return None
            break
        at -= 1
    if depth or at == k:
        return None
    if is_marked(tokens, at):
        if tokens[at - 1].text.lower() not in STEPS or at + 2 >= k:
            return None  # `Day 10 - 3 = 7`
        at += 2
    if is_operand(tokens, at) or is_part(tokens, (at, k)):
        return None
    if tokens[at].kind == "op" and (tokens[at].text != "-" or tokens[at + 1].spaced):
        return None  # the end of a longer expression
    if at > 1 and tokens[at - 1].text in ("(", ".") and tokens[at - 2].kind == "op":
        return None  # as of `100 + (100 * 2 = 300`, or of `.8 + . 84 = .92`
    if at > 0 and tokens[at - 1].text == ":" and _digit(tokens, at - 2):
        return None  # a time of day or a ratio
    if at > 0 and tokens[at - 1].text == "," and depth == 0 and _in_list(tokens, at):
        return None
    return at, k


def _right(tokens: Sequence[Token], k: int, left: Place | None) -> Place | None:
    """The run that starts behind the relation at `k`, whose left side is at `left`."""
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
            if depth or is_mixed(tokens, at):
                return None
            if goes_on(tokens, at):
                if compares(tokens, at, left):
                    break
                return None
            if is_glued(tokens, at) and at > k + 2:
                return None
            if not is_unit(tokens, at, None):
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


def _ends_sentence(tokens: Sequence[Token], at: int) -> bool:
    return at == len(tokens) or tokens[at].kind in ("word", "row", "variable")


def _digit(tokens: Sequence[Token], at: int) -> bool:
    return 0 <= at < len(tokens) and tokens[at].kind == "number"


def _in_list(tokens: Sequence[Token], at: int) -> bool:
    return _digit(tokens, at - 2) and _digit(tokens, at) and not tokens[at].soft


def _goes_on_from(
    tokens: Sequence[Token], k: int, before: Place | None, last: Place | None
) -> bool:
    """Whether a relation's left side is the right side of the one before.

    That may stand in the line before, where this line opens with a relation sign.
    """
    if last is None:
        return False
    if before is not None:
        return before[0] == last[0]
    between = tokens[last[1] : k]
    return bool(between) and all(t.kind == "row" for t in between)
