"""Samples that a device is computing, and what they are once it has.

Axes: N rows, T new tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import numpy as np
from jaxtyping import Bool, Float32, Int32

from aprm_jax.data.replies import Reply
from aprm_jax.sampling.loop import Draws, LoopConfig, LoopState
from aprm_jax.sampling.programs import Programs
from aprm_jax.sampling.rows import Rows
from aprm_jax.sampling.stops import ReplyText
from aprm_jax.training import hosts

# Where a text may end a reply, this many tokens are drawn between looks at the text.
TOKENS_A_LOOK = 16
# Rows that go on by themselves cost half of twice as many only where there is much of
# them: so many slots of caches (measured on a CPU: benchmarks/search_speed.py). Below,
# and at every other number of rows, it would be one more program to compile.
WORTH_NARROWING = 1 << 12


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

    def reply(self, i: int) -> Reply:
        """What was drawn for prompt i, not read yet."""
        n = int(self.lengths[i])
        ids = tuple(self.tokens[i, :n].tolist())
        return Reply(ids, self.logprobs[i, :n], bool(self.stopped[i]))


@dataclasses.dataclass
class Drawing:
    """Samples that the device is computing.

    Attributes:
      programs: what runs.
      params: the backbone's.
      loop: what it was compiled for.
      draws: what decides the draws.
      starts: tokens in the head of each row.
      heads: slots of the heads.
      replies: the text of each reply, where there are stop texts.
      narrows: whether rows that go on are moved together when the others have ended.
      state: of the loop.
      slots: of caches.
    """

    programs: Programs
    params: Any
    loop: LoopConfig
    draws: Draws
    starts: list[int]
    heads: int
    replies: list[ReplyText]
    narrows: bool
    state: LoopState = dataclasses.field(init=False)
    slots: int = dataclasses.field(init=False)

    def begin(
        self,
        rows: Rows,
        lengths: Any,
        position: Any,
        unread: Any,
        live: Any,
        keep: bool,
    ) -> None:
        """Starts the device; see `loop.begin`."""
        room = self.loop.max_new_tokens
        until = min(TOKENS_A_LOOK, room) if self.replies else room
        fixed = (self.loop, self.params, rows, self.heads, lengths, position, unread)
        self.slots = rows.cache.num_slots
        fewest = self._fewest(len(lengths))
        state = self.programs.sample(*fixed, live, self.draws, np.int32(until), fewest)
        if not keep and until == room:  # the memory is free as soon as it is done
            state = dataclasses.replace(state, rows=None)
        self.state = state

    def fetch(self) -> Samples:
        """Waits for them."""
        if self.replies:
            return self._watched()
        self._go_on(self.loop.max_new_tokens)
        state, n = self.state, len(self.starts)
        found = (state.tokens, state.logprobs, state.lengths, state.stopped)
        return Samples(*(x[:n] for x in hosts.fetch(found)))

    def _fewest(self, rows: int) -> np.int32:
        """How few of so many rows go on elsewhere; 0 for none."""
        narrows = self.narrows and rows * self.slots >= WORTH_NARROWING
        return np.int32(rows // 2 if narrows else 0)

    def _go_on(self, until: int) -> None:
        """Draws up to `until` tokens of each row; few rows by themselves."""
        if not self.narrows:
            return
        while True:
            state = self.state
            stopped, step = hosts.fetch((state.stopped, state.step))
            [live] = np.nonzero(~stopped)
            if not len(live) or step >= until:
                return
            size = len(stopped)
            while len(live) <= self._fewest(size):
                size //= 2
            kept = np.full(size, len(stopped), np.int32)
            kept[: len(live)] = live
            few, draws = self.programs.narrow(state, self.draws, kept)
            few = self._resume(few, draws, until)
            room = self.loop.max_new_tokens
            self.state = self.programs.put_back(state, few, kept, room)

    def _resume(self, state: LoopState, draws: Draws, until: int) -> LoopState:
        fewest = self._fewest(len(state.stopped))
        fixed = (self.loop, self.params, self.heads, state, draws)
        return self.programs.resume(*fixed, np.int32(until), fewest)

    def _watched(self) -> Samples:
        """Looks at the texts every few tokens, and ends rows at their stop texts."""
        n = len(self.starts)
        read = np.zeros(n, int)
        ended, until = np.zeros(n, bool), TOKENS_A_LOOK
        while True:
            self._go_on(min(until, self.loop.max_new_tokens))
            state = self.state
            tokens, lengths, stopped = hosts.fetch(
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
            state = dataclasses.replace(state, stopped=self.programs.put(over))
            most = min(until, self.loop.max_new_tokens)
            self.state = self._resume(state, self.draws, most)
        kept = np.arange(tokens.shape[1])[None] < read[:, None]
        return Samples(
            np.where(kept, tokens[:n], self.loop.pad_id),
            np.where(kept, hosts.fetch(self.state.logprobs)[:n], np.float32(0)),
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
