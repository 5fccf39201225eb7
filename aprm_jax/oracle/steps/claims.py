"""Reads the claims of a step: `<<expr=value>>` annotations, else bare `a + b = c`.

A reader that is not sure what a text claims reads nothing: a missed claim costs an
undecidable verdict, an invented one a wrong verdict.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from aprm_jax.oracle.steps.expression import (
    NUMBER,
    Expression,
    ExpressionError,
    Stated,
    evaluate,
    read_stated,
    terminating,
)

MAX_CLAIMS = 32
MAX_TEXT = 8_000  # characters that are read of one line
_REACH = 200  # characters that a bare expression may stretch from its "="

ANNOTATION = re.compile(r"<<([^<>\n]{0,240})>>")
_ECHO = re.compile(rf"\s?[$€£]?\s?([-−–]?(?:{NUMBER}))")
_BARE = frozenset("0123456789.,+-*/()$€£%^×·÷−– \t")
_STOP = re.compile(r"[,.;]\s+")  # ends a clause; `1,234.5` has no space after
# "half of 10 + 3 = 8": the words before the figures are part of the expression.
_BINDS = frozenset(
    [
        "of",
        "times",
        "plus",
        "minus",
        "over",
        "by",
        "than",
        "divided",
        "into",
        "from",
        "twice",
        "half",
    ]
)
_TIMES = re.compile(r"(?<=[0-9)%])(\s{0,2})[xX](?=\s{0,2}[$€£(.]?[0-9])")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One equation that a step states.

    Attributes:
      left: what is computed.
      stated: its claimed result.
      echo: the result as the text repeats it behind an annotation, if it does.
      lead: the expression as the text spells it before an annotation, if readable.
      text: the claim itself, for messages.
    """

    left: Expression
    stated: Stated
    echo: Stated | None
    lead: Expression | None
    text: str


@dataclasses.dataclass(frozen=True)
class Claims:
    """What was read of a step, and why the rest could not be."""

    read: tuple[Claim, ...]
    unread: tuple[str, ...]


def read_claims(text: str) -> Claims:
    """All claims of a step; bare equalities only where it has no annotation."""
    text = text[:MAX_TEXT]
    if "<<" in text or ">>" in text:
        return _annotated(text)
    return _bare(text)


def holds(claim: Claim) -> bool | None:
    """Whether a claim is true; None for a quotient cut to an integer."""
    verdicts = [agrees(v, claim.stated) for v in claim.left.readings]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def same_value(a: Stated, b: Stated) -> bool:
    """Whether two statements of one quantity agree up to stated rounding."""
    return bool(agrees(a.value, b) or agrees(b.value, a))


def miscopied(claim: Claim) -> str | None:
    """What the text around an annotation says otherwise, or None."""
    if claim.echo is not None and not _echoes(claim, claim.echo):
        return "the text repeats another result than the annotation"
    lead = claim.lead
    if lead is not None and not set(lead.readings) & set(claim.left.readings):
        return "the text computes something else than the annotation"
    return None


def _echoes(claim: Claim, echo: Stated) -> bool:
    percent = Stated(echo.value / 100, echo.decimals + 2)
    exact = *claim.left.readings, claim.stated.value
    return any(
        agrees(value, shown) for value in exact for shown in (echo, percent)
    ) or same_value(claim.stated, echo)


def agrees(value: Fraction, stated: Stated) -> bool | None:
    """Equality up to rounding to the stated decimals; None if cut to an integer.

    With two decimals or more, truncation counts as rounding (2/3 = 0.66).
    """
    gap = abs(value - stated.value)
    if gap == 0:
        return True
    if stated.decimals == 0:
        cut = terminating(value) is None and gap < 1
        return None if cut else False
    if stated.decimals >= 9:  # printed from floating point: 4.800000000000001
        return gap <= abs(value) / 10**9
    unit = Fraction(1, 10**stated.decimals)
    return gap < unit if stated.decimals >= 2 else gap <= unit / 2


def _annotated(text: str) -> Claims:
    read: list[Claim] = []
    unread: list[str] = []
    rest = ANNOTATION.sub("", text)
    if "<<" in rest or ">>" in rest:
        unread.append("an annotation is not closed")
    end = 0
    for count, match in enumerate(ANNOTATION.finditer(text)):
        if count >= MAX_CLAIMS:
            unread.append(f"more than {MAX_CLAIMS} annotations")
            break
        before, end = (
            text[max(end, match.start() - _REACH) : match.start()],
            match.end(),
        )
        left, equals, right = match[1].partition("=")
        stated = read_stated(right)
        if not equals or stated is None:
            unread.append("an annotation states no number")
            continue
        try:
            expression = evaluate(left)
        except ExpressionError as error:
            unread.append(f"an annotation is unreadable: {error}")
            continue
        echo = _echo(text, match.end())
        read.append(Claim(expression, stated, echo, _lead(before), match[0]))
    return Claims(tuple(read), tuple(unread))


