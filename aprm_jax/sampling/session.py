"""A sampling session: rows of text that keep their cache, and so can go on.

    session = Session(programs, backbone, prompts)
    replies = session.sample(key, stops=Stops((step_id,)), max_new_tokens=64)
    session.gather([0, 0, 3])          # rows 0, 0 and 3 go on, the others are dropped
    scores = session.read(steps)       # given tokens: only these are computed

A solver samples until a stop and goes on from there; a verifier reads each new step.
Every token is read once, whichever rows share it. Gathering costs nothing by itself:
rows are copied, and the gaps in them closed, by the next sampling or reading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, Key, UInt32

from aprm_jax.models.positions import check_decodes
from aprm_jax.sampling.loop import Draws, LoopConfig, LoopState
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.programs import Programs, power_of_two
from aprm_jax.sampling.rows import Given, Rows, Selection
from aprm_jax.sampling.stops import ReplyText, Stops

Positions = Callable[[Sequence[int]], Int32[np.ndarray, " T"]]
# Where a text may end a reply, this many tokens are drawn between looks at the text.
TOKENS_A_LOOK = 16


@flax.struct.dataclass
class Samples:
    """What was drawn, in the order of the prompts.

    Attributes:
      tokens: drawn tokens, the stop included, padding after it. A token that a stop
        text ends in the middle of is kept whole.
      logprobs: log-probability of each token at the temperature that it was drawn with
        (at temperature 0, of temperature 1), of the whole distribution unless the
        truncation is `renormalised`; 0 after the stop.
      lengths: tokens drawn, the stop included.
      stopped: whether a stop was drawn before the room ran out.
      texts: where there are stop texts, what each reply reads: it ends exactly after a
        stop text, and before a stop token.
    """

    tokens: Int32[np.ndarray, "N T"]
    logprobs: Float32[np.ndarray, "N T"]
    lengths: Int32[np.ndarray, " N"]
    stopped: Bool[np.ndarray, " N"]
    texts: tuple[str, ...] | None = flax.struct.field(default=None, pytree_node=False)


@dataclasses.dataclass
class _Row:
    """One row of a session.

    Attributes:
      ids: its tokens.
      positions: of those that the cache holds: all, or all but the last.
      source: its row on the device, which others may share.
      head: tokens in the head of that row.
      ready: whether the state after its last token is kept on the device.
    """

    ids: list[int]
    positions: list[int]
    source: int
    head: int
    ready: bool = True

    def unread(self) -> int:
        """From which of its tokens on it has to be read before it can go on."""
        if self.ready:
            return len(self.ids)
        return min(len(self.positions), len(self.ids) - 1)


class Session:
    """Rows that begin with prompts; equal prompts are read once.

    Args:
      programs: what it runs.
      params: the backbone's parameters.
      prompts: ids of each row, none empty.
      positions: the position of each token of a row, as the step builder gives it; by
        default they count from 0. Sampled tokens count on from the one before them.
      head: parameters of the programs' scorer.
      slots: columns that the prompts are padded to; by default a power of two.

    Raises:
      ValueError: no prompt, or an empty one.
    """

    def __init__(
        self,
        programs: Programs,
        params: Any,
        prompts: Sequence[Sequence[int]],
        *,
        positions: Positions | None = None,
        head: Any = None,
        slots: int | None = None,
    ):
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise ValueError("a session begins with prompts of at least one token")
        self._programs, self._params, self._head = programs, params, head
        self._positions = positions or (lambda ids: np.arange(len(ids)))
        entries: dict[tuple[int, ...], _Row] = {}
        for prompt in map(tuple, prompts):
            if prompt not in entries:
                at = self._positions(prompt)
                place = len(entries)
                entries[prompt] = _Row(list(prompt), list(at), place, len(prompt))
        self._slots = slots or power_of_two(max(map(len, entries)))
        size = programs.rows(len(entries))
        columns = (size, self._slots)
        tokens, places = np.full(columns, programs.pad_id, np.int32), _zeros(*columns)
        lengths = _zeros(size)
        for row in entries.values():
            n = lengths[row.source] = len(row.ids)
            tokens[row.source, :n], places[row.source, :n] = row.ids, row.positions
        self._device: Rows = programs.prefill(
            params, *programs.put((tokens, lengths, places))
        )
        self._rows = [_copy(entries[tuple(prompt)]) for prompt in prompts]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> list[list[int]]:
        """The tokens of each row."""
        return [list(row.ids) for row in self._rows]

    @property
    def num_bytes(self) -> int:
        """Of the cache."""
        return sum(x.nbytes for x in jax.tree.leaves(self._device))

    def gather(self, rows: Sequence[int]) -> None:
        """Goes on with copies of these rows, in this order; the others are dropped."""
        if not len(rows):
            raise ValueError("a session keeps at least one row")
        self._rows = [_copy(self._rows[i]) for i in rows]

    def cut(self, lengths: Sequence[int]) -> None:
        """Shortens rows to so many tokens each, at least one and none more than now."""
        for row, n in zip(self._rows, lengths, strict=True):
            if not 0 < n <= len(row.ids):
                raise ValueError(f"a row of {len(row.ids)} tokens cannot be cut to {n}")
            row.ready &= n == len(row.ids)
            del row.ids[n:], row.positions[n:]

    def read(
        self, tokens: Sequence[Sequence[int]]
    ) -> list[Float32[np.ndarray, " T"]] | None:
        """Adds given tokens to each row, and computes nothing but these.

        Args:
          tokens: of each row; where none are given the row stays as it is.

        Returns:
          What the programs' scorer gives each of these tokens; None without one.

        Raises:
          ValueError: see `check_decodes`.
        """
        rows, programs = self._rows, self._programs
        known, starts = [len(row.ids) for row in rows], [row.unread() for row in rows]
        for start, n, new in zip(starts, known, tokens, strict=True):
            check_decodes(programs.config, start, n + len(new) - start + 1)
        for row, new in zip(rows, tokens, strict=True):
            row.ids.extend(map(int, new))
        selected = self._select(starts)
        given = self._given(starts, selected.lengths.shape[0])
        self._device, scores = programs.read(
            self._params, self._head, self._device, *programs.put((selected, given))
        )
        self._settle(selected, True)
        if scores is None:
            return None
        found, spans = jax.device_get(scores), zip(rows, known, starts, strict=True)
        return [
            found[i, n - start : len(row.ids) - start]
            for i, (row, n, start) in enumerate(spans)
        ]

    def sample(
        self,
        key: Key[jax.Array, ""] | UInt32[jax.Array, "2"],
        *,
        stops: Stops,
        max_new_tokens: int,
        temperature: float = 1.0,
        draws: Sequence[int] | None = None,
        truncation: Truncation | None = None,
    ) -> Samples:
        """Samples on from every row, until a stop or for `max_new_tokens` tokens.

        What a row gets depends on (key, its number in `draws`), its tokens and the
        parameters, not on the other rows.

        Args:
          key: of the whole request.
          stops: what ends a reply.
          max_new_tokens: T; each value is compiled for.
          temperature: divides the logits; 0 takes the most likely token.
          draws: a number for each row that alone picks its randomness, from 0 to
            2^32 - 1; by default its place.
          truncation: which tokens may be drawn; None for all.

        Raises:
          ValueError: see `check_decodes`.
        """
        drawing = self.launch(
            key,
            stops=stops,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            draws=draws,
            truncation=truncation,
            keep=True,
        )
        samples = drawing.fetch()
        assert drawing.state.rows is not None  # they are kept
        self._device = drawing.state.rows
        for row, tokens, n in zip(
            self._rows, samples.tokens, samples.lengths, strict=True
        ):
            last = row.positions[-1]
            row.positions.extend(range(last + 1, last + int(n)))
            row.ids.extend(tokens[:n].tolist())
        self._settle(drawing.selected, False)
        return samples

    def launch(
        self,
        key: Key[jax.Array, ""] | UInt32[jax.Array, "2"],
        *,
        stops: Stops,
        max_new_tokens: int,
        temperature: float = 1.0,
        draws: Sequence[int] | None = None,
        truncation: Truncation | None = None,
        keep: bool = False,
    ) -> Drawing:
        """As `sample`, without waiting for the device, nor going on unless `keep`."""
        if temperature < 0:
            raise ValueError(f"temperature must not be negative: {temperature}")
        rows, programs = self._rows, self._programs
        for n in {len(row.ids) for row in rows}:
            check_decodes(programs.config, n, max_new_tokens)
        loop = LoopConfig(stops.ids, programs.pad_id, max_new_tokens)
        # All rows have their state, or each reads its last token again.
        ready = all(row.ready for row in rows)
        selected = self._select([len(row.ids) - (not ready) for row in rows])
        size = selected.lengths.shape[0]
        unread, numbers, position = (
            _zeros(size),
            np.zeros(size, np.uint32),
            _zeros(size),
        )
        numbers[: len(rows)] = range(len(rows)) if draws is None else draws
        for i, row in enumerate(rows):
            if not ready:
                self._place(row, len(row.ids) - 1)
            unread[i], position[i] = row.ids[-1], row.positions[-1]
        heat, rules = np.float32(temperature), truncation and truncation.rules
        put, n = programs.put, len(rows)
        drawn = Draws(key, put(numbers), heat, rules)
        until = min(TOKENS_A_LOOK, max_new_tokens) if stops.texts else max_new_tokens
        state = programs.sample(
            loop,
            self._params,
            self._device,
            programs.put(selected),
            put(position),
            None if ready else put(unread),
            put(np.arange(size) < n),
            drawn,
            np.int32(until),
            keep=keep or until < max_new_tokens,
        )
        replies = [ReplyText(stops, row.ids) for row in rows] if stops.texts else []
        return Drawing(programs, self._params, loop, drawn, selected, n, state, replies)

    def _select(self, lengths: Sequence[int]) -> Selection:
        """The rows, shortened to `lengths`, as the device has them; on the host."""
        size, n, slots = self._programs.rows(len(self)), len(self), self._slots
        tail = self._device.cache.num_slots > slots
        source, head, kept = _zeros(size), _zeros(size), _zeros(size)
        source[:n] = [row.source for row in self._rows]
        head[:n] = [row.head for row in self._rows]
        kept[:n] = lengths
        wanted = power_of_two(max(1, int(kept.max()))) if tail else slots
        return Selection(source, head, kept, slots, wanted)

    def _given(self, starts: Sequence[int], size: int) -> Given:
        counts = _zeros(size)
        counts[: len(self)] = [
            len(row.ids) - start for row, start in zip(self._rows, starts, strict=True)
        ]
        width = power_of_two(max(1, int(counts.max())))
        tokens = np.full((size, width), self._programs.pad_id, np.int32)
        positions = _zeros(size, width)
        for i, (row, start) in enumerate(zip(self._rows, starts, strict=True)):
            self._place(row, start)
            tokens[i, : counts[i]] = row.ids[start:]
            positions[i, : counts[i]] = row.positions[start:]
        return Given(tokens, positions, counts)

    def _place(self, row: _Row, start: int) -> None:
        """Positions of a row's tokens from `start` on: after those before, always."""
        if start == len(row.ids):
            return
        del row.positions[start:]
        last = row.positions[-1] if row.positions else -1
        for place in self._positions(row.ids)[start:]:
            last = max(int(place), last + 1)
            row.positions.append(last)

    def _settle(self, selected: Selection, ready: bool) -> None:
        """The rows stand on the device as they were selected, and went on there."""
        self._slots = selected.new_slots
        for i, row in enumerate(self._rows):
            row.source, row.head = i, int(selected.lengths[i])
            row.ready = ready


@dataclasses.dataclass
class Drawing:
    """Samples that the device is computing; the fields are those of `launch`."""

    programs: Programs
    params: Any
    loop: LoopConfig
    draws: Draws
    selected: Selection
    count: int
    state: LoopState
    replies: list[ReplyText]

    def fetch(self) -> Samples:
        """Waits for them."""
        if self.replies:
            return self._watched()
        state, n = self.state, self.count
        found = (state.tokens, state.logprobs, state.lengths, state.stopped)
        return Samples(*(x[:n] for x in jax.device_get(found)))

    def _watched(self) -> Samples:
        """Looks at the texts every few tokens, and ends rows at their stop texts."""
        n, read = self.count, np.zeros(self.count, int)
        ended, until = np.zeros(n, bool), TOKENS_A_LOOK
        while True:
            state = self.state
            tokens, lengths, stopped = jax.device_get(
                (state.tokens, state.lengths, state.stopped)
            )
            for i in np.flatnonzero(~ended):
                by_id = bool(stopped[i])
                new = tokens[i, read[i] : lengths[i] - by_id]
                taken, at_stop = _pushed(self.replies[i], new)
                # Nothing is left of what was drawn behind a stop text.
                read[i] = read[i] + taken if at_stop else lengths[i]
                ended[i] = at_stop or by_id
            if ended.all() or until >= self.loop.max_new_tokens:
                break
            until += TOKENS_A_LOOK
            over = np.append(ended, stopped[n:])
            self.state = self.programs.resume(
                self.loop,
                self.params,
                self.selected.new_slots,
                state.replace(stopped=self.programs.put(over)),
                self.draws,
                np.int32(min(until, self.loop.max_new_tokens)),
            )
        kept = np.arange(tokens.shape[1])[None] < read[:, None]
        return Samples(
            np.where(kept, tokens[:n], self.loop.pad_id),
            np.where(kept, jax.device_get(self.state.logprobs)[:n], np.float32(0)),
            read.astype(np.int32),
            ended,
            tuple(reply.text for reply in self.replies),
        )


def _pushed(reply: ReplyText, tokens: Int32[np.ndarray, " T"]) -> tuple[int, bool]:
    """How many of the tokens a reply takes, and whether the last completes a stop."""
    for count, token in enumerate(tokens.tolist(), start=1):
        if reply.push(token):
            return count, True
    return len(tokens), False


def _copy(row: _Row) -> _Row:
    return dataclasses.replace(row, ids=list(row.ids), positions=list(row.positions))


def _zeros(*shape: int) -> Int32[np.ndarray, "..."]:
    return np.zeros(shape, np.int32)
