r"""Answers with units: what a question says of its unit, and what answers it.

A data set may keep an answer as a bare number and a unit that has the power of ten in
it: 3.52 and `$10^{-19} \mathrm{~J}$`. The question is then asked as SciBench's own code
asks it, "The unit of the answer is $\mathrm{~J}$.", and what answers it is the whole
quantity, `3.52 \times 10^{-19} \mathrm{~J}`. Their code leaves a bare power of ten in
the unit; here it belongs to the number likewise, and no unit is said then.
"""

from __future__ import annotations

import re

_POWER = re.compile(
    r"(?:\\(?:times|cdot)\s*)?(?:\\mathrm\s*\{\s*)?10\s*\^\s*"
    r"(?:\{\s*(?P<braced>[-+]?\s*[0-9]+)\s*\}|(?P<bare>-?[0-9]+))(?P<tail>\s*\})?"
)
_EMPTY = re.compile(r"\$\s*\$|\{\s*\}(?=\s*\^)|\\(?:times|cdot)\s*$")
_DEGREE = re.compile(r"\^?\s*\{?\s*\^?\s*\\circ\s*\}?")
# What our grader reads in another spelling: of a percent a share would do as well.
_SPELT = {"%": "\\text{ in percent}", "$": "\\$", "e": "\\text{ elementary charges}"}


def with_unit(question: str, unit: str) -> str:
    """The question with a sentence behind it that says the unit; as it is without one.

    Args:
      question: the problem.
      unit: as the data set writes it; a power of ten in it is the answer's.
    """
    said = _said(unit)
    return f"{question} The unit of the answer is {said}." if said else question


def in_unit(number: str, unit: str) -> str:
    """The quantity that answers a question: the number, a power of ten, the unit.

    Args:
      number: the answer as a multiple of the unit.
      unit: see `with_unit`.
    """
    power = _exponent(unit)
    scaled = f"{number} \\times 10^{{{power}}}" if power else number
    name = _upright(_said(unit))
    return f"{scaled} {name}" if name else scaled


def _exponent(unit: str) -> int:
    """The power of ten that a unit begins with; 0 for none."""
    found = _POWER.search(unit)
    if found is None:
        return 0
    return int((found["braced"] or found["bare"]).replace(" ", ""))


def _said(unit: str) -> str:
    """A unit without its power of ten, and mathematics between dollar signs."""
    text = " ".join(_POWER.sub(_rest, unit, count=1).split())
    while text != (shorter := _EMPTY.sub("", text).strip()):
        text = shorter
    if text.strip("\\$ ") == "":
        return "$" if "$" in text else ""
    if _DEGREE.fullmatch(text.strip("$ ")):
        return "$^\\circ$"
    text = re.sub(r"^\$\s+|\s+\$$", "$", text)
    return f"${text}$" if re.search(r"[\\^_]", text) and "$" not in text else text


def _rest(power: re.Match[str]) -> str:
    """A brace that was closed behind the power of ten, not that round it: 10^{7 m}."""
    wrapped = "\\mathrm" in power[0]
    return "" if wrapped or not power["tail"] else power["tail"]


def _upright(unit: str) -> str:
    """A unit as a grader reads it behind a number: in roman type, bare of dollars."""
    name = re.sub(r"(?<!\\)\$", " ", unit).strip() if unit.strip() != "$" else "$"
    name = name.removeprefix("\\") if name in ("\\%", "\\$") else name
    if name in _SPELT or not name:
        return _SPELT.get(name, "")
    return name if "\\" in name else f"\\mathrm{{{name}}}"
