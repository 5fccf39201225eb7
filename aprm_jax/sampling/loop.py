"""The decode loop: one token for every row, until all have stopped.

Axes: B rows, P prompt bucket, S cache slots = P + T - 1, T new tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32

from aprm_jax.models.cache import KVCache, decode_step, split_layers
from aprm_jax.models.decoder import DecoderConfig
from aprm_jax.sampling.methods import draw, row_uniforms
from aprm_jax.sampling.prefill import Prefilled


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
      cache: keys and values of the prompts and of all tokens but the last.
    """

    step: Int32[Array, ""]
    last: Int32[Array, " B"]
    stopped: Bool[Array, " B"]
    lengths: Int32[Array, " B"]
    tokens: Int32[Array, "B T"]
    logprobs: Float32[Array, "B T"]
    cache: KVCache


def decode(
    config: DecoderConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    max_new_tokens: int,
    params: Any,
    prompts: Prefilled,
    rows: UInt32[Array, " B"],
    live: Bool[Array, " B"],
    key: Key[Array, ""] | UInt32[Array, "2"],
    temperature: Float32[Array, ""],
) -> LoopState:
    """Samples until every live row has stopped or has `max_new_tokens`.

    Args:
      config: the decoder's.
      stop_ids: tokens that end a row, kept as its last token.
      pad_id: stands after a row's end.
      max_new_tokens: T.
      params: the decoder's parameters.
      prompts: one prompt a row.
      rows: a number for each row; it alone picks the randomness.
      live: false for rows that only fill the batch.
      key: of the whole request.
      temperature: 0 is greedy.
    """
    layers = split_layers(params, config.num_layers)
    uniforms = row_uniforms(key, rows, max_new_tokens)
    prompt_slots = prompts.cache.num_slots
    slots = jnp.arange(prompt_slots + max_new_tokens - 1, dtype=jnp.int32)[None]
    in_prompt = slots < prompts.lengths[:, None]

    def emit(state: LoopState, logits: Float32[Array, "B V"], cache: KVCache):
        step, live = state.step, ~state.stopped
        drawn, logprob = draw(logits, uniforms[:, step], temperature)
        drawn = jnp.where(live, drawn, pad_id)
        ends = (drawn[:, None] == jnp.asarray(stop_ids, jnp.int32)[None]).any(axis=1)
        return LoopState(
            step=step + 1,
            last=drawn,
            stopped=state.stopped | ends,
            lengths=state.lengths + live,
            tokens=state.tokens.at[:, step].set(drawn),
            logprobs=state.logprobs.at[:, step].set(jnp.where(live, logprob, 0.0)),
            cache=cache,
        )

    def body(state: LoopState) -> LoopState:
        slot = prompt_slots + state.step - 1
        written = (slots >= prompt_slots) & (slots <= slot)
        logits, cache = decode_step(
            config,
            params,
            layers,
            state.last,
            prompts.last + state.step,
            state.cache,
            slot,
            in_prompt | written,
        )
        return emit(state, logits, cache)

    def unfinished(state: LoopState) -> Bool[Array, ""]:
        return (state.step < max_new_tokens) & ~jnp.all(state.stopped)

    batch = rows.shape[0]
    start = LoopState(
        step=jnp.int32(0),
        last=jnp.zeros(batch, jnp.int32),
        stopped=~live,
        lengths=jnp.zeros(batch, jnp.int32),
        tokens=jnp.full((batch, max_new_tokens), pad_id, jnp.int32),
        logprobs=jnp.zeros((batch, max_new_tokens), jnp.float32),
        cache=prompts.cache,
    )
    cache = prompts.cache.grow(max_new_tokens - 1)
    return jax.lax.while_loop(unfinished, body, emit(start, prompts.logits, cache))
