"""Worded problems: writes an expression as a grade-school story and reads it back.

The grammar maps every story to exactly one expression (names, things and verbs vary):

    story  := NAME "has" term ("," (GAIN | LOSS) term)* "."      GAIN is +, LOSS is -
    term   := chain | [holder] CONTAINER "each" "with" inner | "a bundle with" inner
    chain  := (number CONTAINER "of")* number THING              a product
    inner  := chain (("and" | "less") chain)*                    a bracket, + or -

so `2 bags each with 3 pens and 4 pens` is `2 * ( 3 + 4 )` and
`2 boxes of 3 bags of 4 pens` is `2 * 3 * 4`. A bracket that is not the last factor of
its product has no wording.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np

from aprm_jax.oracle.embedded.rewriting import MAX_CHARS, MAX_DIGITS, Tokens, is_number

NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn")
THINGS = ("coins", "pens", "eggs", "cards", "shells", "beads")
CONTAINERS = ("rooms", "crates", "boxes", "bags", "jars")  # outer to inner
GAINS = ("gets", "finds", "wins", "buys")
LOSSES = ("loses", "sells", "drops", "breaks")
_FRAME = ("has", "of", "each", "with", "a", "bundle", "and", "less", ",", ".")
_PIECE = re.compile(r"[0-9]+|[A-Za-z]+|\S")
_NUMBER = re.compile(rf"0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}}")
WORDS: tuple[str, ...] = (*NAMES, *THINGS, *CONTAINERS, *GAINS, *LOSSES, *_FRAME)


class MalformedStoryError(ValueError):
    """The text is not a story of the grammar; the message says why."""


def write_story(tokens: Tokens, rng: np.random.Generator) -> str | None:
    """A story for an expression; None where the grammar has none."""
    terms = _terms(tokens)
    if any("(" in factor for _, term in terms for factor in term[:-1]):
        return None
    if any(len(term) > len(CONTAINERS) for _, term in terms):
        return None

    def pick(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    thing = pick(THINGS)
    words = [pick(NAMES), "has"]
    for k, (sign, term) in enumerate(terms):
        if k:
            words += [",", pick(GAINS if sign == "+" else LOSSES)]
        words += _write_term(term, thing, rng)
    return " ".join([*words, "."])


def _terms(tokens: Tokens) -> list[tuple[str, list[Tokens]]]:
    """Signed products of an expression; a factor is a number or a whole bracket."""
    terms: list[tuple[str, list[Tokens]]] = [("+", [])]
    i = 0
    while i < len(tokens):
        if tokens[i] == "(":
            end = tokens.index(")", i)
            terms[-1][1].append(tokens[i : end + 1])
            i = end
        elif is_number(tokens[i]):
            terms[-1][1].append((tokens[i],))
        elif tokens[i] != "*":
            terms.append((tokens[i], []))
        i += 1
    return terms


def _write_term(term: list[Tokens], thing: str, rng: np.random.Generator) -> list[str]:
    *holders, last = term
    chosen = sorted(rng.choice(len(CONTAINERS), len(holders), replace=False))
    containers = [CONTAINERS[i] for i in chosen]
    words: list[str] = []
    for factor, container in zip(holders, containers, strict=True):
        words += [factor[0], container, "of"]
    if last[0] != "(":
        return [*words, last[0], thing]
    words = [*words[:-1], "each", "with"] if words else ["a", "bundle", "with"]
    for k, (sign, chain) in enumerate(_terms(last[1:-1])):
        if k:
            words.append("and" if sign == "+" else "less")
        words += _write_term(chain, thing, rng)
    return words


@functools.lru_cache(maxsize=1 << 14)
def read_story(text: str) -> Tokens:
    """The expression that a story means.

    Raises:
      MalformedStoryError: the text is not a story of the grammar.
    """
    if len(text) > MAX_CHARS:
        raise MalformedStoryError(f"more than {MAX_CHARS} characters")
    return _Reader(_PIECE.findall(text)).story()


class _Reader:
    """Recursive descent over words; depth is bounded, brackets do not nest."""

    def __init__(self, words: list[str]):
        self._words = words
        self._at = 0
        self._thing: str | None = None
        self._bracketed = False

    def story(self) -> Tokens:
        self._take(NAMES)
        self._take(("has",))
        tokens = self._term()
        while self._take((",", ".")) == ",":
            tokens.append("+" if self._take((*GAINS, *LOSSES)) in GAINS else "-")
            tokens += self._term()
        if self._at != len(self._words):
            raise MalformedStoryError("words after the end")
        return tuple(tokens)

    def _peek(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _take(self, allowed: Sequence[str]) -> str:
        word = self._peek()
        if word not in allowed:
            raise MalformedStoryError(f"{word[:16]!r} where {allowed[0]!r} may stand")
        self._at += 1
        return word

    def _number(self) -> str:
        number = self._peek()
        if not _NUMBER.fullmatch(number):
            raise MalformedStoryError(f"{number[:16]!r} where a number may stand")
        self._at += 1
        return number

    def _term(self) -> list[str]:
        if self._peek() == "a":
            for word in ("a", "bundle", "with"):
                self._take((word,))
            return self._inner()
        tokens = self._chain(may_hold=True)
        return [*tokens, *self._inner()] if tokens[-1] == "*" else tokens

    def _chain(self, may_hold: bool) -> list[str]:
        """A product; with `may_hold` it may end in `*` before a bracket."""
        tokens: list[str] = []
        while True:
            tokens.append(self._number())
            if self._peek() not in CONTAINERS:
                break
            self._at += 1
            tokens.append("*")
            if may_hold and self._peek() == "each":
                self._at += 1
                self._take(("with",))
                return tokens
            self._take(("of",))
        thing = self._take(THINGS if self._thing is None else (self._thing,))
        self._thing = thing
        return tokens

    def _inner(self) -> list[str]:
        if self._bracketed:
            raise MalformedStoryError("a second bracket")
        self._bracketed = True
        tokens = self._chain(may_hold=False)
        while self._peek() in ("and", "less"):
            tokens.append("+" if self._take(("and", "less")) == "and" else "-")
            tokens += self._chain(may_hold=False)
        if len(tokens) == 1:
            raise MalformedStoryError("a bracket around a single number")
        return ["(", *tokens, ")"]
