"""What an equation such as `x = 5` names, and whether two names are of one thing."""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

from aprm_jax.oracle.answers.tokens import (
    ELEMENT,
    INVERSE,
    Term,
    is_numeric,
    symbol,
)

_LETTER = r"(?:\\[a-zA-Z]+|[A-Za-z])"
_INDEX = r"(?:_(?:\{[^{}]*\}|\\?[A-Za-z0-9]+)|\^\{?(?:\\prime|\\ast|\*)\}?|')*"
_ACCENT = r"\\(?:vec|overrightarrow|bar|overline|hat|tilde|mathbf|boldsymbol|mathbb)"
_NAME = re.compile(
    rf"(?:{_LETTER}{_INDEX}(?:\([^()=]{{0,12}}\))?"
    r"|P\([^()]{1,24}\)|Pr\([^()]{1,24}\)|\\mathbb\{P\}\([^()]{1,24}\)"
    r"|[fgh]\^\{?(?:-1|\([0-9]\))\}?\([^()=]{1,12}\)|[A-Z]\^\{?(?:-1|T|\\top)\}?"
    rf"|{_ACCENT}(?:\{{[A-Za-z]{{1,2}}\}}|\s+[A-Za-z]){_INDEX}"
    r"|(?:\\mathbb\{E\}|E|Var|\\operatorname\{Var\})(?:\[[A-Z]\]|\([A-Z]\))"
    r"|\|[A-Zz]\||\\det\s*\(?[A-Z]\)?"
    r"|\|?[A-Z]{2,5}\|?|\\(?:angle|triangle|overline|text|mathrm|operatorname)\b.*"
    r"|\\(?:sin|cos|tan|cot|log|ln)\s*\\?[A-Za-z]+"
    r"|[A-Za-z][A-Za-z ]{2,60}"
    r"|\((?:\\[a-z]+|[A-Za-z])(?:,(?:\\[a-z]+|[A-Za-z])){1,5}\))"
)
_DERIVATIVE = re.compile(r"\\frac\s*\{d([a-z])\}\s*\{d[a-z]\}")
_FONTS = re.compile(
    r"\\(?:mathrm|text|operatorname|math(?:bf|bb)|rm|boldsymbol)\b"
    r"|\\[,;! ]"
)
_ARROWS = (r"\vec", r"\overrightarrow")
_SUPERSCRIPT = re.compile(r"\^(?:-1|T|\\top|\([0-9]\))")
_MARKED = re.compile(r"\\(bar|overline|hat|tilde)(?=[A-Za-z](?![A-Za-z]))")
_ANGLE = re.compile(r"\\(?:angle|measuredangle)([A-Z]{3})")
_SIGNS = {
    **dict.fromkeys((r"\leqslant", r"\leq"), r"\le"),
    **dict.fromkeys((r"\geqslant", r"\geq"), r"\ge"),
    r"\mid": "|",
}
_CONSTANT = re.compile(r"[CK](?:_[0-9])?|c")
_EITHER = re.compile(r"P\(([A-Z])(\\cup|\\cap)([A-Z])\)")
# Letters that stand beside each other; others name the whole answer: S or A, an area.
_SERIES = ("ABCDEF", "PQR", "XYZ", "UVW", "MN", "KL")
_FRACTION = re.compile(r"\\frac\{([^{}]+)\}\{([^{}]+)\}")


_FUNCTIONS = frozenset([*INVERSE, "sec", "csc", "ln", "log"])
_OF = re.compile(r"(?P<head>[^()]+(?:\^\([0-9]\))?)\((?P<of>[^()]*)\)")
_APPLIED = re.compile(r"\\?(?P<head>[a-z]+)\s*\\?(?P<of>[A-Za-z]+)")
_POINTS = re.compile(r"\|?([A-Z]{2,3})\|?")
_TUPLE = re.compile(r"\([A-Za-z](?:,[A-Za-z])+\)")


def is_name(raw: str) -> bool:
    """Whether a side of an equation only names what the other side is."""
    raw = _DERIVATIVE.sub(r"\1'", re.sub(r"\s*([_^(),|])\s*", r"\1", raw.strip()))
    fraction = _FRACTION.fullmatch(raw)
    parts = fraction.groups() if fraction else re.split(r"[:/]", raw)
    return len(parts) <= 3 and all(_NAME.fullmatch(part.strip()) for part in parts)


def named(term: Term) -> tuple[str, Term]:
    """Splits `x = 5` into its name and its value; no name for anything else."""
    if term.op != "rel":
        return "", term
    signs, sides = term.name.split(), term.args
    if not set(signs) <= {"=", "~", "in", "->"}:
        return "", term
    first, last = sides[0], sides[-1]
    if is_name(first.name):
        exact = [s for s, sign in zip(sides[1:], signs, strict=True) if sign != "~"]
        return first.name, (exact or sides[1:])[-1].args[0]
    if len(sides) == 2 and signs == ["="]:
        if is_name(last.name):
            return last.name, first.args[0]
        if is_numeric(first) and is_numeric(last):
            return "", last.args[0]
        return "", term
    exact = [s for s, sign in zip(sides[1:], signs, strict=True) if sign != "~"]
    return "", (exact or sides[1:])[-1].args[0]


