"""The hack monitor: what a policy does that pays without being right, and the alarm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from aprm_jax.config.rl import AlarmConfig
from aprm_jax.solvers.protocol import Solution


def habits(solutions: Sequence[Solution]) -> dict[str, float]:
    """How solutions are written: means over solutions, and shares of all steps.

    A step is repeated where it says what an earlier one of its solution did, copied
    where it is a line of the question.
    """
    steps = repeated = empty = copied = 0
    for solution in solutions:
        asked = {_plain(line) for line in solution.question.splitlines()}
        asked.add(_plain(solution.question))
        seen: set[str] = set()
        for text in map(_plain, solution.steps):
            steps += 1
            empty += not text
            repeated += bool(text) and text in seen
            copied += bool(text) and text in asked
            seen.add(text)
    count, steps_all = max(len(solutions), 1), max(steps, 1)
    tokens = sum(len(ids) for s in solutions for ids in s.tokens)
    return {
        "rl/tokens": tokens / count,
        "rl/steps": steps / count,
        "rl/finished": sum(s.finished for s in solutions) / count,
        "rl/repeated": repeated / steps_all,
        "rl/empty": empty / steps_all,
        "rl/copied": copied / steps_all,
    }


def gap(
    right: Bool[np.ndarray, " B"], whole: Float[np.ndarray, " B"] | None
) -> dict[str, float]:
    """What the oracle pays and what the verifier would, of solutions that it read."""
    out = {"reward/oracle": float(np.mean(right)) if len(right) else math.nan}
    read = np.zeros(0, bool) if whole is None else np.isfinite(whole)
    if whole is not None and read.any():
        out["reward/verifier"] = float(np.mean(whole[read]))
        out["reward/gap"] = out["reward/verifier"] - float(np.mean(right[read]))
    return out


def over_the_limit(
    metrics: Mapping[str, float], alarm: AlarmConfig, first_tokens: float, drop: float
) -> list[str]:
    """The limits that a round is beyond, by their names in `config.rl.alarm`.

    Args:
      metrics: of the round.
      alarm: the limits.
      first_tokens: tokens a solution in the first round; 0 where it is not over.
      drop: of dev accuracy, from the best to the last that is known; NaN for none.
    """
    found = {
        "gap": metrics.get("reward/gap", math.nan),
        "kl": metrics.get("policy/kl_sequence", math.nan),
        "repeated": metrics["rl/repeated"],
        "empty": metrics["rl/empty"],
        "copied": metrics["rl/copied"],
        "drop": drop,
    }
    over = [
        name
        for name, value in found.items()
        if getattr(alarm, name) and value > getattr(alarm, name)
    ]
    tokens = metrics["rl/tokens"]
    if alarm.length and first_tokens and tokens:
        factor = max(tokens / first_tokens, first_tokens / tokens)
        over += ["length"] * (factor > alarm.length)
    return over


def _plain(text: str) -> str:
    return " ".join(text.split())
