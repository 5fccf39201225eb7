"""A field of the config: its default, what it means, and what it may be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a value may be, beyond its type; for a tuple, each of its items.

    Attributes:
      choices: all that is allowed; () for anything.
      least: the smallest value.
      above: what every value is greater than.
      most: the largest value.
      below: what every value is less than.
      distinct: whether no item of a tuple may stand there twice.
    """

    choices: tuple[Any, ...] = ()
    least: int | float = -math.inf
    above: int | float = -math.inf
    most: int | float = math.inf
    below: int | float = math.inf
    distinct: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of "field …"; None if nothing is."""
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be a finite number, not {value!r}"
        if self.choices and value not in self.choices:
            known = ", ".join(str(c) or '""' for c in self.choices)
            return f"must be one of {known}; it is {value!r}."
        if not self.bounded:
            return None
        if self.least <= value <= self.most and self.above < value < self.below:
            return None
        return f"{self._rule(value)}, not {value!r}"

    @property
    def bounded(self) -> bool:
        """Whether not every number is allowed."""
        lowest, highest = (self.least, self.above), (self.most, self.below)
        return max(lowest) > -math.inf or min(highest) < math.inf

    def _rule(self, value: Any) -> str:
        low, high = max(self.least, self.above), min(self.most, self.below)
        if high < math.inf and isinstance(value, int):
            return f"must be from {low} to {high}"
        if high < math.inf:
            opened = "(" if self.above > -math.inf else "["
            closed = ")" if self.below < math.inf else "]"
            return f"is a share in {opened}{low:g}, {high:g}{closed}"
        if self.above > -math.inf:
            return "must be positive" if not self.above else f"is above {self.above:g}"
        if isinstance(value, float) and not self.least:
            return "must not be negative"
        return f"must be at least {self.least:g}"


def setting(
    default: T,
    meaning: str,
    *,
    choices: tuple[Any, ...] = (),
    least: int | float = -math.inf,
    above: int | float = -math.inf,
    most: int | float = math.inf,
    below: int | float = math.inf,
    distinct: bool = False,
    only: tuple[str, ...] = (),
) -> T:
    """A field of a frozen dataclass of settings; for the rest see `Limits`.

    Args:
      default: its value where nobody sets it, and its type.
      meaning: its unit or its consequence, in a line or two.
      only: jobs whose results depend on it; () for all that read its group.
    """
    limits = Limits(choices, least, above, most, below, distinct)
    said = {"meaning": meaning, "limits": limits, "only": only}
    # Not a default of the class: what a job does not read would fall back to that.
    field: Any = dataclasses.field(default_factory=lambda: default, metadata=said)
    return field


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field as the schema knows it, by its dotted name; see `setting`."""

    name: str
    type: str
    default: Any
    meaning: str
    limits: Limits
    only: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The dotted name of what it is a part of; "" for the run's own fields."""
        return self.name.rpartition(".")[0]


def settings_of(cls: type, prefix: str = "") -> Iterator[Setting]:
    """The fields of a dataclass of settings and of the groups in it, in order."""
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        if group := group_of(field):
            yield from settings_of(group, f"{name}.")
        elif "meaning" in field.metadata:
            written = field.type if isinstance(field.type, str) else field.type.__name__
            default: Any = field.default_factory
            yield Setting(name, written, default(), **field.metadata)


def group_of(field: dataclasses.Field) -> type | None:
    """The dataclass of a field that is a group of settings; None of a setting."""
    made = field.default_factory
    return made if isinstance(made, type) and dataclasses.is_dataclass(made) else None


def items_of(value: Any) -> tuple[Any, ...]:
    """What `Limits` hold for: the items of a tuple, or the value itself."""
    return value if isinstance(value, tuple) else (value,)
