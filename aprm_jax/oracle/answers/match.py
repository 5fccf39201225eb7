"""Whether two answers, read as terms, say the same: one rule for each form."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from aprm_jax.oracle.answers import values
from aprm_jax.oracle.answers.clean import plain
from aprm_jax.oracle.answers.identity import (
    constant_ratio,
    identical,
    same_value,
    samples,
)
from aprm_jax.oracle.answers.modular import congruent
from aprm_jax.oracle.answers.names import (
    apart,
    by_case,
    clash,
    free_constant,
    in_alphabet,
    named,
    normal,
    of_integers,
    ordered,
    renamed,
    same_unknown,
    substitute,
)
from aprm_jax.oracle.answers.rounding import rounded_in
from aprm_jax.oracle.answers.rules import (
    COLLECTIONS,
    FLIP,
    MAX_ITEMS,
    SETS,
    Tolerance,
    cleared,
    clock,
    converted,
    difference,
    flat,
    in_base,
    in_percent,
    in_radians,
    infinite,
    is_set_symbol,
    noun,
    pairing,
    same_brackets,
    spread,
    stated,
    times,
    unit_of,
    without_letter,
    without_percent,
)
from aprm_jax.oracle.answers.sets import RealSet, real_set
from aprm_jax.oracle.answers.tokens import Term, number
from aprm_jax.oracle.answers.vectors import added, in_components
from aprm_jax.oracle.numbers import (
    Number,
    NumberError,
    as_fraction,
    is_real,
    real,
    same_number,
)
from aprm_jax.oracle.rounding import restates
from aprm_jax.oracle.units import conversion


class Matcher:
    """Compares terms; `same` answers None where it cannot tell.

    Args:
      tolerance: for numbers, beside the rules for rounded decimals.
      key: what the points are drawn by, at which expressions are compared.
    """

    def __init__(self, tolerance: Tolerance, key: str):
        self.tolerance = tolerance
        self.budget = values.Budget(key=key)

    def same(self, given: Term, expected: Term) -> bool | None:
        """Whether two answers are one; never raises NumberError."""
        try:
            return self._same(given, expected)
        except NumberError:
            return None

    def _same(self, given: Term, expected: Term) -> bool | None:
        self.budget.spend()
        given, expected = of_integers(given, expected)
        if (given.op == "list") != (expected.op == "list"):
            given, expected = apart(given), apart(expected)
        (name_a, a), (name_b, b) = named(given), named(expected)
        if name_a and name_b:
            if clash(name_a, name_b) and ordered(name_a, a, name_b) is a:
                return self._both_equations(given, expected)
            a = renamed(name_a, ordered(name_a, a, name_b))
            b = renamed(name_b, b)
        if b.op == "rel" and a.op == "rel":
            return self._relations(a, b)
        if (b.op == "rel") != (a.op == "rel"):
            return self._relation_and(given, a, expected, b)
        a, b = added(spread(a)), added(spread(b))
        if a.op in SETS or b.op in SETS or is_set_symbol(a) or is_set_symbol(b):
            return self._sets(a, b)
        if a.op in COLLECTIONS or b.op in COLLECTIONS:
            return self._collections(a, b)
        return self._single(a, b)

    # Relations.

    def _relations(self, a: Term, b: Term) -> bool | None:
        if not same_unknown(a, b) and "=" not in (a.name, b.name):
            return False
        signs_a, signs_b = set(a.name.split()), set(b.name.split())
        if signs_a == signs_b == {"="} and len(a.args) == len(b.args) == 2:
            return self._equations(a, b)
        sets = self._real_sets(a, b)
        if sets is not None:
            return self._same_set(*sets)
        if len(a.args) == len(b.args) == 2:
            return self._inequalities(a, b)
        if a.name == b.name and len(a.args) == len(b.args):
            return self._all(a.args, b.args)
        flipped = " ".join(FLIP.get(s, s) for s in reversed(a.name.split()))
        if flipped == b.name and len(a.args) == len(b.args):
            return self._all(tuple(reversed(a.args)), b.args)
        return False

    def _equations(self, a: Term, b: Term) -> bool | None:
        left, right = difference(a), difference(b)
        if constant_ratio(left, right, self.budget) is not None:
            return True
        if constant_ratio(cleared(left), cleared(right), self.budget) is not None:
            return True
        for one, other in ((a, right), (b, left)):
            solved = self._solves(one, other)
            if solved is not None:
                return solved
        if identical(left, right, self.budget) is None:
            return None
        return False

    def _solves(self, solved: Term, equation: Term) -> bool | None:
        """Whether `y = f(x)` turns the other equation, linear in y, into 0 = 0."""
        for name, value in (solved.args, reversed(solved.args)):
            variable = name.args[0]
            if variable.op != "sym" or variable.name in values.symbols(value):
                continue
            zero, one, two = (
                substitute(equation, variable.name, number(Fraction(k)))
                for k in (0, 1, 2)
            )
            bend = Term("add", (Term("add", (zero, two)), times(-2, one)))
            if not identical(bend, number(Fraction(0)), self.budget):
                continue
            slope = Term("add", (one, times(-1, zero)))
            if constant_ratio(slope, number(Fraction(1)), self.budget) is None:
                continue  # where it vanishes, the equation may have other solutions
            inserted = substitute(equation, variable.name, value.args[0])
            return identical(inserted, number(Fraction(0)), self.budget)
        return None

    def _inequalities(self, a: Term, b: Term) -> bool | None:
        sign_a, sign_b = a.name, b.name
        ratio = constant_ratio(difference(a), difference(b), self.budget)
        if ratio is None:
            return False
        if not is_real(ratio):
            return None
        if real(ratio) < 0:
            sign_a = FLIP.get(sign_a, sign_a)
        return sign_a == sign_b

    def _relation_and(
        self, given: Term, a: Term, expected: Term, b: Term
    ) -> bool | None:
        """An equation or inequality against something that is neither."""
        sets = self._real_sets(a, b)
        if sets is not None:
            return self._same_set(*sets)
        # `y = 2x + 1` was split into name and value; the other one was not.
        return self._both_equations(given, expected)

    def _both_equations(self, given: Term, expected: Term) -> bool | None:
        """Of two equations whether they say the same; False where one is none."""
        pair = (given, expected)
        if all(t.op == "rel" and t.name == "=" and len(t.args) == 2 for t in pair):
            return self._equations(given, expected)
        return False

    # Sets of real numbers.

    def _real_sets(self, a: Term, b: Term) -> tuple[RealSet, RealSet] | None:
        left, right = real_set(a, self.budget), real_set(b, self.budget)
        return None if left is None or right is None else (left, right)

    def _sets(self, a: Term, b: Term) -> bool | None:
        sets = self._real_sets(a, b)
        if sets is not None:
            return self._same_set(*sets)
        if is_set_symbol(a) and is_set_symbol(b):
            return a.name == b.name
        if a.op == b.op and a.op in SETS:
            return self._matching(flat(a), flat(b))
        return None if a.op in SETS and b.op in SETS else False

    def _same_set(self, a: RealSet, b: RealSet) -> bool | None:
        if len(a.pieces) != len(b.pieces):
            return False
        for x, y in zip(a.pieces, b.pieces, strict=True):
            if (x.low_closed, x.high_closed) != (y.low_closed, y.high_closed):
                return False
            for end, other in ((x.low, y.low), (x.high, y.high)):
                if (end.value is None) != (other.value is None):
                    return False
                if end.value is not None and not self._single(end.term, other.term):
                    return False
        return True

    # Collections.

    def _collections(self, a: Term, b: Term) -> bool | None:
        if len(a.args) > MAX_ITEMS or len(b.args) > MAX_ITEMS:
            return None
        if a.op == b.op == "tuple":
            if not same_brackets(a, b):
                return False
            return self._all(a.args, b.args)
        if a.op == "matrix" or b.op == "matrix":
            return self._matrix_and_tuple(a, b)
        if "tuple" in (a.op, b.op) or "rel" in [x.op for x in (*a.args, *b.args)]:
            sets = self._real_sets(a, b)
            if sets is not None and "rel" in [x.op for x in (*a.args, *b.args)]:
                return self._same_set(*sets)
        if "tuple" in (a.op, b.op):
            return self._tuple_and(a, b)
        a, b = by_case(a), by_case(b)
        if any(x.op in COLLECTIONS and not x.args for x in (a, b)):  # the empty set
            return a.op == b.op and len(a.args) == len(b.args)
        return self._matching(
            a.args if a.op in COLLECTIONS else (a,),
            b.args if b.op in COLLECTIONS else (b,),
        )

    def _tuple_and(self, a: Term, b: Term) -> bool | None:
        """`(2, 3)` against `2, 3`, a set, or a single value."""
        other = b if a.op == "tuple" else a
        if other.op == "list":
            if any(named(item)[1].op == "tuple" for item in other.args):
                return False
            by_name = in_alphabet(other)
            return self._all(*((x if x is not other else by_name).args for x in (a, b)))
        if other.op == "set":
            return len(other.args) == 1 and self._all(
                *(x.args if x is other else (x,) for x in (a, b))
            )
        size = len((a if other is b else b).args)
        parts = in_components(other, size, self.budget)
        if parts is None:
            return False
        return self._collections(*(parts if x is other else x for x in (a, b)))

    def _matrix_and_tuple(self, a: Term, b: Term) -> bool | None:
        """A row or column against a tuple, or any matrix against a tuple of rows."""
        matrix, other = (a, b) if a.op == "matrix" else (b, a)
        if other.op != "tuple" or other.name not in ("()", "[]"):
            return False
        if all(row.op == "tuple" and row.name == "[]" for row in other.args):
            if len(matrix.args) != len(other.args):
                return False
            rows = zip(a.args, b.args, strict=True)
            verdicts = [self._all(x.args, y.args) for x, y in rows]
            return False if False in verdicts else None if None in verdicts else True
        entries = tuple(entry for row in matrix.args for entry in row.args)
        if len(matrix.args) > 1 and len(matrix.args[0].args) > 1:
            return False
        return self._all(entries, b.args) if matrix is a else self._all(a.args, entries)

    def _all(self, given: Sequence[Term], expected: Sequence[Term]) -> bool | None:
        if len(given) != len(expected):
            return False
        verdicts = [self.same(a, b) for a, b in zip(given, expected, strict=True)]
        return False if False in verdicts else None if None in verdicts else True

    def _matching(self, given: Sequence[Term], expected: Sequence[Term]) -> bool | None:
        """Whether the items can be paired, in any order; doubles count once."""
        if len(given) > MAX_ITEMS or len(expected) > MAX_ITEMS:
            return None
        here, there = ([normal(named(x)[0]) for x in y] for y in (given, expected))
        if not any([*here, *there]):
            here, there = ([noun(x) for x in y] for y in (given, expected))
        # A = 1, B = 2 is not A = 2, B = 1, though a name alone may be any.
        strict = all(here) and sorted(here) == sorted(there) and len(set(here)) > 1
        columns = list(zip(expected, there, strict=True))
        table = [
            [(not strict or x == y) and self.same(a, b) for b, y in columns]
            for a, x in zip(given, here, strict=True)
        ]
        open_ = any(None in row for row in table)
        if len(given) != len(expected):
            covered = all(True in row for row in table) and all(
                any(row[k] for row in table) for k in range(len(expected))
            )
            return True if covered and not open_ else None if open_ else False
        if pairing([[v is True for v in row] for row in table]):
            return True
        return (
            None
            if pairing([[v is not False for v in row] for row in table])
            else (False)
        )

    # Single values.

    def _single(self, a: Term, b: Term) -> bool | None:
        if a.op == "text" or b.op == "text":
            return self._texts(a, b)
        if a.op == "based" or b.op == "based":
            return self._in_base(a, b)
        if a.op == "ratio" or b.op == "ratio":
            return self._ratios(a, b)
        if b.op == "unit" or a.op == "unit":
            return self._quantities(a, b)
        if infinite(a) or infinite(b):
            return infinite(a) == infinite(b)
        if a.op == "matrix" and b.op == "matrix":
            if len(a.args) != len(b.args):
                return False
            rows = zip(a.args, b.args, strict=True)
            verdicts = [self._all(x.args, y.args) for x, y in rows]
            return False if False in verdicts else None if None in verdicts else True
        if "matrix" in (a.op, b.op):
            matrix = a if a.op == "matrix" else b
            size = sum(len(row.args) for row in matrix.args)
            pair = [
                t if t is matrix else in_components(t, size, self.budget)
                for t in (a, b)
            ]
            if pair[0] is not None and pair[1] is not None:
                return self._matrix_and_tuple(pair[0], pair[1])
        return self._values(a, b)

    def _texts(self, a: Term, b: Term) -> bool | None:
        if a.op != b.op:
            return False
        return plain(a.name) == plain(b.name)

    def _in_base(self, a: Term, b: Term) -> bool:
        """`204` against `204_5`: like a unit, the base may be left out."""
        if b.op == "based" and a.op == "num":
            return a.name == b.name.partition("_")[0]
        if a.op != b.op or a.name == b.name:
            return a.op == b.op
        value = in_base(a.name)
        return value is not None and value == in_base(b.name)

    def _ratios(self, a: Term, b: Term) -> bool | None:
        if a.op == b.op:
            if len(a.args) != len(b.args):
                return False
            if self._all(a.args, b.args):
                return True
            if any(map(clock, (a, b))):
                return False
            heads = [Term("div", (x, y)) for x, y in zip(a.args, b.args, strict=True)]
            return all(identical(heads[0], head, self.budget) for head in heads[1:])
        return self._values(a, b)

    def _quantities(self, a: Term, b: Term) -> bool | None:
        a, b = without_letter(a), without_letter(b)
        a, b = in_radians(a, b), in_radians(b, a)
        a, b = in_percent(a, b), in_percent(b, a)
        if a.op != "unit" and b.op != "unit":
            return self._single(a, b)
        unit_a, unit_b = unit_of(a), unit_of(b)
        if conversion(unit_a, unit_b) is None:
            return False
        inner_a, inner_b = (t.args[0] if t.op == "unit" else t for t in (a, b))
        # Rounded in one of the units, an answer need not be so in the other.
        verdict = self._single(converted(inner_a, unit_a, unit_b), inner_b)
        if verdict is not False or conversion(unit_a, unit_b) == 1:
            return verdict
        return self._single(inner_a, converted(inner_b, unit_b, unit_a))

    def _values(self, a: Term, b: Term) -> bool | None:
        names_a, names_b = values.symbols(a), values.symbols(b)
        if not names_a and not names_b:
            return self._numbers(a, b)
        if names_a and not names_b:  # `5 m`, where the answer is 5
            a = without_letter(a)
            if not values.symbols(a):
                return self._numbers(a, b)
        a, names_a = free_constant(a, names_a, names_b)
        verdict = identical(a, b, self.budget)
        if verdict is None and names_a != names_b:
            return False
        if verdict is False and names_a == names_b and self.tolerance == Tolerance():
            return rounded_in(a, b, self.budget) or rounded_in(b, a, self.budget)
        return verdict

    def _numbers(self, a: Term, b: Term) -> bool | None:
        a, b = in_radians(a, b), in_radians(b, a)
        for percent in (True, False):
            x, y = (a, b) if percent else map(without_percent, (a, b))
            if not percent and (x, y) == (a, b):
                break
            found = samples((x, y), self.budget)
            if not found:
                return congruent(x, y, self.budget.key, self.budget)
            (left, right), scale = found[0]
            if isinstance(left, tuple) or isinstance(right, tuple):
                return same_value(left, right, scale)
            if same_number(left, right, scale):
                exact = congruent(x, y, self.budget.key, self.budget)
                if exact is None and any(
                    values.extreme(t, self.budget) for t in (x, y)
                ):
                    return None
                return exact is not False
            if self._close(x, left, y, right):
                return True
        return False

    def _close(self, a: Term, x: Number, b: Term, y: Number) -> bool:
        if not is_real(x) or not is_real(y):
            return False
        given, expected = as_fraction(x), as_fraction(y)
        gap = abs(given - expected)
        bounds = self.tolerance
        if bounds.absolute is not None and gap <= bounds.absolute * Fraction(101, 100):
            return True
        if bounds.relative is not None and gap <= bounds.relative * abs(expected):
            return True
        if bounds.absolute is not None or bounds.relative is not None:
            return False
        return restates(given, expected, stated(a), stated(b))
