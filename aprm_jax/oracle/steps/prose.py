"""What the words around an expression say of it: units, labels, parts of it in words.

A run of figures is read as a side of an equation only where its words let it be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from aprm_jax.oracle.numerals import CARDINALS
from aprm_jax.oracle.rounding import agrees
from aprm_jax.oracle.steps.formula import operations, variables
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.tokens import Token
from aprm_jax.oracle.units import everyday, singular

Place = tuple[int, int]  # a run of tokens: the first, and behind the last


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a text."""
    return frozenset(text.split())


# Words that belong to the expression behind them: "half of 10 + 3 = 8".
BEFORE = word_set(
    """of times plus minus over by than divided into from twice half double triple mod
    modulo log ln sin cos tan cot sec csc exp base power to root square cube gcd gcf lcm
    max min"""
)
_AFTER = word_set(
    """times plus minus over divided more less fewer percent hundred thousand million
    billion trillion dozen dozens cent cents mod modulo choose squared cubed factorial
    remainder multiplied"""
)
_NUMBERS = frozenset(CARDINALS) | {"half", "twice", "double", "triple"}
_COMPARED = word_set("more less fewer over times")
_VALUES = _AFTER | {"half", "quarter", "pair", "pairs"}
# "Day 1 = 5 + 3": a number behind another word than these is a label.
_OPENERS = word_set(
    "so then thus get gets have that means since because therefore hence gives give"
)
_PREPOSITIONS = word_set("in per for to at with on every each")
_OF_ONE = word_set("in per every each")  # "24 eggs in 2 trays * 2": a rate
_AGGREGATES = word_set(
    """sum difference product quotient ratio total average mean median divisor multiple
    factor maximum minimum greater larger smaller between"""
)
STEPS = word_set("step part method approach")  # from whose number nothing is taken
_NUMBERED = STEPS | word_set(
    "day week month year case item round question problem section chapter level group"
)
_UNSURE = word_set("s in m second quarter quarters seconds")  # units, or other words


def is_end(token: Token) -> bool:
    """Whether an operand may end with a token."""
    return token.kind in ("number", "variable", "constant", "close") or (
        token.kind == "op" and token.text in ("%", "!", "degrees")
    )


def is_start(token: Token) -> bool:
    """Whether an operand may start with a token."""
    return token.kind in ("number", "variable", "constant", "open", "command")


