"""Numbers with units, and with words such as `dozen` and `million`."""

from __future__ import annotations

import abc
from dataclasses import replace
from fractions import Fraction

from aprm_jax.oracle.answers.atoms import Atoms
from aprm_jax.oracle.answers.tokens import (
    CONSTANTS,
    FUNCTIONS,
    JOINING,
    PERCENT,
    RELATIONS,
    Term,
    Token,
    is_numeric,
    number,
)
from aprm_jax.oracle.numerals import multiple, part
from aprm_jax.oracle.units import DOLLAR, LETTERS, conversion, is_unit, read_unit

_UPRIGHT = LETTERS | {"T", "D"}  # tesla, debye: in roman type no variables


class Quantities(Atoms, abc.ABC):
    """Reads what stands behind a number and says of what it is one."""

    def multiple(self, left: Term) -> Fraction | int | None:
        """How many a `dozen`, `million`, `tenth` or the like behind a number is."""
        token = self.peek()
        if token is None or token.kind not in ("word", "text"):
            return None
        counts = left.op == "unit" or is_numeric(left)
        word = token.text.strip()
        return (multiple(word) or part(word)) if counts else None

    def multiplied(self, left: Term, factor: Term) -> Term:
        if left.op == "unit":  # $5 million
            return replace(left, args=(self.joined("mul", (left.args[0], factor)),))
        return self.joined("mul", (left, factor))

    def smaller(self, whole: Term) -> Term | None:
        """`1 hour 30 minutes`: a quantity and a smaller one; None for anything else."""
        token, start = self.peek(), self.at
        if token is None or token.kind != "num":
            return None
        value = self.power()
        less = self.unit(value)
        if less is None and (here := self.peek()) and here.text in LETTERS:
            self.at += 1
            less = Term("unit", (value,), unit=read_unit(here.text))
        factor = conversion(whole.unit, less.unit) if less else None
        if less is None or not factor or factor <= 1 or less.unit is None:
            self.at = start
            return None
        larger = self.joined("mul", (number(factor), whole.args[0]))
        total = self.joined("add", (larger, less.args[0]))
        if whole.unit == DOLLAR:  # 5.25 of 5 dollars 25 cents
            total = self.joined("div", (total, number(factor)))
            return Term("unit", (total,), unit=DOLLAR)
        return Term("unit", (total,), unit=less.unit)

    def rate(self, left: Term) -> bool:
        """Whether `/hour` or `an hour` comes behind a quantity."""
        if left.op != "unit" or not self.sees("/", "a", "an"):
            return False
        after = self.peek(1)
        return after is not None and after.kind in ("word", "text")

    def unit(self, left: Term) -> Term | None:
        """The number with its unit, where one follows; the rest is consumed."""
        if left.op not in ("unit", "text") and not is_numeric(left):
            return None
        token = self.peek()
        if token is None or not (self.rate(left) or self.names_unit(token)):
            return None
        start = self.at
        while (token := self.peek()) is not None:
            if token.kind == "op" and token.text in ",;)]=<>:+":
                break
            if token.kind in ("text", "word") and (
                token.text.strip().lower() in JOINING
            ):
                break
            if token.kind == "cmd" and token.text in (*RELATIONS, "cup", "}", "\\"):
                break
            if self.sees("}") and not self.opened(start):
                break
            if token.kind == "num" and self.at > start and token.spaced:
                break
            self.at += 1
        if self.at == start:
            return None
        found = read_unit(self.raw(start))
        if found and left.op == "unit" and left.unit:  # $5 per hour
            return replace(left, unit=left.unit.times(found))
        return Term("unit", (left,), unit=found)

    def opened(self, start: int) -> bool:
        braces = [t.text for t in self.tokens[start : self.at] if t.kind == "op"]
        return braces.count("{") > braces.count("}")

    def names_unit(self, token: Token) -> bool:
        content = token.text.replace("~", " ").strip()
        if token.kind == "text":
            if content.lower() in JOINING or (
                content in FUNCTIONS and not is_unit(content)
            ):
                return False
            return len(content) != 1 or content in _UPRIGHT or not content.isascii()
        if token.kind == "cmd":
            if token.text == "$":
                return not (self.peek(1) and self.starts_after())
            return token.text in ("mu", "Omega", "circ") and self.wraps_next()
        if token.kind == "op":
            return token.text == "$"
        if token.kind != "word" or content.lower() in (*CONSTANTS, *PERCENT):
            return False
        if content in FUNCTIONS and not is_unit(content):
            return False
        if content in ("sq", "cu", "of"):
            return True
        if content in ("min", "sec"):  # "5 min", but not "5 min(a, b)"
            return not self.sees("(", "{", "^", ahead=1)
        if content == "am" and token.kind == "word":
            return token.spaced  # else a times m
        if is_unit(content):
            return True
        if len(content) == 1 and content in LETTERS:
            return self.smaller_follows() or (
                self.sees("/", ahead=1)
                and self.peek(2) is not None
                and ((self.peek(2) or token).kind in ("word", "text"))
            )
        return len(content) > 2 and (token.spaced or len(content) > 3)

    def smaller_follows(self) -> bool:
        """Whether a number and a unit come next, as behind the `h` of `1 h 15 min`."""
        count, unit = self.peek(1), self.peek(2)
        if count is None or unit is None or not count.spaced:
            return False
        named = unit.text in LETTERS or is_unit(unit.text)
        return count.kind == "num" and unit.kind == "word" and named

    def wraps_next(self) -> bool:
        after = self.peek(1)
        return after is None or after.kind in ("text", "word")

    def starts_after(self) -> bool:
        after = self.peek(1)
        return after is not None and after.kind == "num"
