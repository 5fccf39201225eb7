"""The decode loop: one token for every row, until all have stopped.

Axes: B rows, P slots of heads, S cache slots, T new tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32

from aprm_jax.models.cache import read_on, split_layers
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.sampling.methods import Rules, draw, row_uniforms
from aprm_jax.sampling.rows import Given, Rows, extend, places, taken


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """What a loop is compiled for.

    Attributes:
      stop_ids: tokens that end a row, kept as its last token.
      pad_id: stands after a row's end.
      max_new_tokens: T.
    """

    stop_ids: tuple[int, ...]
    pad_id: int
    max_new_tokens: int


@flax.struct.dataclass
class Draws:
    """What decides a request's draws, the logits apart.

    Attributes:
      key: of the whole request.
      rows: a number for each row; it alone picks the row's randomness.
      temperature: 0 is greedy.
      rules: which tokens may be drawn; None for all.
    """

    key: Key[Array, ""] | UInt32[Array, "2"]
    rows: UInt32[Array | np.ndarray, " B"]
    temperature: Float32[Array | np.ndarray, ""] | np.float32
    rules: Rules | None


@flax.struct.dataclass
class LoopState:
    """What the decode loop carries.

    Attributes:
      step: how many tokens each live row has.
      last: the token drawn last.
      stopped: rows that have drawn a stop token, and rows of padding.
      lengths: tokens drawn, the stop token included.
      tokens: drawn so far, padding after the stop.
      logprobs: of those tokens, 0 after the stop.
      rows: their cache holds all tokens drawn but the last; their residuals are stale.
        None where nobody goes on.
      head: tokens in the head of each row.
      position: of the last token before those drawn.
    """

    step: Int32[Array, ""]
    last: Int32[Array, " B"]
    stopped: Bool[Array, " B"]
    lengths: Int32[Array, " B"]
    tokens: Int32[Array, "B T"]
    logprobs: Float32[Array, "B T"]
    rows: Rows | None
    head: Int32[Array, " B"]
    position: Int32[Array, " B"]


def begin(
    config: DecoderConfig,
    loop: LoopConfig,
    params: Any,
    rows: Rows,
    heads: int,
    lengths: Int32[Array, " B"],
    position: Int32[Array, " B"],
    unread: Int32[Array, " B"] | None,
    live: Bool[Array, " B"],
    draws: Draws,
) -> LoopState:
    """The first token of every row.

    Args:
      config: the decoder's.
      loop: what is compiled for.
      params: the decoder's parameters.
      rows: gathered, with room for T - 1 tokens, and for one that is unread.
      heads: P.
      lengths: tokens of each.
      position: of each row's last token, which new ones count on from.
      unread: that token, where `rows` does not hold it yet.
      live: false for rows that only fill the batch.
      draws: what decides them.
    """
    batch, room = live.shape[0], loop.max_new_tokens
    if unread is not None:
        given = Given(unread[:, None], position[:, None], jnp.ones_like(lengths))
        rows, _ = extend(config, params, rows, heads, lengths, given)
    uniforms = row_uniforms(draws.key, draws.rows, room)
    state = LoopState(
        step=jnp.int32(0),
        last=jnp.zeros(batch, jnp.int32),
        stopped=~live,
        lengths=jnp.zeros(batch, jnp.int32),
        tokens=jnp.full((batch, room), loop.pad_id, jnp.int32),
        logprobs=jnp.zeros((batch, room), jnp.float32),
        rows=rows,
        head=lengths,
        position=position,
    )
    return _emit(config, loop, params, state, rows.residual, uniforms, draws)


def go_on(
    config: DecoderConfig,
    loop: LoopConfig,
    params: Any,
    heads: int,
    state: LoopState,
    draws: Draws,
    until: Int32[Array, ""],
    fewest: Int32[Array, ""],
) -> LoopState:
    """Draws until no more than `fewest` rows go on, or they have `until` tokens.

    Args:
      config: the decoder's.
      loop: what is compiled for.
      params: the decoder's parameters.
      heads: P.
      state: of `begin`, or of a loop before this one.
      draws: as `begin` had them.
      until: at most T.
      fewest: 0 for until all have stopped.
    """
    layers = split_layers(params, config.num_layers)
    uniforms = row_uniforms(draws.key, draws.rows, loop.max_new_tokens)
    assert state.rows is not None  # of a loop that has not ended
    slots, stale = state.rows.cache.num_slots, state.rows.residual
    filled = places(state.head, heads, slots)
    first = (
        slots - loop.max_new_tokens
    )  # where the token is written that is drawn first

    def body(state: LoopState) -> LoopState:
        rows, slot = cast(Rows, state.rows), first + state.step
        written, cache = read_on(
            config,
            params,
            layers,
            state.last[:, None],
            (state.position + state.step)[:, None],
            (state.head + slot - heads)[:, None],
            rows.cache,
            slot,
            filled,
        )
        state = dataclasses.replace(state, rows=Rows(stale, cache))
        return _emit(config, loop, params, state, written[:, 0], uniforms, draws)

    def unfinished(state: LoopState) -> Bool[Array, ""]:
        return (state.step < until) & (jnp.sum(~state.stopped) > fewest)

    return jax.lax.while_loop(unfinished, body, state)


def narrowed(
    state: LoopState, draws: Draws, kept: Int32[Array, " N"]
) -> tuple[LoopState, Draws]:
    """Some rows by themselves, until `rows.put_back`. None of padding goes on."""
    few, numbers = taken((state, jnp.asarray(draws.rows)), kept)
    padding = kept >= state.stopped.shape[0]
    few = dataclasses.replace(few, stopped=few.stopped | padding)
    return few, dataclasses.replace(draws, rows=numbers)


def _emit(
    config: DecoderConfig,
    loop: LoopConfig,
    params: Any,
    state: LoopState,
    residual: Array,
    uniforms: Float32[Array, "B T"],
    draws: Draws,
) -> LoopState:
    """Draws a token of every row that has not stopped."""
    decoder: Any = Decoder(config)
    logits = decoder.apply({"params": params}, residual, method=Decoder.norm_logits)
    step, live = state.step, ~state.stopped
    drawn, logprob = draw(
        logits, uniforms[:, step], jnp.asarray(draws.temperature), draws.rules
    )
    drawn = jnp.where(live, drawn, loop.pad_id)
    ends = (drawn[:, None] == jnp.asarray(loop.stop_ids, jnp.int32)[None]).any(axis=1)
    return dataclasses.replace(
        state,
        step=step + 1,
        last=drawn,
        stopped=state.stopped | ends,
        lengths=state.lengths + live,
        tokens=state.tokens.at[:, step].set(drawn),
        logprobs=state.logprobs.at[:, step].set(jnp.where(live, logprob, 0.0)),
    )
