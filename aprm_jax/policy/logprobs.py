"""A language model as a policy: log-probability, entropy and value of its tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32

from aprm_jax.data.rows import StepBatch
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.token_logprobs import read_tokens


class PolicyTokens(NamedTuple):
    """Of each token that the policy chose; 0 elsewhere."""

    logprobs: Float32[Array, "B T"]
    entropy: Float32[Array, "B T"]  # nats; has no gradient
    values: Float32[Array, "B T"] | None  # of the prefix before the token


def reply_mask(rows: StepBatch) -> Float32[Array, "B T"]:
    """1 on the tokens of the reply, which is the step of a row."""
    return (jnp.asarray(rows.step_ids) >= 0).astype(jnp.float32)


def read_policy(decoder: Decoder, params: Any, rows: StepBatch) -> PolicyTokens:
    """What a model says of the replies in `rows`.

    Args:
      decoder: the backbone's module.
      params: `{"backbone"}`, with `"value_head"` where there is a critic.
      rows: the reply is the step; its tokens have `step_ids >= 0`.

    Returns:
      Values are None for a tree without a value head.
    """
    hidden = heads.hidden_states(decoder, params["backbone"], rows)[:, :-1]
    read = reply_mask(rows)[:, 1:] > 0
    tokens = jnp.asarray(rows.tokens)[:, 1:]
    found = read_tokens(decoder, params["backbone"], hidden, tokens, read)

    def place(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (1, 0)))

    values = None
    if "value_head" in params:
        values = place(jnp.where(read, heads.values(params["value_head"], hidden), 0.0))
    return PolicyTokens(place(found.logprobs), place(found.entropy), values)
