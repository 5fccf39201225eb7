"""Mechanical corruptions of a line of arithmetic, which know nothing of the rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from aprm_jax.oracle.embedded.rewriting import (
    OPERATORS,
    MalformedExpressionError,
    Tokens,
    is_number,
    parse,
    simplify,
    write,
)


def corrupt(rng: np.random.Generator, step: str) -> str | None:
    """A random corruption of a step; None where there is none."""
    try:
        tokens = parse(step)
    except MalformedExpressionError:
        return None
    for k in rng.permutation(len(_CORRUPTIONS)):
        corrupted = _CORRUPTIONS[k](rng, tokens)
        if corrupted is not None:
            return write(corrupted)
    return None


def _change_number(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """Another digit in the place of one digit."""
    at = _pick(rng, [i for i, t in enumerate(tokens) if is_number(t)])
    digits = list(tokens[at])
    k = int(rng.integers(len(digits)))
    digits[k] = str((int(digits[k]) + int(rng.integers(1, 10))) % 10)
    changed = str(int("".join(digits)))  # without a zero in front
    return (*tokens[:at], changed, *tokens[at + 1 :])


def _change_operator(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    places = [i for i, t in enumerate(tokens) if t in OPERATORS]
    if not places:
        return None
    at = _pick(rng, places)
    others = [operator for operator in OPERATORS if operator != tokens[at]]
    return (*tokens[:at], others[int(rng.integers(2))], *tokens[at + 1 :])


def _drop_term(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """An operator and the number after it are left out."""
    places = _terms(tokens)
    if not places:
        return None
    at = _pick(rng, places)
    return simplify((*tokens[:at], *tokens[at + 2 :]))


def _duplicate_term(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """An operator and the number after it are written twice."""
    places = _terms(tokens)
    if not places:
        return None
    at = _pick(rng, places)
    return (*tokens[: at + 2], *tokens[at : at + 2], *tokens[at + 2 :])


def _swap_numbers(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    """Two different numbers change places."""
    numbers = [i for i, t in enumerate(tokens) if is_number(t)]
    pairs = [(i, j) for i in numbers for j in numbers if i < j]
    pairs = [(i, j) for i, j in pairs if tokens[i] != tokens[j]]
    if not pairs:
        return None
    i, j = pairs[int(rng.integers(len(pairs)))]
    swapped = list(tokens)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return tuple(swapped)


def _drop_brackets(rng: np.random.Generator, tokens: Tokens) -> Tokens | None:
    del rng
    bare = tuple(t for t in tokens if t not in ("(", ")"))
    return bare if bare != tokens else None


def _pick(rng: np.random.Generator, places: Sequence[int]) -> int:
    return places[int(rng.integers(len(places)))]


def _terms(tokens: Tokens) -> list[int]:
    """Places of operators that have a number after them."""
    return [
        i
        for i, (operator, after) in enumerate(itertools.pairwise(tokens))
        if operator in OPERATORS and is_number(after)
    ]


_CORRUPTIONS: tuple[Callable[[np.random.Generator, Tokens], Tokens | None], ...] = (
    _change_number,
    _change_operator,
    _drop_term,
    _duplicate_term,
    _swap_numbers,
    _drop_brackets,
)
