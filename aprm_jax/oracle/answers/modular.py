"""Exact identity of rational functions: by their values modulo a prime drawn by a key.

Two rational functions that agree at a random point modulo a random prime of 127 bits
are one, but for a chance of about their degree in 2^127 (Schwartz 1980, Zippel 1979):
no digits are lost to a large power, and who writes an answer cannot know the point.
What is no rational function (a root, a sine) counts as one more variable, so that a
difference there proves nothing.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

from aprm_jax.oracle.answers.tokens import Term
from aprm_jax.oracle.answers.values import Budget, scalar
from aprm_jax.oracle.numbers import NumberError

_BITS = 127
_MAX_EXPONENT = 10**18
_COST = 5  # of an operation, in sums of two numbers


class _Undefined(Exception):
    """The value at this point, modulo this prime, does not exist."""


def draw(key: str, name: str, bits: int) -> int:
    """A number that looks random, the same for the same key and name."""
    text = f"{key}\x00{name}".encode(errors="surrogatepass")
    size = -(-bits // 8)
    digest = hashlib.blake2b(text, digest_size=min(size, 64)).digest()
    return int.from_bytes(digest, "big") >> (8 * size - bits)


def congruent(a: Term, b: Term, key: str, budget: Budget) -> bool | None:
    """Whether two terms are one rational function.

    Args:
      a: a term.
      b: another one.
      key: what the point and the prime are drawn by.
      budget: pays for the work; NumberError when it is used up.

    Returns:
      None where they differ in what is no rational function, or are not defined.
    """
    try:
        found = _Residue(key, budget)
        same = found.value(a) == found.value(b)
    except (_Undefined, RecursionError):
        return None
    return True if same else None if found.opaque else False


def _prime(key: str) -> int:
    number = draw(key, "prime", _BITS) | 1 << (_BITS - 1) | 1
    while any(pow(base, number - 1, number) != 1 for base in (2, 3, 5, 7)):
        number += 2
    return number


class _Residue:
    """Values of terms modulo one prime, at one point."""

    def __init__(self, key: str, budget: Budget):
        self.key = key
        self.prime = _prime(key)
        self.budget = budget
        self.opaque = False

    def value(self, term: Term) -> int:
        self.budget.spend(_COST)
        op, args = term.op, term.args
        if op == "num":
            return self.fraction(term.value)
        if op == "sym":
            return draw(self.key, f"sym {term.name}", _BITS + 64) % self.prime
        if op in ("unit", "side"):
            return self.value(args[0])
        if op == "neg":
            return -self.value(args[0]) % self.prime
        if op == "add":
            return (self.value(args[0]) + self.value(args[1])) % self.prime
        if op == "mul":
            return self.value(args[0]) * self.value(args[1]) % self.prime
        if op == "div":
            return self.quotient(self.value(args[0]), self.value(args[1]))
        if op == "percent":
            return self.quotient(self.value(args[0]), 100)
        if op == "pow":
            return self.power(term)
        if op in ("factorial", "binomial"):
            try:
                number = scalar(term, self.budget)
            except NumberError:
                number = None
            if isinstance(number, Fraction):
                return self.fraction(number)
        return self.other(term)

    def power(self, term: Term) -> int:
        base, exponent = term.args
        try:
            count = scalar(exponent, self.budget)
        except NumberError:
            return self.other(term)
        if not isinstance(count, Fraction) or count.denominator != 1:
            return self.other(term)
        if abs(count) > _MAX_EXPONENT:
            return self.other(term)
        value = self.value(base)
        if not value and count <= 0:
            raise _Undefined
        return pow(value, count.numerator, self.prime)

    def other(self, term: Term) -> int:
        """A variable of its own for what is no rational function."""
        self.opaque = True
        if term.op in ("matrix", "row", "tuple", "set", "list", "rel", "text"):
            raise _Undefined
        inside = ",".join(str(self.value(arg)) for arg in term.args)
        return (
            draw(self.key, f"{term.op} {term.name} {inside}", _BITS + 64) % self.prime
        )

    def fraction(self, value: Fraction) -> int:
        return self.quotient(value.numerator, value.denominator)

    def quotient(self, above: int, below: int) -> int:
        if not below % self.prime:
            raise _Undefined
        return above * pow(below, -1, self.prime) % self.prime