def by_case(term: Term) -> Term:
    """Groups `p = 5, q = 2, p = 7, q = 3` by case, as `;` would; else the term."""
    names = [named(item)[0] for item in term.args]
    count = len(set(names))
    if term.op != "list" or "" in names or not 1 < count < len(names):
        return term
    if len(names) % count or names != names[:count] * (len(names) // count):
        return term
    starts = range(0, len(names), count)
    cases = (Term("list", term.args[at : at + count]) for at in starts)
    return Term("list", tuple(cases))


def substitute(term: Term, name: str, value: Term) -> Term:
    """The term with a value in the place of a variable."""
    if term.op == "sym":
        return value if term.name == name else term
    args = tuple(substitute(arg, name, value) for arg in term.args)
    return dataclasses.replace(term, args=args)


def renamed(name: str, term: Term) -> Term:
    """The value of `f(t) = ...` with its variable called as in every other one."""
    match = re.fullmatch(r"[^()]+\(([a-zA-Z](?:,[a-zA-Z])*)\)", name.replace(" ", ""))
    for place, letter in enumerate(match[1].split(",") if match else ()):
        term = substitute(term, letter, symbol(f"argument {place}"))
    return term


class _Name(NamedTuple):
    """The parts of `f_1(x)`: head, index, and what it is a function of.

    `marks` make another thing of it: primes, an inverse, a mean, an estimate.
    """

    head: str
    index: str
    of: str
    marks: str


def normal(name: str) -> str:
    """A name without blanks, braces and fonts, and signs in one spelling."""
    name = _DERIVATIVE.sub(r"\1'", name)
    name = re.sub("|".join(map(re.escape, _SIGNS)), lambda m: _SIGNS[m[0]], name)
    name = _FONTS.sub("", name)
    name = re.sub(r"\[([A-Z])\]", r"(\1)", re.sub(r"[{}\s]", "", name))
    either = _EITHER.fullmatch(name.replace("Pr(", "P("))
    if either is None:
        return name.replace("Pr(", "P(")
    first, last = sorted((either[1], either[3]))
    return f"P({first}{either[2]}{last})"


def _bare_name(name: str) -> str:
    """A name without the arrow over it."""
    for arrow in (*_ARROWS, r"\overline"):
        name = name.removeprefix(arrow)
    return name


def _parts(name: str) -> _Name:
    found = _OF.fullmatch(name)
    head, of = (found["head"], found["of"]) if found else (name, "")
    applied = None if found else _APPLIED.fullmatch(name)
    if applied and applied["head"] in _FUNCTIONS:
        head, of = applied["head"], applied["of"]
    primes = "'" * (head.count("'") + head.count("prime"))
    if re.fullmatch(r"\|[A-Za-z]\|", head):
        head, primes = head[1:-1], primes + "|"
    marks = "".join(
        sorted([*primes, *_SUPERSCRIPT.findall(head), *_MARKED.findall(head)])
    )
    head = _MARKED.sub("", _SUPERSCRIPT.sub("", head))
    base, _, index = re.sub(r"\^?\\prime|'|\^\*", "", head).partition("_")
    return _Name(base.removeprefix("\\"), index, of, marks)


def clash(a: str, b: str) -> bool:
    """Whether `x = 5` names another unknown than `y = 5` does.

    What stands for the whole answer (`S`, `f(x)`, `\\text{Area}`) clashes with nothing;
    different indices, places, events, functions, or swapped terms of a ratio do.
    """
    a, b = normal(a), normal(b)
    if a == b:
        return False
    if _TUPLE.fullmatch(a) and _TUPLE.fullmatch(b):
        return True
    terms_a, terms_b = _terms(a), _terms(b)
    if len(terms_a) > 1 and len(terms_b) > 1:
        return True  # of other quantities, or in another order
    if all(name.startswith(_ARROWS) for name in (a, b)):  # AB is no BA
        return _bare_name(a) != _bare_name(b)
    a, b = _bare_name(a), _bare_name(b)
    points = [_POINTS.fullmatch(name) for name in (a, b)]
    if points[0] and points[1]:  # AB is BA, and no AC
        return sorted(points[0][1]) != sorted(points[1][1])
    angles = [_ANGLE.fullmatch(name) for name in (a, b)]
    if angles[0] and angles[1]:
        return angles[0][1] not in (angles[1][1], angles[1][1][::-1])
    x, y = _parts(a), _parts(b)
    known = [name.head in _FUNCTIONS for name in (x, y)]
    if any(known):
        return x != y
    if x.head != y.head:
        if bool(x.of) != bool(y.of):
            return False
        if x.of and max(len(x.head), len(y.head)) <= 3:
            return True
        if x.index.isdigit() and y.index.isdigit() and len(x.head) == len(y.head) == 1:
            return True
        greek = a.startswith("\\") and b.startswith("\\") and not x.of
        both = _variable(x.head) and _variable(y.head)
        return greek or both or (not x.of and _beside(x.head, y.head))
    if x.of and y.of and x.of != y.of:
        letters = [*x.of.split(","), *y.of.split(",")]
        return x.of.count(",") != y.of.count(",") or not all(map(_variable, letters))
    if x.marks != y.marks:
        return True
    if x.index and y.index and x.index != y.index:
        return not (_variable(x.index) and _variable(y.index))
    return False


def _variable(text: str) -> bool:
    return len(text) == 1 and text.islower()


def _beside(a: str, b: str) -> bool:
    """Whether two capital letters name two things of one kind, as points P and Q."""
    if len(a) != 1 or len(b) != 1 or a == b:
        return False
    if a.lower() == b.lower():  # R of the outer circle, r of the inner one
        return True
    return any(a in series and b in series for series in _SERIES)


def _letters(term: Term) -> set[str]:
    own = {term.name} if term.op == "sym" else set()
    return own.union(*map(_letters, term.args))


def same_unknown(a: Term, b: Term) -> bool:
    """Whether inequalities speak of one variable; a set calls its elements anything."""
    x, y = _letters(a), _letters(b)
    if len(x) != 1 or len(y) != 1:
        return True
    (x, y) = x.pop(), y.pop()
    return ELEMENT in (x, y) or x == y or not (_variable(x) and _variable(y))


def _terms(name: str) -> list[str]:
    fraction = re.fullmatch(r"\\frac([A-Za-z])([A-Za-z])", name)
    return list(fraction.groups()) if fraction else re.split("[:/]", name)


def ordered(name_a: str, a: Term, name_b: str) -> Term:
    """`(y, x) = (2, 1)` in the order of `(x, y)`."""
    name_a, name_b = normal(name_a), normal(name_b)
    if not (_TUPLE.fullmatch(name_a) and _TUPLE.fullmatch(name_b)) or a.op != "tuple":
        return a
    here, there = name_a[1:-1].split(","), name_b[1:-1].split(",")
    if sorted(here) != sorted(there) or len(a.args) != len(here):
        return a
    by_name = dict(zip(here, a.args, strict=True))
    return dataclasses.replace(a, args=tuple(by_name[letter] for letter in there))


def free_constant(a: Term, names: set[str], others: set[str]) -> tuple[Term, set[str]]:
    """An integral `x^2 + K` with its constant called as in `x^2 + C`."""
    more, missing = names - others, others - names
    if a.op != "add" or len(more) != 1 or len(missing) != 1:
        return a, names
    (ours,), (theirs,) = more, missing
    if not (_CONSTANT.fullmatch(ours) and _CONSTANT.fullmatch(theirs)):
        return a, names
    return substitute(a, ours, symbol(theirs)), others


def in_alphabet(term: Term) -> Term:
    """`c = 3, a = 1, b = 2` in the order of their letters; any other list as it is."""
    names = [normal(named(item)[0]) for item in term.args]
    if not all(map(_variable, names)) or len(set(names)) < len(names):
        return term
    order = sorted(range(len(names)), key=names.__getitem__)
    return dataclasses.replace(term, args=tuple(term.args[k] for k in order))


def of_integers(a: Term, b: Term) -> tuple[Term, Term]:
    """Two answers such as `x = 2k\\pi, k \\in \\mathbb{Z}`, with one letter for k.

    The condition is left out. Where one answer has none, its letter is the one that it
    has beside those of the other.
    """
    (x, of_x), (y, of_y) = _integer(a), _integer(b)
    if not of_x and not of_y:
        return a, b
    more_x, more_y = (_letters(t) - {of} for t, of in ((x, of_x), (y, of_y)))
    of_x = of_x or _only(more_x - more_y)
    of_y = of_y or _only(more_y - more_x)
    whole = symbol("n")
    return substitute(x, of_x, whole), substitute(y, of_y, whole)


def _integer(term: Term) -> tuple[Term, str]:
    """A list without `k \\in \\mathbb{Z}`, and that letter; "" where it has no such."""
    rest = [item for item in term.args if not _is_integer(item)]
    if term.op != "list" or len(rest) != len(term.args) - 1:
        return term, ""
    letter = next(item for item in term.args if _is_integer(item)).args[0].args[0]
    return (
        rest[0] if len(rest) == 1 else dataclasses.replace(term, args=tuple(rest))
    ), letter.name


def _is_integer(term: Term) -> bool:
    if term.op != "rel" or term.name != "in":
        return False
    letter, domain = (side.args[0] for side in term.args)
    return letter.op == "sym" and domain == symbol("set Z")


def _only(names: set[str]) -> str:
    return names.pop() if len(names) == 1 else ""


def apart(term: Term) -> Term:
    """`(x, y) = (1, 2)` as the list `x = 1, y = 2`; any other term as it is."""
    name, value = named(term)
    name = normal(name)
    if not _TUPLE.fullmatch(name) or value.op != "tuple":
        return term
    letters = name[1:-1].split(",")
    if len(letters) != len(value.args):
        return term
    return Term("list", tuple(map(_equation, letters, value.args)))


def _equation(name: str, value: Term) -> Term:
    sides = (Term("side", (symbol(name),), name=name), Term("side", (value,)))
    return Term("rel", sides, name="=")
