"""Mathematical formulas as trees: exact values, identity, and LaTeX of them.

A tree is built by `oracle.steps.parsing` within limits, and every function here bounds
its own work too: a tower of powers or a factorial of a factorial is a `FormulaError`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from fractions import Fraction

from aprm_jax.oracle import numbers as arithmetic
from aprm_jax.oracle.functions import FUNCTIONS as ELEMENTARY
from aprm_jax.oracle.numbers import NumberError

MAX_BITS = 2_048
_POINTS = 3  # exact evaluations that make an identity
_RADIX = 1_000_003
# Plain letters, since subscripts take Math-Verify many times as long; none that it may
# read as a constant, a function, a differential or a unit.
_LETTERS = "xyzabnpqruvw"


class FormulaError(ValueError):
    """A formula has no value: division by zero, or beyond a limit."""


class IrrationalError(FormulaError):
    """The value is no rational number, or not known to be one."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a formula.

    Attributes:
      op: `number`, `variable`, `constant` (pi, e, i), `+ - * / // ^`, `negate`,
        `percent`, `root`, `factorial`, `binomial`, or a function's name such as `sin`.
      args: the operands.
      value: of a number.
      name: of a variable or constant.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction = Fraction(0)
    name: str = ""


def numbers(node: Node) -> tuple[Fraction, ...]:
    """The literals of a formula, in order of appearance."""
    if node.op == "number":
        return (node.value,)
    return tuple(n for arg in node.args for n in numbers(arg))


def variables(node: Node) -> frozenset[str]:
    """The names of a formula's variables."""
    if node.op == "variable":
        return frozenset([node.name])
    return frozenset(v for arg in node.args for v in variables(arg))


def parts(node: Node) -> frozenset[Fraction]:
    """The exact values of a formula's operations, its own included, that have one."""
    found = frozenset(v for arg in node.args for v in parts(arg))
    if not operations(node) or variables(node):
        return found
    try:
        return found | {exact(node)}
    except FormulaError:
        return found


def operations(node: Node) -> int:
    """How many operations a formula has; a sign is none."""
    own = node.op not in ("number", "variable", "constant", "negate", "percent")
    return own + sum(operations(arg) for arg in node.args)


def exact(
    node: Node, at: Mapping[str, Fraction] | None = None, percents: bool = True
) -> Fraction:
    """The exact value of a formula.

    Args:
      node: the formula.
      at: values of its variables.
      percents: whether `p%` is p/100; else the sign is ignored, as in
        `100% - 10% = 90`.

    Raises:
      IrrationalError: a root, a function, or a variable without a value.
      FormulaError: division by zero, or a number beyond the limits.
    """
    try:
        return _exact(node, at, percents)
    except NumberError as error:
        raise FormulaError(str(error)) from error


def _exact(node: Node, at: Mapping[str, Fraction] | None, percents: bool) -> Fraction:
    if node.op == "number":
        return node.value
    if node.op == "variable":
        if at is None or node.name not in at:
            raise IrrationalError(f"{node.name} has no value")
        return at[node.name]
    args = [_exact(arg, at, percents) for arg in node.args]
    if node.op in _ARITHMETIC:
        return _bounded(_ARITHMETIC[node.op](*args))
    if node.op == "percent":
        return args[0] / 100 if percents else args[0]
    raise IrrationalError(f"{node.op or node.name} is not rational")


def approximate(node: Node) -> Fraction:
    """The value of a formula without variables, to 50 digits.

    Raises:
      FormulaError: it has none, or one that is not real or out of range.
    """
    try:
        return arithmetic.as_fraction(_approximate(node))
    except NumberError as error:
        raise FormulaError(str(error)) from error


def _approximate(node: Node) -> arithmetic.Number:
    if node.op == "number":
        return node.value
    if node.op == "constant" and node.name in _CONSTANTS:
        return _CONSTANTS[node.name]
    if node.op not in _APPROXIMATE:
        raise FormulaError(f"{node.op} has no value")
    return _APPROXIMATE[node.op](*map(_approximate, node.args))


def in_degrees(node: Node) -> Node:
    """A formula with the angles in degrees that may be meant so: 30 of `sin 30`.

    Those with pi or a degree sign in them say what they are.
    """
    args = tuple(in_degrees(arg) for arg in node.args)
    if node.op in _OF_ANGLES and not _tells_angle(node.args[0]):
        args = (Node("degrees", args),)
    return node if args == node.args else dataclasses.replace(node, args=args)


def _tells_angle(node: Node) -> bool:
    if node.op in ("degrees", "variable") or node.name == "pi":
        return True
    if node.op == "number" and node.value == 0:
        return True
    return any(_tells_angle(arg) for arg in node.args)


