"""What ends a reply: tokens, and texts that no one token need spell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

# A character has at most four bytes, and a tokenizer may write each as a token.
_MOST_HELD = 4
_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class Stops:
    """A reply ends with the first of these, which it keeps.

    Attributes:
      ids: tokens.
      texts: texts, looked for in what the reply's tokens read, not in the prompt's.
      decode: what ids read, special tokens spelt out and no space dropped; texts need
        it.
    """

    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    decode: Callable[[Sequence[int]], str] | None = None

    def __post_init__(self):
        if isinstance(self.texts, str):
            raise TypeError(f"stop texts must be a tuple of texts, not {self.texts!r}")
        if "" in self.texts:
            raise ValueError("a stop text is empty: every reply would end at once")
        if self.texts and self.decode is None:
            raise ValueError("stop texts need `decode`, which says what ids read")


class ReplyText:
    """The text of one reply while it grows; each token is decoded a few times at most.

    What a token reads depends on its neighbours (spaces, characters of several bytes):
    it is the difference that it makes to the text of the few tokens before it.

    Args:
      stops: with texts.
      before: the prompt's last tokens.
    """

    def __init__(self, stops: Stops, before: Sequence[int]):
        assert stops.decode is not None
        self._decode, self._stops = stops.decode, stops
        # Tokens that give context, then those whose text is not settled yet.
        self._window = list(before[-_MOST_HELD:])
        # Characters of the window's text that are settled, and tokens added since.
        self._known, self._held = len(self._decode(self._window)), 0
        self._pieces: list[str] = []
        self._tail, self._open = "", ""
        self._reach = max(map(len, stops.texts)) - 1

    @property
    def text(self) -> str:
        """All that the reply reads so far, cut after a stop."""
        return "".join(self._pieces) + self._open

    def push(self, token: int) -> bool:
        """Adds a token of the reply; true where a stop text is complete with it."""
        self._window.append(int(token))
        self._held += 1
        self._open = self._decode(self._window)[self._known :]
        # Half a character may still become a whole one: a stop ends before it.
        whole = self._open.rstrip(_BROKEN)
        end = self._end_of_stop(self._tail + whole)
        if end is not None:
            self._open = whole[: end - len(self._tail)]
            return True
        if (self._open and whole == self._open) or self._held >= _MOST_HELD:
            self._settle(min(len(self._open) - len(whole), _MOST_HELD - 1))
        return False

    def _settle(self, back: int) -> None:
        """Settles all but the last `back` characters: the next token may make one."""
        cut = len(self._open) - back
        settled, self._open = self._open[:cut], self._open[cut:]
        self._pieces.append(settled)
        self._tail = (self._tail + settled)[-self._reach :] if self._reach else ""
        self._window = self._window[-(2 if back else 1) * _MOST_HELD :]
        self._known, self._held = len(self._decode(self._window)) - back, 0

    def _end_of_stop(self, text: str) -> int | None:
        """Where the stop that ends first ends."""
        ends = (
            text.find(stop) + len(stop) for stop in self._stops.texts if stop in text
        )
        return min(ends, default=None)
