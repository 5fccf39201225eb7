"""Terms, and the tokens that they are read from.

A term is an operator with arguments; sequences, sets, relations and unions of sets are
terms too. Model text is hostile, so the number of tokens and the depth are bounded.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from aprm_jax.oracle.numerals import LiteralError, read_literal
from aprm_jax.oracle.units import Unit

MAX_CHARS = 2_000
MAX_TOKENS = 600
MAX_DEPTH = 30
MAX_LINKS = 250  # operators of one answer, for they nest to the left
MAX_DIGITS = 400


class TermError(ValueError):
    """A text is no mathematics that we read, or is beyond a limit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Term:
    """An operator with its arguments.

    Attributes:
      op: `num`, `sym`, `text`, an arithmetic operator, `fn`, a collection (`tuple`,
        `set`, `list`, `matrix`), `rel`, a set operator, or `unit`.
      args: the arguments, in order.
      value: the value of a literal.
      name: of a symbol, function or relation; the spelling of a literal; the
        brackets of a tuple.
      unit: of a `unit` term.
    """

    op: str
    args: tuple[Term, ...] = ()
    value: Fraction = Fraction(0)
    name: str = ""
    unit: Unit | None = None


_TOKEN = re.compile(
    r"(?P<num>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
    r"|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?P<exp>[eE][-+]?[0-9]+(?![A-Za-z0-9]))?"
    r"|(?P<cmd>\\(?:[a-zA-Z]+|[\\{}|%$&#_]))"
    r"|(?P<word>[A-Za-zα-ωΑ-Ω]+)"
    r"|(?P<op><=|>=|!=|[-+*/^_=<>(){}\[\]|,;:!%&'$])"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WRAPPERS = _words(
    "text textbf textit textrm textnormal mbox mathrm mathbf mathit mathsf rm bf "
    "bold operatorname boldsymbol textsf hbox emph mathcal underline"
)
OVER = _words("overline hat vec bar widehat overrightarrow tilde dot")
FUNCTIONS = _words(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh exp ln log "
    "lg arcsinh arccosh arctanh arcsec arccsc sech csch coth max min gcd lcm floor "
    "ceil sqrt abs sgn cis"
)
ALIASES = {
    "arsinh": "arcsinh",
    "arcosh": "arccosh",
    "artanh": "arctanh",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "cosec": "csc",
    "tg": "tan",
    "ctg": "cot",
    "arctg": "arctan",
    "ceiling": "ceil",
    "surd": "sqrt",
    **{f"a{name}": f"arc{name}" for name in _words("cot sec csc sinh cosh tanh")},
    "exponentialE": "e",
    "imaginaryI": "i",
}
INVERSE = {
    name: f"arc{name}" for name in _words("sin cos tan cot sec csc sinh cosh tanh")
}
CONSTANTS = {"pi": "pi", "π": "pi", "infty": "inf", "infinity": "inf", "inf": "inf"}
RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    "<=": "<=",
    ">=": ">=",
    "!=": "!=",
    "le": "<=",
    "leq": "<=",
    "leqslant": "<=",
    "ge": ">=",
    "geq": ">=",
    "geqslant": ">=",
    "lt": "<",
    "gt": ">",
    "ne": "!=",
    "neq": "!=",
    "approx": "~",
    "simeq": "~",
    "sim": "~",
    "in": "in",
    "equiv": "=",
    "coloneqq": "=",
    "to": "->",
    "rightarrow": "->",
    "mapsto": "->",
    "implies": "->",
    "Rightarrow": "->",
}
GREEK = _words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa "
    "lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta "
    "Theta Lambda Xi Sigma Phi Psi Omega hbar ell odot nabla partial mho aleph"
)
MATRICES = _words("pmatrix bmatrix matrix array vmatrix smallmatrix Bmatrix Vmatrix")
UNREAD = _words(
    "iint oint lim limsup liminf end cases ldots cdots dots vdots ddots hline "
    "stackrel overset underset underbrace overbrace substack ce displaylines"
)
# Words that are a set of real numbers, as `plain` spells them.
EMPTY = _words(
    "nosolution nosolutions norealsolution norealsolutions emptyset none noroots "
    "thereisnosolution therearenosolutions therearenorealsolutions nosolutionexists "
    "nosolutionsexist (nosolution) norealroots nosuchnumberexists nosuchxexists nullset"
)
ELEMENT = "element"  # of a set that is given by a condition
REALS = _words("allrealnumbers allreals realnumbers anyrealnumber allrealnumber")
PERCENT = _words("percent pct percentage percents")
JOINING = _words("and or or, and, & where with")
FUNCTION_LETTERS = frozenset("fghFGHPW")  # f(x) is one name, n(n+1) a product


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A number, word, command, operator or `\\text{...}`, and where it stands."""

    kind: str
    text: str
    start: int
    end: int
    spaced: bool


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned answer; TermError for a strange sign or too many."""
    found: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        if text[at].isspace():
            at, spaced = at + 1, True
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise TermError(f"unexpected character {text[at]!a}")
        kind = match.lastgroup or ""
        kind = "num" if kind == "exp" else kind
        body, end = match[0], match.end()
        if kind == "cmd":
            body = body[1:]
            if body in _WRAPPERS:
                content, end = _group_text(text, end)
                kind, body = "text", content
        found.append(Token(kind, body, at, end, spaced))
        if len(found) > MAX_TOKENS:
            raise TermError(f"more than {MAX_TOKENS} tokens")
        at, spaced = end, False
    if not found:
        raise TermError("empty")
    return found


def _group_text(text: str, at: int) -> tuple[str, int]:
    """The content of a braced group, or the one character, from `at` on."""
    while at < len(text) and text[at].isspace():
        at += 1
    if at >= len(text):
        return "", at
    if text[at] != "{":
        return text[at], at + 1
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[at + 1 : end], end + 1
    raise TermError("a brace is not closed")


def number(value: Fraction, name: str = "") -> Term:
    """A literal."""
    return Term("num", value=value, name=name)


def symbol(name: str) -> Term:
    """A variable."""
    return Term("sym", name=name)


def is_numeric(term: Term) -> bool:
    """Whether a term has no variable, text or collection in it."""
    if term.op in ("sym", "text", "rel", "list", "tuple", "set", "matrix", "opaque"):
        return False
    return all(map(is_numeric, term.args))


class Cursor:
    """A place in a list of tokens, and how deep the brackets are there."""

    def __init__(self, text: str, tokens: list[Token]):
        self.text = text
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.links = 0
        self.bounds = False  # of a series, where 3_{k=1} is no number in a base

    def peek(self, ahead: int = 0) -> Token | None:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def sees(self, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return (
            token is not None
            and token.kind in ("op", "cmd", "word")
            and token.text in texts
        )

    def take(self, *texts: str) -> bool:
        if self.sees(*texts):
            self.at += 1
            return True
        return False

    def expect(self, *texts: str) -> None:
        if not self.take(*texts):
            token = self.peek()
            raise TermError(
                f"expected {texts[0]}, found {token.text if token else 'the end'!a}"
            )

    def joined(self, op: str, args: tuple[Term, ...]) -> Term:
        """A term around others; TermError for too many operators."""
        self.links += 1
        if self.links > MAX_LINKS:
            raise TermError(f"more than {MAX_LINKS} operators")
        return Term(op, args)

    def enter(self) -> None:
        """Counts an opening bracket; the caller takes it off `depth` again."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TermError(f"nested deeper than {MAX_DEPTH}")

    def raw(self, start: int) -> str:
        if start >= self.at:
            return ""
        return self.text[self.tokens[start].start : self.tokens[self.at - 1].end]

    def split(self, width: int) -> None:
        """Cuts the token here in two."""
        token = self.tokens[self.at]
        middle = token.start + width
        self.tokens[self.at : self.at + 1] = [
            Token(token.kind, token.text[:width], token.start, middle, token.spaced),
            Token(token.kind, token.text[width:], middle, token.end, False),
        ]

    def argument_text(self) -> str:
        """The spelling of a braced group or of one token."""
        if self.peek() is None:
            raise TermError("an argument is missing")
        start = self.at
        if not self.take("{"):
            self.at += 1
            return self.raw(start)
        depth = 1
        while depth:
            if self.peek() is None:
                raise TermError("a brace is not closed")
            depth += self.sees("{") - self.sees("}")
            self.at += 1
        return self.raw(start)[1:-1]


def literal_value(text: str) -> Fraction:
    """The value of a `num` token; TermError beyond `MAX_DIGITS`."""
    try:
        return read_literal(text, MAX_DIGITS)
    except LiteralError as error:
        raise TermError(str(error)) from error
