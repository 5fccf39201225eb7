"""What an oracle answers: one verdict of three values on a candidate step."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class Label(enum.IntEnum):
    """An oracle's answer. A timeout or unreadable text is UNDECIDABLE."""

    INCORRECT = 0
    CORRECT = 1
    UNDECIDABLE = 2


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A label with its kind of error and a reason that a person can read.

    Attributes:
      label: the verdict.
      kind: machine-readable category: one of the domain's kinds of wrong step for
        an incorrect one, `"correct"` or `"copied"` for a correct one, and
        the cause for an undecidable one.
      reason: one sentence for a person.
      span: the characters of the candidate that it rests on, where the oracle knows
        them.
    """

    label: Label
    kind: str
    reason: str = ""
    span: tuple[int, int] | None = None


def correct(reason: str) -> Verdict:
    """A verdict of that label."""
    return Verdict(Label.CORRECT, "correct", reason)


def incorrect(kind: str, reason: str, span: tuple[int, int] | None = None) -> Verdict:
    """A verdict of that label."""
    return Verdict(Label.INCORRECT, kind, reason, span)


def undecidable(kind: str, reason: str, span: tuple[int, int] | None = None) -> Verdict:
    """A verdict of that label."""
    return Verdict(Label.UNDECIDABLE, kind, reason, span)


def shown(text: str) -> str:
    """Hostile text for a message: short, and ASCII so that every log can write it."""
    text = " ".join(text[:80].split())
    return text.encode("ascii", "backslashreplace").decode("ascii")


@runtime_checkable
class Oracle(Protocol):
    """Judges whether a candidate may follow a prefix of correct steps."""

    def judge(
        self,
        question: str,
        prefix: Sequence[str],
        original: str | None,
        candidate: str,
    ) -> Verdict:
        """Returns the verdict on `candidate`; never raises on any text.

        Args:
          question: the problem.
          prefix: the steps before the candidate, all correct.
          original: the correct step that the candidate replaces, if known.
          candidate: the step to judge. Hostile text is expected.
        """
        ...
