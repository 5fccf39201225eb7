"""What a side with percent signs may mean, and what of it a stated number confirms.

`p%` is p/100, but for two habits: `50 - 10%` takes the tenth *of the 50*, and
`100% - 10% = 90` leaves out the sign of a result that is in percent.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from aprm_jax.oracle.numerals import Stated
from aprm_jax.oracle.steps.formula import FormulaError, Node, exact, numbers
from aprm_jax.oracle.steps.parsing import Formula

Check = Callable[[Fraction, Stated], bool | None]


def confirms(side: Formula, shown: Formula, check: Check) -> bool | None:
    """Whether `shown`, a plain number, states the value of `side`.

    Args:
      side: an expression; it or `shown` has a percent sign.
      shown: the number, `shown.stated` is there.
      check: compares a value with it: `rounding.agrees` or `rounding.about`.

    Raises:
      FormulaError: the side has no exact value.
    """
    stated = shown.stated
    assert stated is not None
    value = exact(side.node)
    if shown.percent:
        share = Stated(stated.value / 100, stated.decimals + 2)
        truth = check(value, share)
        if truth is True or side.percent:
            return truth
        # `10/50 * 100 = 20%`, `80 + 10 = 90%`: a result in percent.
        if check(value, stated) is not True:
            return truth
        return True if Fraction(100) in numbers(side.node) else None
    relative = _relative(side.node)
    if relative is not None:
        truths = check(relative, stated), check(value, stated)
        sums = exact(side.node, percents=False)
        return truths[0] or (None if truths[1] or check(sums, stated) else truths[0])
    truth = check(value, stated)
    bare = _in_percent(side.node)
    if Fraction(100) in numbers(side.node) and truth is False and bare is None:
        return None if check(exact(side.node, percents=False), stated) else False
    if truth is True or bare is None or shown.money or check(bare, stated) is not True:
        return truth
    if side.node.op in ("+", "-"):
        return True
    unsure = 0 <= bare <= 100 or Fraction(100) in numbers(side.node)
    return None if unsure else False


def values(formula: Formula) -> tuple[Fraction, ...]:
    """The values that a formula may have, the likely one first.

    Raises:
      FormulaError: it has none.
    """
    value = exact(formula.node)
    if not formula.percent:
        return (value,)
    relative, bare = _relative(formula.node), _in_percent(formula.node)
    found = (relative, value) if relative is not None else (value, bare)
    return tuple(dict.fromkeys(v for v in found if v is not None))


def _relative(node: Node) -> Fraction | None:
    """The value of `50 - 10%` as a tenth off; None where nothing is of that form."""
    if node.op not in ("+", "-") or node.args[1].op != "percent":
        return None
    whole, part = node.args
    if _in_percent(whole) is not None or _has_percent(whole):
        return None
    share = exact(part)
    return exact(whole) * (1 + share if node.op == "+" else 1 - share)


def _has_percent(node: Node) -> bool:
    return node.op == "percent" or any(_has_percent(arg) for arg in node.args)


def _in_percent(node: Node) -> Fraction | None:
    """The value of a node in percent, where its percent signs make it one."""
    try:
        if not _is_percent(node):
            return None
        return exact(node, percents=False)
    except FormulaError:
        return None


def _is_percent(node: Node) -> bool:
    if node.op in ("+", "-", "negate"):
        return all(_is_percent(arg) for arg in node.args)
    if node.op == "*":
        return sum(_is_percent(arg) for arg in node.args) == 1 and not all(
            _has_percent(arg) for arg in node.args
        )
    if node.op == "/":
        return _is_percent(node.args[0]) and not _has_percent(node.args[1])
    return node.op == "percent"