def is_glued(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word is a factor of the number before it: `3/4Total`."""
    word, before = tokens[at], tokens[at - 1] if at else None
    return (
        word.kind == "word"
        and before is not None
        and before.kind == "number"
        and before.end == word.start
        and word.text != "per"  # a stroke: `$5/box`
        and everyday(word.text) is None
    )


def goes_on(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word changes the value before it: `5 more than x`, not `5 more`."""
    word = tokens[at].text.lower()
    if word not in _AFTER:
        return False
    following = tokens[at + 1 : at + 5]
    if word in ("more", "less", "fewer"):
        return any(t.text == "than" for t in following)
    if word == "times":
        return bool(following) and (
            is_start(following[0]) or following[0].text in ("the", "as", "more")
        )
    return True


def compares(tokens: Sequence[Token], at: int, left: Place | None) -> bool:
    """Whether a word compares what a left side computes: `9 - 4 = 5 more than Ann`.

    Nothing behind it has a value that the number before could be added to, or that it
    could be multiplied with.

    Args:
      tokens: of the text.
      at: the word, behind the number.
      left: the left side's place.
    """
    signs = {t.text for t in tokens[slice(*(left or (0, 0)))] if t.kind == "op"}
    word = tokens[at].text.lower()
    wanted = "-" if word in ("more", "less", "fewer", "over") else "+-*/"
    if word not in _COMPARED or not signs & set(wanted):
        return False
    for token in tokens[at + 1 : at + 24]:
        if token.kind in ("break", "row", "relation"):
            return True
        if token.kind != "word" or token.text.lower() in _NUMBERS | _AGGREGATES:
            return False
    return len(tokens) <= at + 24


def is_mixed(tokens: Sequence[Token], at: int) -> bool:
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


def is_unit(tokens: Sequence[Token], at: int, relation: int | None) -> bool:
    """Whether a word is the unit of the number before it, with more to come.

    Args:
      tokens: of the text.
      at: the word.
      relation: the relation sign that a left side ends at; None on a right side.
    """
    word = tokens[at].text.lower()
    if word in _VALUES or word in BEFORE:
        return False
    start = at
    while start > 0 and at - start < 2 and tokens[start - 1].kind == "word":
        start -= 1
    if start == 0 or not is_end(tokens[start - 1]):
        return False
    if tokens[start].text.lower() in _VALUES | BEFORE | _OPENERS | {"and", "or", "is"}:
        return False
    end = at + 1
    while end < len(tokens) and end - at < 3 and tokens[end].kind == "word":
        end += 1
    if end == relation:
        return True
    return end < len(tokens) and tokens[end].kind == "op" and tokens[end].text in "+-*/"


def is_operand(tokens: Sequence[Token], at: int) -> bool:
    """Whether words before a run bind it to an operator: `angle P + angle Q = 60`."""
    start = at
    while start > 0 and at - start < 4 and tokens[start - 1].kind == "word":
        start -= 1
    if start in (0, at) or tokens[start - 1].kind != "op":
        return False
    sign = tokens[start - 1].text
    if sign == "-":  # else a dash or a list's bullet
        return start > 1 and is_end(tokens[start - 2])
    return sign in "+*/^"


def is_part(tokens: Sequence[Token], place: Place) -> bool:
    """Whether words say that a run is but a part of what is computed.

    `the sum of 3 and 2 * 4`, where 3 is the other part, and a rate such as `24 eggs in
    1 tray * 2 trays`, where 24 is what the trays are multiplied with.
    """
    start, end = place
    if start == 0 or tokens[start - 1].kind != "word":
        return False
    word = tokens[start - 1].text.lower()
    if start > 1 and is_mixed(tokens, start - 1):
        return start < 3 or tokens[start - 3].kind != "relation"
    if word in ("and", "or"):
        return any(t.text.lower() in _AGGREGATES for t in before(tokens, start, ".;:?"))
    if word not in _PREPOSITIONS:
        return False
    if not any(t.kind == "number" for t in before(tokens, start, ".;:?,")):
        return False
    if word in _OF_ONE:
        return True
    first = next(t for t in tokens[start:end] if t.kind != "op")
    named = start + 1 < end and tokens[start + 1].kind == "word"
    return first.kind == "number" and first.value == 1 and named


def is_label(tokens: Sequence[Token], place: Place, left: Formula) -> bool:
    """Whether a left side only names the right one: `Day 1 = 5 + 3`."""
    if operations(left.node) or variables(left.node):
        return False
    if any(t.kind == "word" for t in tokens[place[0] : place[1]]):
        return True
    before = tokens[place[0] - 1] if place[0] else None
    if before is None or before.kind != "word":
        return False
    return before.text.lower() not in _OPENERS


def is_name(tokens: Sequence[Token], relation: int) -> bool:
    """Whether a left side is words alone, which name the right one: `Cost = 5 + 3`."""
    side = []
    for token in reversed(tokens[:relation]):
        if token.kind in ("break", "row", "relation"):
            break
        side.append(token)
    return (
        bool(side)
        and all(token.kind == "word" for token in side)
        and side[0].text.lower() not in _AFTER | BEFORE
    )


def is_marked(tokens: Sequence[Token], at: int) -> bool:
    """Whether a run starts with a number that marks it: `Step 2 - 7 * 8`."""
    if at == 0 or at + 1 >= len(tokens) or tokens[at].kind != "number":
        return False
    dash = tokens[at + 1]
    return (
        tokens[at - 1].kind == "word"
        and tokens[at - 1].text.lower() in _NUMBERED
        and dash.text == "-"
        and dash.spaced
    )


def is_conversion(
    tokens: Sequence[Token], sides: tuple[Formula, Formula], places: Sequence[Place]
) -> bool:
    """Whether two plain numbers only name one quantity: `36 inches = 3 feet`, `1 = 2`.

    Of a chain, `7 = 8`, they do not where their units are the same. Nor does a number
    state the value of a share, `48 = 100% + 20%`, or of money, `16 dimes = 16 * $.1`.
    """
    left, right = sides
    if left.stated is None or operations(left.node):
        return False
    if right.percent and not left.percent and not places:
        return True
    if places and operations(right.node):
        return bool(_unit(tokens, places[0])) and right.stated is None
    if right.stated is None or operations(right.node) or left.percent or right.percent:
        return False
    if len(places) < 2 or sides[0].money != sides[1].money:
        return True
    return _unit(tokens, places[0]) != _unit(tokens, places[1])


def is_restated(
    tokens: Sequence[Token], sides: tuple[Formula, Formula], places: tuple[Place, Place]
) -> bool:
    """Whether one quantity stands on both sides in two units: `36 inches = 3 feet`."""
    x, y = (everyday(_unit(tokens, place)) for place in places)
    a, b = (side.stated for side in sides)
    if a is None or b is None or x is None or y is None or x[0] != y[0]:
        return False
    return agrees(a.value * x[1] / y[1], b) is True


def units_clash(tokens: Sequence[Token], text: str, *places: Place | None) -> bool:
    """Whether two units of one dimension occur: `1 hour - 20 minutes = 40 minutes`."""
    seen: dict[str, set[Fraction]] = {}
    for place in places:
        if place is None:
            continue
        for token in tokens[place[0] : place[1] + 1]:
            if token.kind == "number" and text[token.start - 1 : token.start] == "$":
                seen.setdefault("money", set()).add(Fraction(1))
            if token.kind != "word":
                continue
            if token.text.lower() in ("pm", "am", "o", "clock"):
                return True
            unit = everyday(token.text)
            if unit is not None:
                seen.setdefault(unit[0], set()).add(unit[1])
    if any(len(sizes) > 1 for sizes in seen.values()):
        return True
    return _is_converted(tokens, *places)


def _is_converted(
    tokens: Sequence[Token], left: Place | None = None, right: Place | None = None
) -> bool:
    """Whether one unit stands on the left and another one on the right."""
    if left is None or right is None:
        return False
    a, b = (
        {
            everyday(t.text)
            for t in tokens[x : y + 1]
            if t.kind == "word" and t.text.lower() not in _UNSURE
        }
        - {None}
        for x, y in (left, right)
    )
    return len(a) == 1 and len(b) == 1 and a != b


def is_after(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word, or the one before an article, binds what follows: `to the 29`."""
    words = [
        t.text.lower() for t in tokens[max(0, at - 1) : at + 1] if t.kind == "word"
    ]
    if words and words[-1] in ("the", "his", "her", "their", "its", "those", "these"):
        words.pop()
    return bool(words) and words[-1] in BEFORE


def _unit(tokens: Sequence[Token], place: Place) -> str:
    """The word behind the number of a place, if there is one."""
    for token in tokens[place[0] : place[1] + 1]:
        if token.kind == "word":
            return singular(token.text)
        if token.kind not in ("number", "op"):
            return ""
    return ""


def before(tokens: Sequence[Token], at: int, stops: str) -> Iterator[Token]:
    """The tokens before a place, up to where a clause or a side begins."""
    for token in reversed(tokens[:at]):
        if token.kind in ("relation", "row") or token.text in stops:
            return
        yield token
