"""How one token is drawn from logits.

Axes: B batch, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key, UInt32


def row_uniforms(
    key: Key[Array, ""] | UInt32[Array, "2"], rows: UInt32[Array, " B"], count: int
) -> Float32[Array, "B T"]:
    """`count` uniforms in [0, 1) for each row, from (key, row) alone."""
    return jax.vmap(
        lambda row: jax.random.uniform(jax.random.fold_in(key, row), (count,))
    )(rows)


def draw(
    logits: Float32[Array, "B V"],
    uniform: Float32[Array, " B"],
    temperature: Float32[Array, ""],
) -> tuple[Int32[Array, " B"], Float32[Array, " B"]]:
    """Draws a token by inverting the cumulative distribution.

    One uniform a row, where Gumbel noise would take V of them.

    Args:
      logits: unnormalised.
      uniform: one number in [0, 1) a row.
      temperature: 0 takes the most likely token.

    Returns:
      The tokens and their log-probabilities under the distribution drawn from; at
      temperature 0 under that of temperature 1.
    """
    greedy = temperature <= 0
    logprobs = jax.nn.log_softmax(logits / jnp.where(greedy, 1.0, temperature))
    cumulative = jnp.cumsum(jnp.exp(logprobs), axis=-1)
    # Scaled by the total, which rounding leaves near 1: the last token with any
    # probability is always reached, and one without any is never chosen.
    target = uniform[:, None] * cumulative[:, -1:]
    drawn = jnp.argmax(cumulative > target, axis=-1)
    tokens = jnp.where(greedy, jnp.argmax(logits, axis=-1), drawn).astype(jnp.int32)
    chosen = jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen
