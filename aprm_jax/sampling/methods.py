"""How one token is drawn from logits.

Axes: B batch, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32


@dataclasses.dataclass(frozen=True)
class Truncation:
    """Which tokens may be drawn: those that each of the three rules leaves.

    The rules read the distribution after the temperature. Tokens as likely as the last
    one that is left are left too, so that no order of the vocabulary decides.

    Attributes:
      top_k: the k most likely (Fan et al., arXiv:1805.04833); 0 for all.
      top_p: the fewest most likely, of those that `top_k` leaves, that together have at
        least this share of what they all have (Holtzman et al., arXiv:1904.09751).
      min_p: those at least this share as likely as the likeliest (arXiv:2407.01082).
      renormalised: whether log-probabilities are those of the truncated distribution;
        by default they are the policy's own, untruncated.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    renormalised: bool = False

    def __post_init__(self):
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}")

    @property
    def rules(self) -> Rules | None:
        """As a compiled draw takes them; None where every token may be drawn."""
        if self.top_k == 0 and self.top_p == 1 and self.min_p == 0:
            return None
        k, p, least = np.int32(self.top_k), np.float32(self.top_p), self.min_p
        return Rules(k, p, np.float32(least), np.bool_(self.renormalised))


class Rules(NamedTuple):
    """The fields of `Truncation`."""

    top_k: Int32[np.ndarray | Array, ""] | np.int32
    top_p: Float32[np.ndarray | Array, ""] | np.float32
    min_p: Float32[np.ndarray | Array, ""] | np.float32
    renormalised: Bool[np.ndarray | Array, ""] | np.bool_


def row_uniforms(
    key: Key[Array, ""] | UInt32[Array, "2"],
    rows: UInt32[Array | np.ndarray, " B"],
    count: int,
) -> Float32[Array, "B T"]:
    """`count` uniforms in [0, 1) for each row, from (key, row) alone."""
    return jax.vmap(
        lambda row: jax.random.uniform(jax.random.fold_in(key, row), (count,))
    )(rows)


def draw(
    logits: Float32[Array, "B V"],
    uniform: Float32[Array, " B"],
    temperature: Float32[Array, ""],
    rules: Rules | None = None,
) -> tuple[Int32[Array, " B"], Float32[Array, " B"]]:
    """Draws a token by inverting the cumulative distribution.

    One uniform a row, where Gumbel noise would take V of them.

    Args:
      logits: unnormalised.
      uniform: one number in [0, 1) a row.
      temperature: 0 takes the most likely token.
      rules: which tokens may be drawn; None for all.

    Returns:
      The tokens and their log-probabilities at this temperature (at 0, at 1), of the
      whole distribution unless the rules say otherwise.
    """
    greedy = temperature <= 0
    logprobs = jax.nn.log_softmax(logits / jnp.where(greedy, 1.0, temperature))
    allowed = logprobs
    if rules is not None:
        allowed = jnp.where(_allowed(logprobs, rules), logprobs, -jnp.inf)
        share = jax.nn.logsumexp(allowed, axis=-1, keepdims=True)
        logprobs = logprobs - jnp.where(rules.renormalised, share, 0.0)
    drawn = _invert(jnp.exp(allowed), uniform)
    tokens = jnp.where(greedy, jnp.argmax(logits, axis=-1), drawn).astype(jnp.int32)
    chosen = jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen


def _invert(
    probs: Float32[Array, "B V"], uniform: Float32[Array, " B"]
) -> Int32[Array, " B"]:
    """The first token, of those with any probability, whose sum is past the share."""
    cumulative, possible = jnp.cumsum(probs, axis=-1), probs > 0
    # Sums in a tree may rise or fall by a rounding at a token without probability, and
    # their total is only near 1: both are asked of possible tokens alone.
    total = jnp.where(possible, cumulative, 0.0).max(axis=-1, keepdims=True)
    past = (cumulative > uniform[:, None] * total) | (cumulative >= total)
    return jnp.argmax(possible & past, axis=-1).astype(jnp.int32)


def _allowed(logprobs: Float32[Array, "B V"], rules: Rules) -> Bool[Array, "B V"]:
    """The tokens that the rules leave; always the likeliest."""
    ordered, size = -jnp.sort(-logprobs, axis=-1), logprobs.shape[-1]
    last = jnp.where(rules.top_k > 0, jnp.minimum(rules.top_k, size), size) - 1
    least = jnp.take(ordered, last, axis=1)[:, None]
    probs = jnp.where(ordered >= least, jnp.exp(ordered), 0.0)
    total = probs.sum(axis=-1, keepdims=True)
    needed = jnp.cumsum(probs, axis=-1) - probs < rules.top_p * total
    nucleus = jnp.where(needed, ordered, jnp.inf).min(axis=-1, keepdims=True)
    # The rounded sum may reach the whole before its last terms.
    least = jnp.where(rules.top_p < 1, jnp.maximum(least, nucleus), least)
    floor = ordered[:, :1] + jnp.log(rules.min_p)
    return logprobs >= jnp.maximum(least, floor)
