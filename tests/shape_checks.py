"""The type checker that the whole test run puts on the package's functions."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype`, but neither on constructors nor on what returns `Self`.

    JAX rebuilds a dataclass of arrays with whatever a transformation puts in place of
    an array: tracers, shapes, shardings. None of these is the annotated type. `Self`
    beartype reads in classes that it decorates whole, which jaxtyping does not do.
    """
    hints = function.__annotations__.values()
    if function.__name__ == "__init__" or typing.Self in hints:
        return function
    return beartype.beartype(function)
