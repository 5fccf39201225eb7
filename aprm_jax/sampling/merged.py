"""Many samples of few prompts: what they begin with alike is computed once.

Where a prompt is drawn from hundreds of times and the vocabulary is small, most
replies are the same few. All draws stand side by side; after each token those that
read the same so far share one row of a session, so that a row is computed for each
distinct beginning, not for each draw.

Axes: N draws, T new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from aprm_jax.sampling.drawing import Samples
from aprm_jax.sampling.loop import Draws
from aprm_jax.sampling.session import Session


def sample_merged(
    session: Session,
    rows: Int[np.ndarray, " N"],
    key: Key[Array, ""] | UInt32[Array, "2"],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    temperature: float,
    truncation: Any,
    draws: UInt32[np.ndarray, " N"],
) -> Samples:
    """What `Session.sample` would give each draw in a row of its own, to rounding.

    Args:
      session: of the distinct prompts; its rows are used up.
      rows: which row of it each draw goes on from.
      key: of the whole request.
      stop_ids: tokens that end a sample.
      pad_id: stands after a sample's end.
      max_new_tokens: T.
      temperature: divides the logits; 0 is greedy.
      truncation: which tokens may be drawn; None for all.
      draws: a number for each draw that alone picks its randomness.
    """
    n, width = len(rows), max_new_tokens
    out = Samples(
        tokens=np.full((n, width), pad_id, np.int32),
        logprobs=np.zeros((n, width), np.float32),
        lengths=np.zeros(n, np.int32),
        stopped=np.zeros(n, bool),
    )
    decided = Draws(
        key, draws, np.float32(temperature), truncation and truncation.rules
    )
    live, row = np.arange(n), np.asarray(rows)
    for step in range(width):
        tokens, logprobs = session.draw(row, live, decided, step, width)
        out.tokens[live, step], out.logprobs[live, step] = tokens, logprobs
        out.lengths[live] += 1
        stops = np.isin(tokens, np.asarray(stop_ids))
        out.stopped[live[stops]] = True
        live, row, tokens = live[~stops], row[~stops], tokens[~stops]
        if not len(live) or step == width - 1:
            break
        begun, row = np.unique(np.stack([row, tokens]), axis=1, return_inverse=True)
        row = row.reshape(-1)  # NumPy 2.0 keeps the axes of what it merged
        session.gather(begun[0].tolist())
        session.read(begun[1][:, None].tolist(), count_on=True)
    return out
