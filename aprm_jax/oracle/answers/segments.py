r"""The formulas in a text: `$...$`, `$$...$$`, `\(...\)`, `\[...\]`, in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_OPENING = re.compile(r"\$\$|(?<!\\)\$|\\[(\[]")
_CLOSING = {"$$": "$$", "\\(": "\\)", "\\[": "\\]"}
_INLINE = re.compile(r"(?:\\\$|[^$\n])+?(?<!\\)\$")


class Segment(NamedTuple):
    """Where a formula stands with its marks, and what is between them."""

    start: int
    end: int
    content: str


def segments(text: str) -> Iterator[Segment]:
    """The formulas of a text, from left to right; one without an end is none."""
    at = 0
    unclosed: set[str] = set()  # marks that nothing closes from here on
    while (opening := _OPENING.search(text, at)) is not None:
        mark, inside = opening[0], opening.end()
        end = 0
        if mark == "$":
            match = _INLINE.match(text, inside)
            end = match.end() if match else 0
        elif mark not in unclosed:
            closing = text.find(_CLOSING[mark], inside + 1)
            end = closing + len(_CLOSING[mark]) if closing >= 0 else 0
            if not end:
                unclosed.add(mark)
        if end:
            yield Segment(opening.start(), end, text[inside : end - len(mark)])
        # Of `$$x$` that nothing closes, the second sign may open a formula.
        at = end or (opening.start() + 1 if mark == "$$" else inside)


def without_segments(text: str) -> str:
    """The text with a blank in the place of each formula."""
    parts: list[str] = []
    at = 0
    for segment in segments(text):
        parts += [text[at : segment.start], " "]
        at = segment.end
    return "".join([*parts, text[at:]])
