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

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32, Key, UInt32

from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.models.positions import check_decodes, decodes
from aprm_jax.sampling.drawing import WORTH_NARROWING, Drawing, Samples
from aprm_jax.sampling.loop import Draws, LoopConfig
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.programs import Programs, power_of_two
from aprm_jax.sampling.rows import Given, Rows, Selection
from aprm_jax.sampling.stops import ReplyText, Stops
from aprm_jax.training import hosts

# Fewer slots, and fewer tokens read at once (but for one), cost as much as these.
_LEAST_SLOTS, _LEAST_READ = 32, 8
# Where fewer of the tokens than one in so many stay, rows are read anew: a prefill
# costs less than closing gaps and reading on.
_LEAST_KEPT = 4

# Columns that are read at once where rows end early, and what that may leave to do.
_PART, _WORTH_PARTS = 16, 0.7

Positions = Callable[[Sequence[int]], Int32[np.ndarray, " T"]]


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
        self._begin(prompts, slots)

    def _begin(self, prompts: Sequence[Sequence[int]], slots: int | None) -> None:
        """Reads the prompts; whatever stood here before is gone."""
        programs = self._programs
        entries: dict[tuple[int, ...], _Row] = {}
        for prompt in map(tuple, prompts):
            if prompt not in entries:
                at = self._positions(prompt)
                place = len(entries)
                entries[prompt] = _Row(
                    list(prompt), [int(p) for p in at], place, len(prompt)
                )
        self._slots = slots or power_of_two(max(_LEAST_SLOTS, *map(len, entries)))
        size = programs.rows(len(entries))
        tokens = np.full((size, self._slots), programs.pad_id, np.int32)
        places, lengths = np.zeros_like(tokens), np.zeros(size, np.int32)
        for row in entries.values():
            n = lengths[row.source] = len(row.ids)
            tokens[row.source, :n], places[row.source, :n] = row.ids, row.positions
        programs.tokens_read += sum(len(row.ids) for row in entries.values())
        self._device: Rows = programs.prefill(
            self._params, *programs.put((tokens, lengths, places))
        )
        self._rows = [_copy(entries[tuple(prompt)]) for prompt in prompts]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> list[list[int]]:
        """The tokens of each row."""
        return [list(row.ids) for row in self._rows]

    @property
    def lengths(self) -> list[int]:
        """How many they are."""
        return [len(row.ids) for row in self._rows]

    @property
    def config(self) -> DecoderConfig:
        """Of the decoder."""
        return self._programs.config

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
        self, tokens: Sequence[Sequence[int]], *, count_on: bool = False
    ) -> list[Float32[np.ndarray, " T"]] | None:
        """Adds given tokens to each row, and computes nothing but these.

        Args:
          tokens: of each row; where none are given the row stays as it is.
          count_on: whether they stand at the positions that sampled tokens have.

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
        given = self._given(starts, count_on)
        if not count_on:  # else they were drawn
            programs.tokens_read += int(given.counts.sum())
        found = self._read(starts, given)
        if found is None:
            return None
        spans = zip(rows, known, starts, strict=True)
        return [
            found[i, n - start : len(row.ids) - start]
            for i, (row, n, start) in enumerate(spans)
        ]

    def _read(
        self, starts: Sequence[int], given: Given
    ) -> Float32[np.ndarray, "B T"] | None:
        """Reads tokens behind those before `starts`; the scorer's of each column."""
        programs, room = self._programs, given.tokens.shape[1]
        device, lengths, heads = self._gathered(starts, room)
        slots = len(given.counts) * device.cache.num_slots
        narrows = programs.narrows and slots >= WORTH_NARROWING
        scores = []
        for before, kept, part in _parts(given, narrows):
            few, of_few = device, lengths
            if kept is not None:
                few, of_few = programs.take((device, lengths), kept)
            fixed = (self._params, self._head, few, heads, of_few, np.int32(before))
            few, found = programs.read(*fixed, programs.put(part))
            if kept is not None:
                few = programs.put_back(device, few, kept, room)
            device = few
            scores.append((before, kept, found))
        self._device = device
        self._settle(starts, heads, ready=True)
        if scores[0][-1] is None:
            return None
        out = np.zeros(given.tokens.shape, np.float32)
        for before, kept, found in scores:
            found = hosts.fetch(found)
            rows = np.arange(len(out)) if kept is None else kept[kept < len(out)]
            out[rows, before : before + found.shape[1]] = found[: len(rows)]
        return out

    def follow(self, rows: Sequence[Sequence[int]]) -> list[int]:
        """Makes each row these tokens: what it begins with stays, the rest is read.

        So a row goes on from its cache however much of it a prompt repeats. Where next
        to nothing would stay, or what is cached may not (longrope), all rows begin
        anew, equal ones once.

        Args:
          rows: the tokens of each, none empty.

        Returns:
          How many tokens of each were read.
        """
        if not all(len(ids) for ids in rows):
            raise ValueError("a row has at least one token")
        wanted = [list(map(int, ids)) for ids in rows]
        kept = [self._kept(*pair) for pair in zip(self._rows, wanted, strict=True)]
        sizes = [len(ids) for ids in wanted]
        if self._is_worth_keeping(kept, sizes):
            self.cut(kept)
            rest = [ids[n:] for ids, n in zip(wanted, kept, strict=True)]
            if any(rest):
                self.read(rest)
            return [len(ids) for ids in rest]
        self._begin(wanted, None)
        first = {tuple(ids): i for i, ids in reversed(list(enumerate(wanted)))}
        return [
            n if first[tuple(ids)] == i else 0
            for i, (ids, n) in enumerate(zip(wanted, sizes, strict=True))
        ]

    def _kept(self, row: _Row, ids: list[int]) -> int:
        """How many of a row's tokens `ids` begins with, at the same positions."""
        n = min(len(row.ids), len(ids))
        if row.ids[:n] != ids[:n]:
            pairs = enumerate(zip(row.ids, ids, strict=False))
            n = next(i for i, (mine, other) in pairs if mine != other)
        known = min(n, len(row.positions))
        moved = np.asarray(self._positions(ids))[:known] != row.positions[:known]
        return int(moved.argmax()) if moved.any() else n

    def _is_worth_keeping(self, kept: list[int], sizes: list[int]) -> bool:
        if 0 in kept or sum(sizes) > _LEAST_KEPT * sum(kept):
            return False
        return all(
            decodes(self.config, n - 1, size - n + 2)
            for n, size in zip(kept, sizes, strict=True)
        )

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
        self._settle(drawing.starts, drawing.heads, ready=False)
        return samples

    def draw(
        self,
        rows: Int[np.ndarray, " N"],
        draws: Int[np.ndarray, " N"],
        decided: Draws,
        step: int,
        steps: int,
    ) -> tuple[Int32[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
        """The next token of each of many draws from the rows, which stay as they are.

        Args:
          rows: which row each draws from; its last token has been read.
          draws: which of `decided.rows` it is.
          decided: what decides the draws.
          step: how many tokens it has drawn before.
          steps: the most that it draws.

        Returns:
          The tokens and their log-probabilities.
        """
        size = self._programs.rows(len(rows))
        sources, numbers = np.zeros(size, np.int32), np.zeros(size, np.uint32)
        sources[: len(rows)] = np.array([row.source for row in self._rows])[rows]
        numbers[: len(rows)] = np.asarray(decided.rows)[draws]
        found = self._programs.draw(
            self._params,
            self._device.residual,
            sources,
            dataclasses.replace(decided, rows=numbers),
            np.int32(step),
            steps,
        )
        tokens, logprobs = hosts.fetch(found)
        return tokens[: len(rows)], logprobs[: len(rows)]

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
        # All rows have their state, or each reads its last token again.
        ready = all(row.ready for row in rows)
        starts = [len(row.ids) - (not ready) for row in rows]
        for row, start in zip(rows, starts, strict=True):
            self._place(row, start)
        gathered, lengths, heads = self._gathered(starts, max_new_tokens - ready)
        numbers = range(len(rows)) if draws is None else draws
        drawing = Drawing(
            programs,
            self._params,
            LoopConfig(stops.ids, programs.pad_id, max_new_tokens),
            Draws(
                key,
                self._column(numbers, np.uint32),
                np.float32(temperature),
                truncation and truncation.rules,
            ),
            starts,
            heads,
            [ReplyText(stops, row.ids) for row in rows] if stops.texts else [],
            narrows=keep and programs.narrows,
        )
        drawing.begin(
            gathered,
            lengths,
            self._column([row.positions[-1] for row in rows]),
            None if ready else self._column([row.ids[-1] for row in rows]),
            self._column([True] * len(rows), np.bool_),
            keep,
        )
        return drawing

    def _column(self, values: Sequence[Any], dtype: Any = np.int32) -> Any:
        """A number of each row on the device; 0 for rows that fill the batch."""
        column = np.zeros(self._programs.rows(len(self)), dtype)
        column[: len(values)] = values
        return self._programs.put(column)

    def _gathered(self, lengths: Sequence[int], room: int) -> tuple[Rows, Any, int]:
        """The rows, shortened to `lengths`, on the device, with room behind them.

        Returns:
          They, their lengths on the device, and the slots of their heads.
        """
        slots, rows = self._slots, self._rows
        if self._device.cache.num_slots > slots:  # else there are no gaps to close
            slots = power_of_two(max(_LEAST_SLOTS, *lengths))
        kept = self._column(lengths)
        selected = Selection(
            self._column([row.source for row in rows]),
            self._column([row.head for row in rows]),
            kept,
        )
        gather = self._programs.gather
        return gather(self._device, selected, self._slots, slots, room), kept, slots

    def _given(self, starts: Sequence[int], count_on: bool) -> Given:
        """The tokens of each row from `starts` on, and their positions."""
        rows, size = self._rows, self._programs.rows(len(self))
        counts = np.zeros(size, np.int32)
        counts[: len(rows)] = [
            len(row.ids) - start for row, start in zip(rows, starts, strict=True)
        ]
        most = max(1, int(counts.max()))
        width = most if most == 1 else power_of_two(max(_LEAST_READ, most))
        tokens = np.full((size, width), self._programs.pad_id, np.int32)
        positions = np.zeros((size, width), np.int32)
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            self._place(row, start, count_on)
            tokens[i, : counts[i]] = row.ids[start:]
            positions[i, : counts[i]] = row.positions[start:]
        return Given(tokens, positions, counts)

    def _place(self, row: _Row, start: int, count_on: bool = False) -> None:
        """Positions of a row's tokens from `start` on: after those before, always."""
        if start == len(row.ids):
            return
        del row.positions[start:]
        last = row.positions[-1] if row.positions else -1
        rest = len(row.ids) - start
        given = [0] * rest if count_on else self._positions(row.ids)[start:]
        for place in given:
            last = max(int(place), last + 1)
            row.positions.append(last)

    def _settle(self, lengths: Sequence[int], heads: int, *, ready: bool) -> None:
        """The rows stand on the device as they were gathered, and went on there."""
        self._slots = heads
        for i, (row, length) in enumerate(zip(self._rows, lengths, strict=True)):
            row.source, row.head, row.ready = i, length, ready


def _parts(
    given: Given, narrows: bool
) -> list[tuple[int, Int32[np.ndarray, " N"] | None, Given]]:
    """What is read one after another, of fewer and fewer rows where that saves much.

    Returns:
      Of each part the columns before it, its rows, None for all, and its tokens.
    """
    counts, (rows, width) = np.asarray(given.counts), given.tokens.shape
    few = [
        power_of_two(max(1, int((counts > before).sum())))
        for before in range(0, width, _PART)
    ]
    left = _PART * sum(few[1:]) / (rows * max(1, width - _PART))
    if not narrows or width <= _PART or left > _WORTH_PARTS:
        return [(0, None, given)]
    parts = []
    for before in range(0, int(counts.max()), _PART):
        [kept] = np.nonzero(counts > before) if before else [None]
        chosen: Any = slice(None)
        if kept is not None:
            spare = power_of_two(len(kept)) - len(kept)
            kept = np.append(kept, [rows] * spare).astype(np.int32)
            chosen = np.minimum(kept, rows - 1)
        tokens, positions = (
            np.asarray(x)[chosen, before : before + _PART]
            for x in (given.tokens, given.positions)
        )
        left = np.clip(counts[chosen] - before, 0, tokens.shape[1])
        parts.append((before, kept, Given(tokens, positions, left.astype(np.int32))))
    return parts


def _copy(row: _Row) -> _Row:
    return dataclasses.replace(row, ids=list(row.ids), positions=list(row.positions))
