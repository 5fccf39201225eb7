"""A language model as a policy: log-probability, entropy and value of its tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from aprm_jax.data.rows import StepBatch
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.token_logprobs import read_tokens


class PolicyTokens(NamedTuple):
    """Of each token that the policy chose; 0 elsewhere."""

    logprobs: Float32[Array, "*b T"]
    entropy: Float32[Array, "*b T"]  # nats; has no gradient
    values: Float32[Array, "*b T"] | None  # of the prefix before the token


def reply_mask(rows: StepBatch) -> Float32[Array, "B T"]:
    """1 on the tokens of the reply, which is the step of a row."""
    return (jnp.asarray(rows.step_ids) >= 0).astype(jnp.float32)


def read_policy(decoder: Decoder, params: Any, rows: StepBatch) -> PolicyTokens:
    """What a model says of the replies in `rows`.

    Args:
      decoder: the backbone's module.
      params: `{"backbone"}`, with `"value_head"` where there is a critic.
      rows: replies are steps; their tokens have `step_ids >= 0`. Several replies to
        one prompt may branch off it (`StepBuilder.continuation`).

    Returns:
      Values are None for a tree without a value head.
    """
    hidden = heads.hidden_states(decoder, params["backbone"], rows)
    hidden = heads.states_before(hidden, rows)
    read = reply_mask(rows)[:, 1:] > 0
    found = _read(decoder, params, hidden, jnp.asarray(rows.tokens)[:, 1:], read)
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (1, 0))), found)


def _read(
    decoder: Decoder, params: Any, hidden: Array, tokens: Array, read: Array
) -> PolicyTokens:
    found = read_tokens(decoder, params["backbone"], hidden, tokens, read)
    values = None
    if "value_head" in params:
        values = jnp.where(read, heads.values(params["value_head"], hidden), 0.0)
    return PolicyTokens(found.logprobs, found.entropy, values)


def read_replies(
    decoder: Decoder,
    params: Any,
    rows: StepBatch,
    columns: Int32[Array | np.ndarray, "B S R"],
) -> PolicyTokens:
    """What a model says of each reply: [B, S, R], S replies a row of R tokens at most.

    Args:
      decoder: the backbone's module.
      params: as of `read_policy`.
      rows: likewise.
      columns: where in its row each token of a reply stands; -1 past its end.
    """
    columns = jnp.asarray(columns)
    flat = jnp.maximum(columns.reshape(columns.shape[0], -1), 0)
    if flat.shape[1] < rows.tokens.shape[1]:  # fewer than all columns are read
        hidden = heads.hidden_states(decoder, params["backbone"], rows)
        before = jnp.take_along_axis(heads.columns_before(rows), flat, axis=1)
        hidden = jnp.take_along_axis(hidden, before[..., None], axis=1)
        drawn = jnp.take_along_axis(jnp.asarray(rows.tokens), flat, axis=1)
        read = columns.reshape(flat.shape) >= 0
        found = _read(decoder, params, hidden, drawn, read)
        return jax.tree.map(lambda x: x.reshape(columns.shape), found)
    tokens = read_policy(decoder, params, rows)

    def cut(x: Array) -> Array:
        picked = jnp.take_along_axis(x, flat, axis=1).reshape(columns.shape)
        return jnp.where(columns >= 0, picked, 0.0)

    values = None if tokens.values is None else cut(tokens.values)
    return PolicyTokens(cut(tokens.logprobs), cut(tokens.entropy), values)
