"""Judges a step by its own equations: whether they hold, also beside earlier ones."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Sequence

from aprm_jax.oracle.numerals import Stated, format_number
from aprm_jax.oracle.steps import percents
from aprm_jax.oracle.steps.comparison import Step
from aprm_jax.oracle.steps.context import Context
from aprm_jax.oracle.steps.facts import Facts, is_hypothetical
from aprm_jax.oracle.steps.formula import FormulaError, Node, operations, variables
from aprm_jax.oracle.steps.parsing import Formula
from aprm_jax.oracle.steps.relations import Relation
from aprm_jax.oracle.steps.tokens import tokenize
from aprm_jax.oracle.steps.truth import Asking, compare, holds, is_identity
from aprm_jax.oracle.verdict import Verdict, incorrect, shown


@dataclasses.dataclass
class Checks:
    """How far a step's equations were checked.

    Attributes:
      held: equations with an operation that hold.
      conditions: equations with variables that may hold or not.
      sure: whether all others hold for sure.
    """

    held: int = 0
    conditions: int = 0
    sure: bool = True


def judge_truth(
    step: Step, commutes: bool, context: Context
) -> Generator[tuple[str, str], bool | None, tuple[Verdict | None, Checks]]:
    """A verdict if an equation is false, and how far the others were checked.

    An equation with variables may be a condition to solve. Not so where a chain goes on
    from a variable, `y = 2(x+1) = 2x+2`, or from an identity.
    """
    checks = Checks()
    derives = False  # whether a chain goes on transforming one expression
    relations = step.reading.relations
    for k, relation in enumerate(relations):
        if relation.closed:
            truth = yield from _settled(relation, relations[k + 1 : k + 2], context)
        elif not relation.chained:
            derives = relation.left.node.op == "variable"
            if not derives and commutes and _transforms(relation):
                derives = (yield from is_identity(relation)) is True
            checks.held += derives and _transforms(relation)
            checks.conditions += not (derives and _transforms(relation))
            continue
        elif commutes and derives and _transforms(relation):
            truth = yield from is_identity(relation)
        else:
            checks.conditions += 1
            continue
        if truth is False:
            return _false(relation), checks
        computes = operations(relation.left.node) + operations(relation.right.node)
        checks.held += truth is True and computes > 0
        checks.sure = checks.sure and truth is True
    return None, checks


def judge_facts(
    step: Step, theirs: Step | None, prefix: Sequence[str]
) -> Verdict | None:
    """A verdict if an equation contradicts what earlier equations give, else None."""
    open_ones = [r for r in step.reading.relations if not r.closed]
    if not open_ones or is_hypothetical(step.text):
        return None
    said = "" if theirs is None else "".join(theirs.text.split())
    named = Counter(_assigned(r) for r in open_ones)
    facts = Facts(prefix)
    for relation in open_ones:
        if named[_assigned(relation)] > 1 and _assigned(relation):
            continue  # one of several values: `x = 3` and `x = -3`
        problem = facts.contradicts(relation)
        start, end = relation.span
        if problem is not None and "".join(step.text[start:end].split()) not in said:
            return incorrect("contradiction", problem, relation.span)
        facts.add(relation)
    return None


def _settled(
    relation: Relation, following: Sequence[Relation], context: Context
) -> Asking:
    """Whether an equation of numbers holds, as the text around it means it."""
    truth = yield from holds(relation)
    if truth is not True and _runs_on(relation):
        # `3*12 = 36 + 36 = 72` goes on from its results; else it may be unfinished.
        truth = True if following and following[0].chained else None
    start = relation.left.start
    return context.settle(relation.left, relation.right, truth, start)


def _runs_on(relation: Relation) -> bool:
    """Whether a right side goes on from the result: `3*12 = 36` of `3*12 = 36 + 36`."""
    left, right = relation.left, relation.right
    if not operations(right.node) or not operations(left.node):
        return False
    first: Node = right.node
    while first.op in ("+", "-", "*", "/"):
        first = first.args[0]
    written = next((t for t in tokenize(right.text) if t.kind == "number"), None)
    if written is None or first.op != "number" or written.value != first.value:
        return False
    stated = Stated(written.value, written.decimals)
    result = dataclasses.replace(right, node=first, stated=stated, percent=False)
    try:
        return compare(left, result) is True
    except FormulaError:
        return False


def _false(relation: Relation) -> Verdict:
    left, right = shown(relation.left.text), shown(relation.right.text)
    sign = "=" if relation.sign == "=" else "is about"
    why = "these are different functions"
    if relation.closed:
        why = f"it is {_value(relation.left)}"
        if not operations(relation.left.node) and operations(relation.right.node):
            why = f"{right} is {_value(relation.right)}"
    reason = f"{left} {sign} {right}, but {why}"
    return incorrect("wrong_result", reason, relation.span)


def _transforms(relation: Relation) -> bool:
    """Whether both sides have the same variables: `2(x+1) = 2x+2`, or a condition."""
    left, right = variables(relation.left.node), variables(relation.right.node)
    return relation.sign == "=" and left == right


def _assigned(relation: Relation) -> str:
    """The variable that a relation gives a value; empty where it gives none."""
    left = relation.left.node
    return left.name if left.op == "variable" and not relation.chained else ""


def _value(formula: Formula) -> str:
    try:
        return shown(format_number(percents.values(formula)[0]))
    except FormulaError:
        return "another number"
