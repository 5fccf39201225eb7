"""Words that lead to a computation, or stand for one: `a total of 5 + 8`, `the sum of
3 and 4`.

Elsewhere a run behind `of` or `to` belongs to a longer expression: `half of 10 + 3`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.steps.formula import FormulaError, Node
from aprm_jax.oracle.steps.parsing import Formula, parse_formula
from aprm_jax.oracle.steps.prose import BEFORE, Place, before, word_set
from aprm_jax.oracle.steps.tokens import Token

# What may be a result that is computed behind it: `a profit of 8 - 4 = $4`.
_AMOUNTS = word_set(
    """total sum profit weight distance discount cost mass volume length salary loan
    balance change loss gain price amount income area speed height width age population
    pay revenue savings tip fee tax bill score consumption interest occupancy load
    perimeter debt budget expense expenses wage earnings deposit refund depth increase
    decrease reduction rise drop deficit surplus"""
)
# And of these where it is computed in that way.
_OPERATIONS = {"sum": "+", "difference": "-", "product": "*", "quotient": "/"}
_REACHES = word_set(
    """amount amounts amounted equal equals comes come came out up translates translate
    translated equates adds add sums increased increases decreased decreases reduced"""
)
_QUALIFIERS = word_set(
    """a an the his her their its our my this that grand combined net overall total
    initial final new monthly weekly daily annual yearly"""
)
_LISTED = _OPERATIONS | {"total": "+", "average": "+", "mean": "+", "ratio": "/"}
_BOUND = BEFORE | word_set("as average mean median maximum minimum")
_MOST = 12  # parts of a list


def leads(tokens: Sequence[Token], at: int, end: int) -> bool:
    """Whether a word, `of` or `to`, only leads to the computation from it to `end`."""
    signs = {t.text for t in tokens[at + 1 : end] if t.kind == "op"}
    if at == 0 or tokens[at - 1].kind != "word" or not signs & set("+-*/"):
        return False
    word, name = tokens[at].text.lower(), tokens[at - 1].text.lower()
    if word == "to":
        return name in _REACHES
    if word != "of" or not _is_free(tokens, at - 1):
        return False
    return name in _AMOUNTS or signs == {_OPERATIONS.get(name)}


def listed(
    tokens: Sequence[Token], end: int, text: str
) -> tuple[Place, Formula] | None:
    """What a list before a relation comes to: `the sum of 3, 4 and 5`.

    Args:
      tokens: of the text.
      end: where the relation stands.
      text: itself.

    Returns:
      The place of the list, and its value; None where there is none, or where the order
      of two numbers leaves open what is meant.
    """
    at = end
    while at > 0 and end - at < 2 * _MOST and _in_list(tokens[at - 1]):
        at -= 1
    if at < 2 or tokens[at - 1].text.lower() not in ("of", "between"):
        return None
    name = tokens[at - 2].text.lower()
    run = tokens[at:end]
    numbers = [t for t in run if t.kind == "number"]
    gaps = [t for t in run if t.kind != "number"]
    if name not in _LISTED or len(numbers) < 2 or not _is_free(tokens, at - 2):
        return None
    sign = _LISTED[name]
    if sign in "-/" and len(numbers) != 2:
        return None
    asked = any(t.text == "to" for t in gaps)
    if asked and name != "ratio":
        return None
    unordered = name == "difference" or (name == "ratio" and not asked)
    if unordered and numbers[0].value < numbers[1].value:
        return None
    joined = _joined(run, sign)
    if joined is None:
        return None
    try:
        formula = parse_formula(joined, text)
    except FormulaError:
        return None
    if name in ("average", "mean"):
        count = Node("number", value=Fraction(len(numbers)))
        formula = dataclasses.replace(formula, node=Node("/", (formula.node, count)))
    return (at, end), formula


def _in_list(token: Token) -> bool:
    return token.kind == "number" or token.text.lower() in (",", "and", "to")


def _joined(run: Sequence[Token], sign: str) -> list[Token] | None:
    """The numbers with an operator in every gap; None where two gaps are unlike these.

    A gap is `,` or `and`, or both, and no `,` alone comes behind `and`.
    """
    out: list[Token] = []
    for at, token in enumerate(run):
        if token.kind == "number":
            if out and out[-1].kind == "number":
                return None
            out.append(token)
        elif not out:
            return None
        elif out[-1].kind == "number":
            ended = any(t.text.lower() == "and" for t in run[:at])
            if ended and token.text == ",":
                return None
            out.append(token._replace(kind="op", text=sign))
        elif token.text.lower() != "and":
            return None
    return out if out and out[-1].kind == "number" else None


def _is_free(tokens: Sequence[Token], at: int) -> bool:
    """Whether nothing before a noun computes with it: `twice the sum`, `5 + a sum`."""
    at -= 1
    while at >= 0 and tokens[at].kind == "word":
        if tokens[at].text.lower() not in _QUALIFIERS:
            break
        at -= 1
    if at < 0 or tokens[at].kind in ("break", "row", "relation", "open"):
        return True
    word = tokens[at].text.lower()
    if word in ("and", "or"):  # of an outer list
        return not any(t.text.lower() in _LISTED for t in before(tokens, at, ".;:?"))
    return tokens[at].kind == "word" and (word == "to" or word not in _BOUND)