def _echo(text: str, at: int) -> Stated | None:
    match = _ECHO.match(text, at)
    if match is None:
        return None
    tail = text[match.end() : match.end() + 2]
    # `>>3/4`, `>>2 1/2`, `>>10:30`, `>>5x`: more than one plain number.
    if re.match(r"[/:^*½¼¾]|\s[0-9+*/x]|-[0-9]|[0-9]", tail):
        return None
    return read_stated(match[1])


def _lead(before: str) -> Expression | None:
    """The expression that `48/2 = <<48/2=24>>` spells before its annotation."""
    before = before.rstrip(" $€£")
    if not before.endswith("="):
        return None
    side = _left_side(_TIMES.sub(r"\1*", before[:-1]))
    lead = _expression(side) if side else None
    return lead if lead is not None and lead.operations else None


def _bare(text: str) -> Claims:
    if "=" not in text:
        return Claims((), ())
    text = _TIMES.sub(r"\1*", text)
    read: list[Claim] = []
    start = 0
    for _ in range(MAX_CLAIMS):
        at = text.find("=", start)
        if at < 0:
            break
        left = _left_side(text[max(start, at - _REACH) : at])
        right = _right_side(text[at + 1 : at + 1 + _REACH])
        start = at + 1
        if not left or not right:
            continue
        claim = _bare_claim(left, right)
        if claim is not None:
            read.append(claim)
    return Claims(tuple(read), ())


def _bare_claim(left: str, right: str) -> Claim | None:
    a, b = _expression(left), _expression(right)
    if a is None or b is None or a.operations + b.operations == 0:
        return None
    shown = read_stated(right.replace("%", ""))
    decimals = shown.decimals if shown else 0 if b.value.denominator == 1 else 9
    stated = Stated(b.bare_value, decimals)
    if b.value != b.bare_value:  # `60% * 40% = 24%`, but also `80 + 10 = 90%`
        share = Stated(b.value, decimals + 2)
        stated = share if agrees(a.value, share) else stated
    return Claim(a, stated, None, None, f"{left.strip()} = {right.strip()}")


def _expression(text: str) -> Expression | None:
    try:
        return evaluate(text)
    except ExpressionError:
        return None


def _left_side(text: str) -> str | None:
    """The expression that ends where `text` does."""
    start = len(text)
    while start > 0 and text[start - 1] in _BARE:
        start -= 1
    side, before = text[start:], text[:start]
    if re.search(r"[0-9],\s+[0-9]", side):  # a list, or a number with a space in it
        return None
    stops = list(_STOP.finditer(side))
    if stops:
        if side[: stops[-1].start()].rstrip().endswith(("+", "-", "*", "/")):
            return None
        side, before = side[stops[-1].end() :], ""
    spaced = side[:1].isspace() or not before
    side = side.strip()
    if re.search(r"[0-9]:$", before):  # a time of day or a ratio
        return None
    if not side or (before and not spaced and before[-1] not in "(:\"'<>="):
        return None
    if side[0] in "+*/^%),." and not re.match(r"\.[0-9]", side):
        return None
    if side[0] in "-−–" and not re.match(r"[-−–][0-9.(]", side):
        return None
    word = re.search(r"([a-z]+)\s*$", before[-16:].lower())
    if word and (word[1] in _BINDS or (len(word[1]) == 1 and word[1] not in "ai")):
        return None  # part of a longer expression, or a variable, or `12 cm x 3`
    return side


def _right_side(text: str) -> str | None:
    """The expression that `text` starts with."""
    end = 0
    while end < len(text) and text[end] in _BARE:
        end += 1
    side, after = text[:end], text[end:]
    stop = _STOP.search(side)
    if stop:
        side, after = side[: stop.start()], ""
    spaced = side[-1:].isspace()
    side = side.strip().rstrip(".,")
    if after[:1] == "(":
        after = ""
    if re.match(r"\s*cents?\b", after):  # `$1 / 2 = 50 cents`: another unit
        return None
    if side.endswith(("/", "(", "-", "–")) and re.match(r"[a-zA-Z]{2}", after):
        side = side.rstrip("/-(– ")  # `6/week`, `5-pound`, `$5 (each)`
        after = ""
    if not side or side[-1] in "+-*/^(−–":
        return None
    # A lone letter is a variable (`= 2x`), unless it is a word (`= 5 a day`).
    letters = re.match(r"[A-Za-z_\\]+", after)
    if letters and len(letters[0]) == 1 and not (spaced and letters[0] in "aAI"):
        return None
    return side
