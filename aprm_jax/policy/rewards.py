"""Token rewards [B, T]: what a policy is paid for each token, in float32.

A reward of a whole reply is one of its last token; the regularisers
-beta KL(pi || pi_ref) + eta H(pi) arrive at every token as the reward
`beta log pi_ref - (beta + eta) log pi`, whose expectation under pi they are.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float32


def at_last_token(
    final: Float32[Array, " B"], mask: Float32[Array, "B T"]
) -> Float32[Array, "B T"]:
    """`final` of each sequence at the last token of its mask, 0 elsewhere."""
    position = jnp.cumsum(mask, axis=1)
    is_last = mask * (position == jnp.sum(mask, axis=1, keepdims=True))
    return is_last * final[:, None]


def regularised(
    rewards: Float32[Array, "B T"],
    logprobs: Float32[Array, "B T"],
    ref_logprobs: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    *,
    beta: float,
    eta: float,
) -> Float32[Array, "B T"]:
    """Token rewards with KL to the reference and entropy among them.

    Args:
      rewards: of the tokens.
      logprobs: of the tokens under the policy that drew them.
      ref_logprobs: under the fixed reference.
      mask: 1 on the tokens of the reply.
      beta: weight of the KL to the reference (its estimator k1: in the reward its
        gradient is the right one).
      eta: weight of the entropy.
    """
    regulariser = beta * ref_logprobs - (beta + eta) * logprobs
    return mask * regulariser + mask * rewards
