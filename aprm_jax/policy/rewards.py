"""Token rewards [B, T]: what a policy is paid for each token, in float32.

A reward of a whole reply is one of its last token, that of a step one of the step's
last token; the regularisers -beta KL(pi || pi_ref) + eta H(pi) arrive at every token as
the reward `beta log pi_ref - (beta + eta) log pi`, whose expectation under pi they are.

What a verifier's scores of steps pay is computed on arrays [B, S] of S steps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32


def at_last_token(
    final: Float32[Array, " B"], mask: Float32[Array, "B T"]
) -> Float32[Array, "B T"]:
    """`final` of each sequence at the last token of its mask, 0 elsewhere."""
    position = jnp.cumsum(mask, axis=1)
    is_last = mask * (position == jnp.sum(mask, axis=1, keepdims=True))
    return is_last * final[:, None]


def regularised(
    rewards: Float32[Array, "*b T"],
    logprobs: Float32[Array, "*b T"],
    ref_logprobs: Float32[Array, "*b T"],
    mask: Float32[Array, "*b T"],
    *,
    beta: float,
    eta: float,
) -> Float32[Array, "*b T"]:
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


def at_step_ends(
    step_rewards: Float32[Array, "B S"], step_ids: Int32[Array, "B T"]
) -> Float32[Array, "B T"]:
    """Each step's reward at its last token, 0 elsewhere.

    Args:
      step_rewards: of steps that a row has not, anything.
      step_ids: which step a token is of; -1 for none.
    """
    steps = jnp.arange(step_rewards.shape[1])
    mine = jnp.asarray(step_ids)[:, None, :] == steps[None, :, None]
    place = jnp.arange(mine.shape[2])[None, None, :]
    last = jnp.where(mine, place, -1).max(axis=2, keepdims=True)
    ends = mine & (place == last)
    return jnp.sum(jnp.where(ends, step_rewards[:, :, None], 0.0), axis=1)


def by_step(
    values: Float32[Array, "B T"], step_ids: Int32[Array, "B T"], steps: int
) -> Float32[Array, "B S"]:
    """The sum of its tokens' values for each of S steps; see `at_step_ends`."""
    mine = jnp.asarray(step_ids)[:, None, :] == jnp.arange(steps)[None, :, None]
    return jnp.sum(jnp.where(mine, values[:, None, :], 0.0), axis=2)


def clipped(
    scores: Float32[Array, "B S"], mask: Float32[Array, "B S"], margin: float
) -> Float32[Array, "B S"]:
    """min(score - margin, 0) of each step: no step more can ever pay.

    References:
      Gao et al., 2024, "On designing effective RL reward at training time for LLM
      reasoning", arXiv:2410.15115, the clip mechanism.
    """
    return jnp.where(mask > 0, jnp.minimum(scores - margin, 0.0), 0.0)


def deltas(
    scores: Float32[Array, "B S"],
    mask: Float32[Array, "B S"],
    start: Float32[Array, " B"],
    bound: float,
) -> Float32[Array, "B S"]:
    """What each step changes of the score, clipped: saying it again pays nothing.

    Args:
      scores: of the steps, the first of a row in column 0.
      mask: 1 where a row has the step.
      start: the score before the first step; NaN where nobody says, and then that step
        changes nothing.
      bound: the largest change that counts, up or down.
    """
    start = jnp.where(jnp.isnan(start), scores[:, 0], start)
    before = jnp.concatenate([start[:, None], scores[:, :-1]], axis=1)
    return jnp.where(mask > 0, jnp.clip(scores - before, -bound, bound), 0.0)


def min_form(
    scores: Float32[Array, "B S"], mask: Float32[Array, "B S"], temperature: float
) -> Float32[Array, "B S"]:
    """Scores weighted by softmax(-score / temperature): the worst step has the credit.

    Their sum is about the least of a row's scores, where that of the scores grows with
    the number of steps.

    References:
      Cheng et al., 2025, "Stop Summation: Min-Form Credit Assignment Is All Process
      Reward Model Needs for Reasoning" (PURE), arXiv:2504.15275; temperature 0.1.
    """
    there = mask > 0
    # A row without steps has no weights; NaN must not come of it.
    some = jnp.any(there, axis=1, keepdims=True)
    weights = jax.nn.softmax(-scores / temperature, axis=1, where=there | ~some)
    return jnp.where(there, weights * scores, 0.0)


def first_error(
    scores: Float32[Array, "B S"],
    mask: Float32[Array, "B S"],
    right: Bool[Array, " B"],
    threshold: float,
) -> Float32[Array, "B S"]:
    """1 for a step before the first wrong one, -1 from there on; all 1 if it is right.

    A verifier's scores serve to find the first error alone, so that there is little in
    them to exploit. To be credited step by step, not as rewards to go: else the error
    would be held against the steps before it.

    Args:
      scores: P(correct) of the steps.
      mask: 1 where a row has the step.
      right: whether a row arrives at the right answer.
      threshold: a step with a lower score is wrong.

    References:
      Liu et al., 2026, "Save the Good Prefix" (VPPO), arXiv:2601.18984; the values are
      ours.
    """
    wrong = (mask > 0) & (scores < threshold)
    spoilt = (jnp.cumsum(wrong, axis=1) > 0) & ~right[:, None]
    return jnp.where(mask > 0, jnp.where(spoilt, -1.0, 1.0), 0.0)


def implicit(
    logprobs: Float32[Array, "B T"],
    ref_logprobs: Float32[Array, "B T"],
    mask: Float32[Array, "B T"],
    beta: float,
) -> Float32[Array, "B T"]:
    """An implicit PRM's rewards: beta (log pi_phi - log pi_ref) of each token.

    Args:
      logprobs: of the tokens under the language model that is the PRM.
      ref_logprobs: under the model that it was trained from.
      mask: 1 on the tokens of the reply.
      beta: scale of the rewards.

    References:
      Cui et al., 2025, "Process Reinforcement through Implicit Rewards" (PRIME),
      arXiv:2502.01456; beta 0.05.
    """
    return jnp.where(mask > 0, beta * (logprobs - ref_logprobs), 0.0)


def overlong(
    lengths: Float32[Array, " B"], limit: int, buffer: int
) -> Float32[Array, " B"]:
    """0 up to limit - buffer tokens, from there down to -1 at the limit and beyond.

    References:
      Yu et al., 2025, "DAPO", arXiv:2503.14476, eq. 13 (soft overlong punishment).
    """
    return jnp.clip((limit - buffer - lengths) / buffer, -1.0, 0.0)
