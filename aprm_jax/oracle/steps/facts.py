"""What earlier steps established about variables, and steps that contradict it.

Only linear conclusions are drawn: known values are put in, and a single unknown that
stands in it linearly is solved for. Lines that may speak of something else than what
holds (`if x = 3`, `let`, `either ... or`) establish nothing and contradict nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction

from aprm_jax.oracle.steps.formula import (
    FormulaError,
    Node,
    exact,
    variables,
)
from aprm_jax.oracle.steps.relations import Relation, read_relations

MAX_FACTS = 64

_HYPOTHETICAL = re.compile(
    r"\b(if|suppos\w*|let|let's|try\w*|assum\w*|cases?|when\w*|say|plug\w*|instead|would"
    r"|could|can|either|or|maybe|check\w*|possib\w*|guess\w*|substitut\w*|replac\w*|set"
    r"|setting|need|unless|otherwise|minimum|maximum|minimiz\w*|maximiz\w*|consider\w*"
    r"|options?|example|for|each|any|some|modulo|mod|base|intersect\w*|point\w*|contradict"
    r"\w*|not|cannot|wrong|graph\w*|line|vertex|equation of|function|define\w*|same as"
    r"|satisf\w*|choose|pick\w*|take|taking|first|second|two|both|other|another|new"
    r"|solutions|roots|different|do|does|doesn't|works?|could|want\w*|solve)\b|\?"
    r"|\\pm|\\text\{(?:or|if)\}",
    re.IGNORECASE,
)


class Facts:
    """Equations that hold so far."""

    def __init__(self, lines: Iterable[str]):
        self._known: dict[str, Fraction] = {}
        self._equations: list[Node] = []  # zero where they hold
        for line in lines:
            if _HYPOTHETICAL.search(line):
                self._forget(line)
                continue
            for relation in read_relations(line).relations:
                self.add(relation)

    def add(self, relation: Relation) -> None:
        """Takes a relation as true."""
        if relation.sign != "=" or len(self._equations) >= MAX_FACTS:
            return
        gap = Node("-", (relation.left.node, relation.right.node))
        names = variables(gap)
        if not names:
            return
        self._equations.append(gap)
        if relation.left.node.op == "variable":
            try:
                self._known[relation.left.node.name] = exact(relation.right.node)
            except FormulaError:
                self._known.pop(relation.left.node.name, None)

    def contradicts(self, relation: Relation) -> str | None:
        """Why a relation cannot hold beside the facts; None where it may."""
        if relation.sign != "=":
            return None
        gap = Node("-", (relation.left.node, relation.right.node))
        if relation.left.node.op != "variable":
            try:
                if exact(gap, self._known) != 0:
                    return "it does not hold for the values found before"
            except FormulaError:
                pass
        solved = _solve(gap, self._known)
        if solved is None:
            return None
        name, value = solved
        for equation in reversed(self._equations):
            if name not in variables(equation):
                continue
            at = {**self._known, name: value}
            try:
                rest = exact(equation, at)
            except FormulaError:
                continue
            if rest != 0:
                shown = str(value)[:40]
                return f"{name} = {shown} contradicts an earlier equation"
            return None
        return None

    def _forget(self, line: str) -> None:
        """Drops what is known of variables that a hypothetical line speaks of."""
        for relation in read_relations(line).relations:
            for name in variables(relation.left.node):
                self._known.pop(name, None)
                self._equations = [
                    e for e in self._equations if name not in variables(e)
                ]


def is_hypothetical(text: str) -> bool:
    """Whether a line may speak of something else than what holds."""
    return bool(_HYPOTHETICAL.search(text))


def _solve(gap: Node, known: dict[str, Fraction]) -> tuple[str, Fraction] | None:
    """The one unknown of a linear equation and its value."""
    unknown = [name for name in variables(gap) if name not in known]
    if not unknown and gap.args[0].op == "variable":
        unknown = [gap.args[0].name]  # a second value for a known one
    if len(unknown) != 1:
        return None
    (name,) = unknown
    try:
        at0, at1, at2 = (exact(gap, {**known, name: Fraction(k)}) for k in (0, 1, 2))
    except FormulaError:
        return None
    slope = at1 - at0
    if slope == 0 or at2 - at1 != slope:
        return None
    return name, -at0 / slope
