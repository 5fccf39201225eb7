"""Checks of what a caller of the API hands over: text, lists of steps, numbers.

Every error names the place: which solution, which of its steps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Set
from typing import Any

from aprm_jax.data.solutions import split_text

_MOST_SEED = 0xFFFFFFFF


def solutions(given: object) -> list[tuple[str, list[str]]]:
    """Pairs of a question and its steps, from 0.

    Raises:
      TypeError: something is of another type, such as None for a step.
      ValueError: a step is empty, or text cannot be encoded.
    """
    pairs = []
    for index, pair in enumerate(_items(given, "solutions", "(question, steps) pairs")):
        where = f"solution {index}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{where} must be (question, steps), not {_shown(pair)}")
        asked = text(pair[0], f"{where}: the question")  # a bare step may be judged
        pairs.append((asked, steps(pair[1], f"{where}: ")))
    return pairs


def steps(given: object, where: str = "", name: str = "steps") -> list[str]:
    """A list of steps; errors as of `solutions`, opened by `where` they are."""
    return [
        step(item, f"{where}{name}[{index}]")
        for index, item in enumerate(_items(given, f"{where}{name}", "steps"))
    ]


def candidates(given: object) -> list[tuple[str, ...]]:
    """Solutions of one question: lists of steps, or texts whose lines they are.

    One without any step is allowed, and so is a blank step: solvers write such, and a
    verifier says what it is worth. Other errors as of `solutions`.
    """
    found = []
    for index, item in enumerate(_items(given, "candidates", "solutions")):
        where = f"candidates[{index}]"
        if isinstance(item, str):
            found.append(split_text(text(item, where), "lines"))
        else:
            items = enumerate(_items(item, f"{where}: steps", "steps"))
            found.append(tuple(text(s, f"{where}: steps[{k}]") for k, s in items))
    return found


def step(given: object, where: str) -> str:
    """A step: text that is not empty."""
    found = text(given, where)
    if not found.strip():
        raise ValueError(f"{where} is empty: {found!r}")
    return found


def question(given: object) -> str:
    """A question: text that is not empty."""
    return step(given, "the question")


def text(given: object, where: str) -> str:
    """Text that can be encoded."""
    if not isinstance(given, str):
        raise TypeError(f"{where} must be text, not {_shown(given)}")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} is no text: a lone surrogate {given[error.start]!r} at "
            f"{error.start}"
        ) from None
    return str(given)


def choice(given: object, name: str, allowed: tuple[str, ...]) -> None:
    """One of a few words."""
    if given not in allowed:
        known = " or ".join(map(repr, allowed))
        raise ValueError(f"{name} must be {known}, not {given!r}")


def whole(given: object, name: str, least: int) -> None:
    """A whole number, NumPy's too."""
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {_shown(given)}")
    number: Any = given
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {given}")


def seed(given: object) -> None:
    """A seed: a whole number of 32 bits, of more of which JAX drops the rest."""
    whole(given, "seed", least=0)
    number: Any = given
    if number > _MOST_SEED:
        raise ValueError(f"seed must be at most {_MOST_SEED}, not {given}")


def name(given: object, what: str) -> None:
    """What a model is found by."""
    if not isinstance(given, str | os.PathLike):
        raise TypeError(
            f"{what} must be a folder or OWNER/NAME on the hub, not {_shown(given)}"
        )
    if not os.fspath(given):
        raise ValueError(f"{what} is empty: a folder or OWNER/NAME on the hub")


def not_negative(given: object, name: str) -> None:
    """A finite number that is not below 0."""
    number: Any = given
    if isinstance(given, bool | str) or not hasattr(given, "__float__"):
        raise TypeError(f"{name} must be a number, not {_shown(given)}")
    if not 0 <= float(number) < math.inf:
        raise ValueError(f"{name} must be finite and not negative, not {given}")


def share(given: object, name: str) -> None:
    """A number in (0, 1]."""
    not_negative(given, name)
    number: Any = given
    if not 0 < float(number) <= 1:
        raise ValueError(f"{name} must be in (0, 1], not {given}")


def _items(given: object, where: str, what: str) -> Iterable[object]:
    if isinstance(given, str | bytes):
        raise TypeError(f"{where} must be a list of {what}, not one string")
    if not isinstance(given, Iterable) or isinstance(given, Mapping | Set):
        raise TypeError(f"{where} must be a list of {what}, not {_shown(given)}")
    return given


def _shown(value: object) -> str:
    """A value and its type, not too long for a message."""
    if value is None:
        return "None"
    written = repr(value)
    short = written if len(written) <= 60 else f"{written[:57]}..."
    return f"{type(value).__name__} {short}"
