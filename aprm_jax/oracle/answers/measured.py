r"""A given answer as a quantity in the unit of the expected one.

The parser takes letters for variables where nothing says otherwise: `3 J s` is a
product of three. Where the expected answer has a unit, letters that spell it are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aprm_jax.oracle.answers.terms import parse
from aprm_jax.oracle.answers.tokens import Term, TermError
from aprm_jax.oracle.units import read_unit

_POWER = r"10\s*\^\s*(?:\{\s*[-+]?[0-9]{1,4}\s*\}|[-+]?[0-9]{1,4})"
# Words and commands, with exponents; no other number, and no sum.
_UNIT = (
    r"(?:\\[a-zA-Z]+|[a-zA-ZμµΩÅå°%$€£¥][0-9]?|\^\s*\{?\s*-?[0-9]\s*\}?"
    r"|\^(?=\s*\{?\s*\\circ)|[\s{}~*/()]|-(?=[a-zA-Z\\]))++"
)
_QUANTITY = re.compile(
    r"(?P<number>[-+]?\s*(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)"
    rf"(?:[eE][-+]?[0-9]{{1,4}})?(?:\s*(?:\\times|\\cdot|\*)\s*{_POWER})?)"
    rf"\s*(?P<unit>{_UNIT})"
)


def measured(given: str, wanted: Iterable[Term]) -> list[Term]:
    """The given answer as a number with a unit, where an expected one has such a unit.

    Args:
      given: a cleaned answer.
      wanted: the terms that the expected answer may be.

    Returns:
      The quantity, or nothing where the text is none of the same dimension.
    """
    units = [term.unit for term in wanted if term.op == "unit" and term.unit]
    found = _QUANTITY.fullmatch(given) if units else None
    if found is None:
        return []
    letter = re.sub(r"[\s{}~]|\\(?:text|mathrm|rm)\b", "", found["unit"])
    scale = letter in ("C", "F") and any(u.zero is not None for u in units)
    unit = read_unit(f"°{letter}" if scale else found["unit"])  # 25 C, of 25 °C
    if unit is None or not (unit.powers or len(letter) == 1):
        return []  # whose words the parser reads
    if all(unit.powers != u.powers for u in units):
        return []
    try:
        return [Term("unit", (parse(found["number"]),), unit=unit)]
    except TermError:
        return []
