"""Rows of text that keep their cache: what cached solvers and verifiers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from aprm_jax.models.flops import attention_flops
from aprm_jax.sampling.session import Session
from aprm_jax.solvers.protocol import Start, StepRows

Begin = Callable[[Sequence[Sequence[int]]], Session]


@dataclasses.dataclass
class SessionRows(StepRows):
    """Rows of text, and what has been read of them.

    Attributes:
      starts: (question, steps) of each.
      session: holds those that have been read; None while there are none.
      places: of each row, its place in the session; None where it is not there.
    """

    starts: tuple[Start, ...] = ()
    session: Session | None = None
    places: tuple[int | None, ...] = ()

    @classmethod
    def unread(cls, starts: Sequence[Start]) -> SessionRows:
        """Rows of which nothing has been read."""
        n = len(starts)
        return cls((0,) * n, starts=tuple(starts), places=(None,) * n)

    def entered(self, starts: Sequence[Start]) -> SessionRows:
        """Rows of these texts, each where most of it has been read.

        A tree search enters a branch that it left; what leads there may be in the cache
        of a row beside it. The rows that this is called on are not used again.
        """
        there = [row for row, place in enumerate(self.places) if place is not None]
        by_question: dict[str, list[int]] = {}
        for row in there:
            by_question.setdefault(self.starts[row][0], []).append(row)

        def place(question: str, steps: Sequence[str]) -> int | None:
            # Of another question's row at least the opening can be the same.
            rows = by_question.get(question, there)
            shared = [_shared(self.starts[row][1], steps) for row in rows]
            return self.places[rows[shared.index(max(shared))]] if rows else None

        places = tuple(place(*start) for start in starts)
        rows = SessionRows.unread(starts)
        return dataclasses.replace(rows, session=self.session, places=places)

    def read(
        self,
        parents: Sequence[int],
        contexts: Sequence[Sequence[int] | None],
        begin: Begin,
    ) -> SessionRows:
        """Copies of rows that have read these tokens and no others, none of them twice.

        What copies of one row share is read before they part. The rows that this is
        called on are not used again.

        Args:
          parents: which row each is a copy of.
          contexts: the tokens of each; None for one that is left unread.
          begin: makes a session of prompts, where there is none to go on from.
        """
        there = [i for i, ids in enumerate(contexts) if ids is not None]
        wanted = [(self.places[parents[i]], tuple(contexts[i] or ())) for i in there]
        starts = tuple(self.starts[parent] for parent in parents)
        if not wanted:
            return SessionRows.unread(starts)
        if self.session is None or any(place is None for place, _ in wanted):
            wanted = [(None, ids) for _, ids in wanted]
        unique = list(dict.fromkeys(wanted))
        session, counts = self._session(unique, begin)
        at = {pair: k for k, pair in enumerate(unique)}
        session.gather([at[pair] for pair in wanted])
        left = dict(zip(unique, counts, strict=True))
        prefilled = [0] * len(contexts)
        places: list[int | None] = [None] * len(contexts)
        for place, (i, pair) in enumerate(zip(there, wanted, strict=True)):
            prefilled[i], places[i] = left.pop(pair, 0), place
        rows = SessionRows(tuple(prefilled), 0, (), starts, session, tuple(places))
        rows.grew(prefilled)
        return rows

    def grew(self, sizes: Sequence[int]) -> None:
        """Counts the cost of what the session has read or drawn.

        Args:
          sizes: of each row, how many of its last tokens that is.
        """
        assert self.session is not None
        self.num_bytes, lengths = self.session.num_bytes, self.session.lengths
        before = self.attention or (0.0,) * len(sizes)
        rows = zip(before, self.places, sizes, strict=True)
        self.attention = tuple(
            spent + attention_flops(self.session.config, lengths[place or 0], n)
            for spent, place, n in rows  # without a place there is nothing new
        )

    def _session(
        self, rows: Sequence[tuple[int | None, tuple[int, ...]]], begin: Begin
    ) -> tuple[Session, list[int]]:
        """These rows of a session, (place in the old one, tokens), and the tokens read.

        Where a place is None, all are, and no two have the same tokens.
        """
        prompts = [ids for _, ids in rows]
        places = [place for place, _ in rows if place is not None]
        if self.session is None or not places:
            return begin(prompts), [len(ids) for ids in prompts]
        self.session.gather(places)
        return self.session, self.session.follow(prompts)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many steps two solutions begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    differ = (k for k, (mine, its) in pairs if mine != its)
    return next(differ, min(len(one), len(other)))