def identical(a: Node, b: Node) -> bool | None:
    """Whether two formulas are the same function of their variables.

    Rational functions are evaluated exactly at random points: one where they differ
    proves that they do; agreement at all of them proves identity but for a chance below
    1e-9 (Schwartz–Zippel: degrees are at most a few hundred, coordinates 20 bits).
    None where that cannot tell, as where a root of a variable chooses a sign.
    """
    if _has_root_of_variable(a) or _has_root_of_variable(b):
        return True if a == b else None
    names = sorted(variables(a) | variables(b))
    met = 0
    for k in range(3 * _POINTS if names else 1):
        at = {name: _coordinate(name, k) for name in names}
        try:
            if exact(a, at) != exact(b, at):
                return False
            met += 1
        except IrrationalError:
            return True if a == b else None
        except FormulaError:
            continue
        if met == (_POINTS if names else 1):
            return True
    return None


def _has_root_of_variable(node: Node) -> bool:
    if node.op == "root" and variables(node):
        return True
    if node.op == "^" and variables(node):
        exponent = node.args[1]
        if operations(exponent) or any(n.denominator > 1 for n in numbers(exponent)):
            return True
    return any(_has_root_of_variable(arg) for arg in node.args)


def latex(node: Node) -> str:
    """A formula in unambiguous LaTeX; variables are renamed, `x` first."""
    return _latex(node, {name: k for k, name in enumerate(sorted(variables(node)))})


def latex_pair(a: Node, b: Node) -> tuple[str, str]:
    """Two formulas as by `latex`, with the same names for the same variables."""
    names = {name: k for k, name in enumerate(sorted(variables(a) | variables(b)))}
    return _latex(a, names), _latex(b, names)


def _latex(node: Node, names: Mapping[str, int]) -> str:
    if node.op == "number":
        value = node.value
        if value.denominator == 1:
            return str(value.numerator)
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    if node.op == "variable":
        k = names[node.name]
        return _LETTERS[k] if k < len(_LETTERS) else f"v_{{{k + 1}}}"
    if node.op == "constant":
        return r"\pi" if node.name == "pi" else node.name
    args = [_latex(arg, names) for arg in node.args]
    form = _LATEX.get(node.op, rf"\{node.op}\left({{}}\right)")
    return form.format(*args)


def _coordinate(name: str, k: int) -> Fraction:
    digest = hashlib.blake2b(f"{k}:{name}".encode(errors="replace")).digest()
    return Fraction(int.from_bytes(digest[:8], "big") % _RADIX + 2, 7)


def _bounded(value: arithmetic.Number) -> Fraction:
    if not isinstance(value, Fraction):
        raise IrrationalError("no rational number")
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise FormulaError("a number out of range")
    return value


def _divide(a: Fraction, b: Fraction) -> Fraction:
    if b == 0:
        raise FormulaError("division by zero")
    return a / b


def _power(base: Fraction, exponent: Fraction) -> arithmetic.Number:
    value = arithmetic.power(base, exponent)
    if exponent.denominator == 1 and not isinstance(value, Fraction):
        raise FormulaError("a number out of range")
    return value


_ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "//": lambda a, b: Fraction(_divide(a, b).__floor__()),
    "^": _power,
    "negate": lambda a: -a,
    "root": arithmetic.root,
    "factorial": arithmetic.factorial,
    "binomial": arithmetic.binomial,
}
_CONSTANTS = {"pi": +arithmetic.MP.pi, "e": +arithmetic.MP.e}
FUNCTIONS = ("sin", "cos", "tan", "ln")
_OF_ANGLES = ("sin", "cos", "tan")
_APPROXIMATE = {
    **_ARITHMETIC,
    "+": arithmetic.add,
    "-": lambda a, b: arithmetic.add(a, -b),
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "//": lambda a, b: arithmetic.floor(arithmetic.divide(a, b)),
    "^": arithmetic.power,
    "percent": lambda a: a / 100,
    "degrees": lambda a: arithmetic.multiply(a, _CONSTANTS["pi"] / 180),
    **{name: ELEMENTARY[name] for name in FUNCTIONS},
}
_LATEX = {
    "+": r"\left({}+{}\right)",
    "-": r"\left({}-{}\right)",
    "*": r"\left({}\cdot {}\right)",
    "/": r"\frac{{{}}}{{{}}}",
    "//": r"\left\lfloor\frac{{{}}}{{{}}}\right\rfloor",
    "^": r"\left({}\right)^{{{}}}",
    "negate": r"\left(-{}\right)",
    "percent": r"\frac{{{}}}{{100}}",
    "degrees": r"\left({}\cdot \frac{{\pi}}{{180}}\right)",
    "root": r"\sqrt[{1}]{{{0}}}",
    "factorial": r"\left({}\right)!",
    "binomial": r"\binom{{{}}}{{{}}}",
}
