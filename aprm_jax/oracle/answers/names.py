"""What an equation such as `x = 5` names, and whether two names are of one thing."""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

from aprm_jax.oracle.answers.tokens import INVERSE, Term, is_numeric, symbol

_LETTER = r"(?:\\[a-zA-Z]+|[A-Za-z])"
_INDEX = r"(?:_(?:\{[^{}]*\}|\\?[A-Za-z0-9]+)|\^\{?(?:\\prime|\\ast|\*)\}?|')*"
_NAME = re.compile(
    rf"(?:{_LETTER}{_INDEX}(?:\([^()=]{{0,12}}\))?"
    r"|\|?[A-Z]{2,5}\|?|\\(?:angle|triangle|overline|text|mathrm|operatorname)\b.*"
    r"|\\(?:sin|cos|tan|cot|log|ln)\s*\\?[A-Za-z]+"
    r"|[A-Za-z][A-Za-z ]{2,60}|\([A-Za-z](?:,[A-Za-z]){1,5}\))"
)
_FRACTION = re.compile(r"\\frac\{([^{}]+)\}\{([^{}]+)\}")


_FUNCTIONS = frozenset([*INVERSE, "sec", "csc", "ln", "log"])
_OF = re.compile(r"(?P<head>[^()]+)\((?P<of>[^()]*)\)")
_APPLIED = re.compile(r"\\?(?P<head>[a-z]+)\s*\\?(?P<of>[A-Za-z]+)")
_POINTS = re.compile(r"\|?([A-Z]{2,3})\|?")
_TUPLE = re.compile(r"\([A-Za-z](?:,[A-Za-z])+\)")


def is_name(raw: str) -> bool:
    """Whether a side of an equation only names what the other side is."""
    raw = re.sub(r"\s*([_^(),|])\s*", r"\1", raw.strip())
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
    match = re.fullmatch(r"[^()]+\(([a-zA-Z])\)", name.replace(" ", ""))
    return substitute(term, match[1], symbol("argument")) if match else term


class _Name(NamedTuple):
    """The parts of `f_1(x)`: head, index, and what it is a function of."""

    head: str
    index: str
    of: str


def normal(name: str) -> str:
    """A name without blanks, braces and fonts."""
    name = re.sub(r"\\(?:mathrm|text|operatorname|mathbf|rm)\b|\\[,;! ]", "", name)
    return re.sub(r"[{}\s]", "", name)


def _parts(name: str) -> _Name:
    found = _OF.fullmatch(name)
    head, of = (found["head"], found["of"]) if found else (name, "")
    applied = None if found else _APPLIED.fullmatch(name)
    if applied and applied["head"] in _FUNCTIONS:
        head, of = applied["head"], applied["of"]
    primes = "'" * (head.count("'") + head.count("prime"))
    base, _, index = re.sub(r"\^?\\prime|'|\^\*", "", head).partition("_")
    return _Name(base.removeprefix("\\"), primes + index, of)


def clash(a: str, b: str) -> bool:
    """Whether `x = 5` names another unknown than `y = 5` does.

    What stands for the whole answer (`S`, `f(x)`, `\\text{Area}`) clashes with nothing;
    different indices, places, events, functions, or swapped terms of a ratio do.
    """
    a, b = normal(a), normal(b)
    if a == b:
        return False
    terms_a, terms_b = _terms(a), _terms(b)
    if len(terms_a) > 1 and len(terms_b) > 1:
        return sorted(terms_a) == sorted(terms_b)  # in another order
    points = [_POINTS.fullmatch(name) for name in (a, b)]
    if points[0] and points[1]:  # AB is BA, and no AC
        return sorted(points[0][1]) != sorted(points[1][1])
    x, y = _parts(a), _parts(b)
    known = [name.head in _FUNCTIONS for name in (x, y)]
    if any(known):
        return x.head != y.head
    if x.head != y.head:
        if bool(x.of) != bool(y.of):
            return False
        greek = a.startswith("\\") and b.startswith("\\") and not x.of
        return greek or (_variable(x.head) and _variable(y.head))
    if x.of and y.of and x.of != y.of:
        return not (_variable(x.of) and _variable(y.of))
    if x.index.count("'") != y.index.count("'"):
        return True
    if x.index and y.index and x.index != y.index:
        return not (_variable(x.index) and _variable(y.index))
    return False


def _variable(text: str) -> bool:
    return len(text) == 1 and text.islower()


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
