"""Splits a step, plain text or LaTeX or both, into mathematical tokens with places.

Anything that is not understood becomes a `bad` token, which makes the formula around it
unreadable and nothing else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from aprm_jax.oracle.numerals import VULGAR, LiteralError, read_literal
from aprm_jax.oracle.steps.formula import FUNCTIONS
from aprm_jax.oracle.units import GLUED, everyday

MAX_TOKENS = 1_500  # of one text; the rest is not read


class Token(NamedTuple):
    """A piece of a text.

    Attributes:
      kind: `number`, `variable`, `constant`, `op`, `open`, `close`, `relation`,
        `command`, `word`, `break`, `row` (a new line), or `bad`.
      text: the operator, name, word, ...; brackets are all `(` and `)`.
      start, end: place in the text.
      spaced: whether white space stands before it.
      soft: whether a `$` or another border of mathematics stands before it.
      math: whether it stands between dollar signs.
      value: of a number.
      decimals: of a number, as it is written.
    """

    kind: str
    text: str
    start: int
    end: int
    spaced: bool = False
    soft: bool = False
    math: bool = False
    value: Fraction = Fraction(0)
    decimals: int = 0


_NUMBER = (
    r"(?:[0-9]{1,3}(?:(?:,|\{,\}|,\\!)[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
)
_SUBSCRIPT = r"(?:_(?:\{[A-Za-z0-9+\-, ]{1,8}\}|[A-Za-z0-9]))?"
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|phi|varphi|psi|omega|sigma|tau|rho"
)
_TOKEN = re.compile(
    r"(?P<space>\s+|\\[,;!: ]|\\(?:left|right|[bB]igg?[lr]?|displaystyle|quad|qquad"
    r"|boxed|hphantom|phantom)(?![A-Za-z])|~|&)"
    rf"|(?P<letters>[A-Za-z]+){_SUBSCRIPT}(?P<prime>')?"
    rf"|(?P<number>{_NUMBER})(?P<ellipsis>\.\.\.|…|\\[lc]?dots)?"
    r"|(?P<row>\\\\|\\(?:begin|end)\s?\{[a-z*]{1,16}\}(?:\{[lcr|]{1,8}\})?)"
    r"|(?P<soft>\$\$?|\\[\[\]()])"
    r"|(?P<currency>\\\$|[€£])"
    r"|\\(?:text|textbf|mathrm|mbox|mathbf|textit|operatorname)\s?"
    r"\{(?P<label>[^{}$\\]{0,60})\}"
    r"|(?P<degree>\^\s?(?:\\circ|\{\s?\\circ\s?\})|°|\\degree(?![A-Za-z]))"
    r"|\\[dtc]?frac\s?(?P<top>[0-9])\s?(?P<bottom>[0-9])"
    r"|\\sqrt\s?\[\s?(?P<index>[2-9])\s?\]|(?P<indexed>\\sqrt\s?\[)"
    r"|\\[dtc]?(?P<command>frac|sqrt|binom)(?![A-Za-z])"
    r"|(?P<function>\\(?:" + "|".join(FUNCTIONS) + r"))(?![A-Za-z])"
    r"|(?P<times>\\(?:cdot|times|ast)(?![A-Za-z])|\*\*?|[×·⋅∙])"
    r"|(?P<over>\\div(?![A-Za-z])|//?|÷)"
    r"|(?P<about>\\(?:approx|simeq)(?![A-Za-z])|≈)"
    r"|(?P<order>\\(?:ne|neq|leq?|geq?|lt|gt|leqslant|geqslant)(?![A-Za-z])"
    r"|<=|>=|!=|[<>≤≥≠])"
    r"|(?P<arrow>\\(?:to|implies|iff|equiv|cong|sim|(?:long)?[rR]ightarrow"
    r"|Leftrightarrow|therefore|because)(?![A-Za-z])|[→⇒≡])"
    r"|(?P<vulgar>[½¼¾⅓⅔])"
    r"|(?P<percent>\\?%)"
    r"|(?P<pi>\\pi(?![A-Za-z])|π)"
    rf"|(?P<greek>\\(?:{_GREEK})(?![A-Za-z]){_SUBSCRIPT})"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|(?P<equal>=)|(?P<op>[-+^!]|[−–—])|(?P<root>√)"
    r"|(?P<break>[.,;:?])"
    r"|(?P<bad>\\[A-Za-z]+|.)",
    re.DOTALL,
)
_ENDINGS = frozenset(["st", "nd", "rd", "th", "pts"])  # 3rd
_RESERVED = frozenset(["sqrt", "log", "gcd", "lcm", "mod", "max", "min", "deg", "det"])
_SIMPLE: dict[str, tuple[str, str | None]] = {
    "row": ("row", ""),
    "times": ("op", "*"),
    "over": ("op", None),
    "percent": ("op", "%"),
    "degree": ("op", "degrees"),
    "op": ("op", None),
    "about": ("relation", "≈"),
    "equal": ("relation", "="),
    "order": ("break", None),
    "arrow": ("break", None),
    "break": ("break", None),
    "pi": ("constant", "pi"),
    "open": ("open", "("),
    "close": ("close", ")"),
    "root": ("command", "sqrt"),
    "index": ("command", None),
    "function": ("command", None),
    "command": ("command", None),
}
_DOLLARS = re.compile(r"(?<!\\)\$\$?")
_MARKUP = re.compile(r"\\[A-Za-z]+|\{[^{}]*\}")
_DIGITS = frozenset("0123456789.")
_SIGNS = (*"=+-*/×÷−", " x")
_PROSE = re.compile(r"[A-Za-z]{4}")
_PLURAL = ("s", "people", "children", "men")  # of what a number may be divided by
_SEPARATORS = re.compile(r"[^0-9.]")
_TIME = re.compile("0[0-9]{2}")  # 0730
_Marks = tuple[bool, bool, bool]  # spaced, soft, math
_CONSTANTS = frozenset("ei")  # to one step Euler's number, a price to another


@functools.lru_cache(maxsize=256)  # one step is read for several ends
def tokenize(text: str) -> tuple[Token, ...]:
    """The tokens of a text, at most `MAX_TOKENS`."""
    dollars = list(_DOLLARS.finditer(text))
    tracked = sum(len(m[0]) for m in dollars) % 2 == 0  # else some of them are money
    money = _money(text, dollars)
    inside = spaced = soft = False
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        group = match.lastgroup or ""
        if group == "space":
            spaced = True
            if "\n" in match[0]:
                found.append(Token("row", "", match.start(), match.end()))
            continue
        if group in ("soft", "currency"):
            if group == "soft":
                turns = tracked and match.start() not in money
                soft, inside = True, inside != turns
            continue
        marks = spaced, soft, inside
        if group in ("letters", "prime"):
            found += _letters(match, marks)
        else:
            found += _read(match, group, marks)
        spaced = soft = False
        if len(found) >= MAX_TOKENS:
            break
    return tuple(_areas(_times(_rates(_articles(found)))))


def _money(text: str, dollars: Sequence[re.Match[str]]) -> set[int]:
    """Where dollar signs stand that are money.

    They are where prose stands between a pair, or an amount and a sign: `$5 = $`.
    """
    found, at = set(), 0
    while at + 1 < len(dollars):
        between = text[dollars[at].end() : dollars[at + 1].start()]
        signed = between[:1] in _DIGITS and between.rstrip().endswith(_SIGNS)
        if signed or _PROSE.search(_MARKUP.sub(" ", between)):
            found.add(dollars[at].start())
            at += 1
        else:
            at += 2
    return found | {m.start() for m in dollars[at:]}


def _read(match: re.Match[str], group: str, marks: _Marks) -> list[Token]:
    start, end = match.span()
    if group in ("number", "ellipsis"):
        digits = _SEPARATORS.sub("", match["number"])
        if match["ellipsis"] or _TIME.match(digits):
            return [Token("bad", match[0], start, end, *marks)]
        try:
            value = read_literal(digits)
        except LiteralError:
            return [Token("bad", digits[:8], start, end, *marks)]
        decimals = len(digits.partition(".")[2])
        return [Token("number", digits, start, end, *marks, value, decimals)]
    if group == "vulgar":
        return [Token("number", match[0], start, end, *marks, VULGAR[match[0]], 9)]
    if group == "bottom":
        if match["bottom"] == "0":
            return [Token("bad", match[0], start, end, *marks)]
        part = Fraction(int(match["top"]), int(match["bottom"]))
        return [Token("number", match[0], start, end, *marks, part, 9)]
    if group == "greek":
        return [Token("variable", match[0], start, end, *marks)]
    if group == "label":
        label = match["label"].strip()
        return [Token("word", label, start, end, *marks)] if label else []
    kind, text = _plain(match, group)
    return [Token(kind, text, start, end, *marks)]


def _plain(match: re.Match[str], group: str) -> tuple[str, str]:
    """Kind and text of a sign or command."""
    shown = match[0]
    if group == "op" and shown in "−–—":
        shown = "-"
    elif group == "times" and shown == "**":
        return "op", "^"
    elif group == "over":
        shown = "//" if shown == "//" else "/"
    elif group == "index":
        shown = f"root {match['index']}"
    elif group == "function":
        shown = shown.lstrip("\\")
    elif group == "command":
        shown = match["command"]
    kind, fixed = _SIMPLE.get(group, ("bad", None))
    return kind, shown if fixed is None else fixed


def _letters(match: re.Match[str], marks: _Marks) -> list[Token]:
    """Words of prose, variables of mathematics."""
    start, end = match.span()
    run, whole = match["letters"], match[0]
    if match.string[max(0, start - 1) : start] in ("'", "’") and not marks[2]:
        return [Token("word", whole, start, end, *marks)]  # of `Ann's`
    if match["prime"] or run in _RESERVED:
        if run == "sqrt" and whole == run:
            return [Token("command", "sqrt", start, end, *marks)]
        follows = match.string[end : end + 1]
        prose = match["prime"] and (follows.isalpha() or len(run) > 1)
        kind = "word" if prose and not marks[2] else "bad"
        return [Token(kind, whole, start, end, *marks)]
    kind = "word"
    if len(run) == 1:
        kind = "constant" if whole in _CONSTANTS else "variable"
    elif whole != run or (run.isupper() and marks[2]):
        kind = "variable"  # AB_1 is a name; AB is a segment, not A times B
    elif len(run) <= 3 and (marks[2] or _glued(match, run)):
        out = []
        for k, letter in enumerate(run):
            kind = "constant" if letter in _CONSTANTS else "variable"
            place = start + k
            here = marks if k == 0 else (False, False, marks[2])
            out.append(Token(kind, letter, place, place + 1, *here))
        return out
    return [Token(kind, whole, start, end, *marks)]


def _glued(match: re.Match[str], run: str) -> bool:
    """Whether letters continue a number or bracket, and are no unit behind it."""
    before = match.string[match.start() - 1] if match.start() else " "
    if before not in "0123456789)}^" or run.isupper():
        return False
    return run not in GLUED and run not in _ENDINGS


def _articles(tokens: Sequence[Token]) -> list[Token]:
    """Makes words of the letters `a`, `A`, `I` that no operator stands beside."""
    out = list(tokens)
    for k, token in enumerate(tokens):
        if token.kind != "variable" or token.text not in ("a", "A", "I") or token.math:
            continue
        before = tokens[k - 1] if k else None
        after = tokens[k + 1] if k + 1 < len(tokens) else None
        glued = before is not None and before.kind == "number" and not token.spaced
        joined = any(
            t is not None
            and (t.kind == "relation" or (t.kind == "op" and t.text in "+-*/^"))
            for t in (before, after)
        )
        if not glued and not joined:
            out[k] = token._replace(kind="word")
    return out


def _times(tokens: Sequence[Token]) -> list[Token]:
    """Reads `3 x 4` as a product: an x between numbers."""
    out = list(tokens)
    for k in range(1, len(tokens) - 1):
        token, before, after = tokens[k], tokens[k - 1], tokens[k + 1]
        if token.text not in ("x", "X") or token.kind != "variable":
            continue
        ended = before.kind in ("number", "close") or before.text == "%"
        ended = ended or _is_measured(out, k - 1)
        opens = after.kind == "open" and token.spaced and after.spaced
        if ended and (after.kind == "number" or opens):
            out[k] = token._replace(kind="op", text="*")
    return out


def _is_measured(tokens: Sequence[Token], at: int) -> bool:
    """Whether a word ends a number's unit: `3 boxes`, `5 pens per box`."""
    unit = at
    while unit > 0 and at - unit < 4 and tokens[unit].kind == "word":
        unit -= 1
    single = at - unit == 1 or any(t.text == "per" for t in tokens[unit:at])
    return unit < at and single and tokens[unit].kind == "number"


def _rates(tokens: list[Token]) -> list[Token]:
    """Reads the stroke of `5 pens/box` as `per`: glued, and a noun in the singular."""
    for k in range(1, len(tokens) - 1):
        before, token, after = tokens[k - 1 : k + 2]
        glued = not token.spaced and not after.spaced
        one = after.kind == "word" and not after.text.lower().endswith(_PLURAL)
        if token.text == "/" and glued and one and before.kind in ("number", "word"):
            tokens[k] = token._replace(kind="word", text="per")
    return tokens


def _areas(tokens: list[Token]) -> list[Token]:
    """Reads `square` of `6 square feet` as part of the unit, not as an operation."""
    out: list[Token] = []
    for token in tokens:
        unit = everyday(token.text) if token.kind == "word" else None
        power = out[-1] if len(out) > 1 else None
        if (
            unit is not None
            and unit[0] == "length"
            and power is not None
            and power.text.lower() in ("square", "cubic")
            and out[-2].kind == "number"
        ):
            text = f"{power.text} {token.text}"
            out[-1] = power._replace(text=text, end=token.end)
        else:
            out.append(token)
    return out
