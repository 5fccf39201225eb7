"""Vectors that are written as sums: `(1, 2) + t(3, 4)`, and `3i - 2j + k`."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from aprm_jax.oracle.answers import values
from aprm_jax.oracle.answers.identity import identical
from aprm_jax.oracle.answers.names import substitute
from aprm_jax.oracle.answers.tokens import Term, number, symbol

_SUMS = frozenset(["add", "mul", "neg", "div"])
_TUPLE = frozenset(["tuple"])


def added(term: Term) -> Term:
    """A sum of tuples, and of multiples of them, as one tuple; else the term."""
    if term.op not in _SUMS or not values.mentions(term, _TUPLE):
        return term
    parts = _parts(term)
    return term if parts is None else Term("tuple", parts, name="()")


def _parts(term: Term) -> tuple[Term, ...] | None:
    if term.op == "tuple":
        return term.args if term.name in ("()", "[]") else None
    if term.op == "neg":
        inner = _parts(term.args[0])
        return inner and tuple(Term("neg", (x,)) for x in inner)
    if term.op == "add":
        left, right = map(_parts, term.args)
        if left is None or right is None or len(left) != len(right):
            return None
        return tuple(Term("add", pair) for pair in zip(left, right, strict=True))
    if term.op not in ("mul", "div"):
        return None
    left, right = term.args
    if term.op == "mul" and not values.mentions(left, _TUPLE):
        left, right = right, left
    inner = None if values.mentions(right, _TUPLE) else _parts(left)
    return inner and tuple(Term(term.op, (x, right)) for x in inner)


def in_components(term: Term, size: int, budget: values.Budget) -> Term | None:
    """`3i - 2j + k` as the tuple of its components; None for no sum of unit vectors.

    The letters may have hats or arrows. Without them there must be a `j` or a `k`: `3i`
    is a complex number.
    """
    names = [f"unit {letter}" for letter in "ijk"[:size]]
    renamed = _renamed(term)
    found = values.symbols(renamed) & {f"unit {letter}" for letter in "ijk"}
    if size not in (2, 3) or not found <= set(names) or found <= {"unit i"}:
        return None
    parts: list[Term] = []
    whole: Term = number(Fraction(0))
    for name in names:
        part = renamed
        for other in names:
            part = substitute(part, other, number(Fraction(int(other == name))))
        parts.append(part)
        whole = Term("add", (whole, Term("mul", (part, symbol(name)))))
    if not identical(renamed, whole, budget):
        return None
    return Term("tuple", tuple(parts), name="()")


def _renamed(term: Term) -> Term:
    """The term with its unit vectors under one name each, with marks or without."""
    letter = term.name.split()[-1:] if term.op in ("sym", "const") else []
    marked = term.name.split()[:-1] in ([], ["hat"], ["vec"], ["widehat"])
    if letter and marked and letter[0] in ("i", "j", "k"):
        return symbol(f"unit {letter[0]}")
    return dataclasses.replace(term, args=tuple(map(_renamed, term.args)))
