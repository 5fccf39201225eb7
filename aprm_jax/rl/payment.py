"""Who is paid what in a round, who is left out of it, and why: all of it counted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aprm_jax.rl.config import RLConfig
from aprm_jax.rl.sources import SOURCES, Graded, Said, pay
from aprm_jax.rl.update import Payment

_ALIKE = 1e-6  # rewards that differ by less are equal


def payment_of(
    c: RLConfig, graded: Graded, word: Said | None, width: int
) -> tuple[Payment, dict[str, float]]:
    """What each source pays, and what is left out, counted by its reason.

    Args:
      c: the settings.
      graded: of a round's solutions, problem by problem.
      word: the verifier's; None where there is none.
      width: S, most steps of a solution.
    """
    named = [name for name in c.rewards if name != "implicit"]
    paid = {name: pay(name, graded, word, c.pay, width) for name in named}
    steps = (np.arange(width) < graded.steps[:, None]).astype(np.float32)
    reads = any(SOURCES[name].needs for name in named)
    unread = np.zeros(len(steps), bool)
    if word is not None and reads:
        unread = ~np.isfinite(word.whole_read) & (graded.steps > 0)
    infinite = np.zeros(len(steps), bool)
    for name, values in paid.items():
        gone = ~graded.paid if name == "outcome" else np.zeros(len(steps), bool)
        wrong = ~np.isfinite(np.where(steps[:, : values.shape[1]] > 0, values, 0))
        infinite |= wrong.any(axis=1) & ~gone & ~unread
    weight = ((graded.steps > 0) & ~unread & ~infinite).astype(np.float32)
    payable = weight > 0
    groups = np.arange(c.groups).repeat(c.group_size)
    members = np.bincount(groups, weight, c.groups)[groups]
    alone = (members == 1) & (weight > 0) & (c.estimator in ("grpo", "rloo"))
    weight[alone] = 0
    compared = paid
    if c.implicit_learning_rate:  # what is alike in outcome teaches it nothing
        compared = paid | {"": graded.right[:, None].astype(np.float32)}
    uniform = _uniform(c, compared, weight)
    if c.implicit_learning_rate:  # it pays where no outcome is known, too
        uniform &= graded.paid
    if c.uniform == "drop":
        weight[uniform] = 0
    metrics = {
        "rl/left_out": float(np.mean(weight == 0)),
        "rl/unwritten": float(np.mean(graded.steps == 0)),
        "rl/unread": float(np.mean(unread)),
        "rl/nonfinite_rewards": float(np.mean(infinite)),
        "rl/alone": float(np.mean(alone)),
        "rl/uniform": float(np.mean(uniform)),
        "rl/labels": float(graded.paid.sum() * c.pays_by_outcome),
        "rl/sampled_tokens": float(graded.lengths.sum()),
    }
    for name, values in paid.items():
        total = np.where(steps[:, : values.shape[1]] > 0, values, 0).sum(axis=1)
        kept = payable & np.isfinite(total)
        if kept.any():
            metrics[f"reward/{name}"] = float(total[kept].mean())
    return Payment(paid, steps, weight, groups.astype(np.int32)), metrics


def _uniform(
    c: RLConfig, paid: dict[str, np.ndarray], weight: np.ndarray
) -> np.ndarray:
    """Whether a solution's group has others, and all their rewards are equal."""
    out = np.ones(len(weight), bool)
    if "implicit" in c.rewards and not c.implicit_learning_rate:
        return ~out
    for g in range(c.groups):
        rows = slice(g * c.group_size, (g + 1) * c.group_size)
        kept = weight[rows] > 0
        if kept.sum() < 2:
            out[rows] = False
            continue
        for values in paid.values():
            found = np.nan_to_num(values[rows][kept])
            if np.ptp(found, axis=0).max() > _ALIKE:
                out[rows] = False
    return out & (weight > 0)


def idle(metrics: Mapping[str, float], payment: Payment) -> str:
    """Why a round has nothing to learn from; "" where it has."""
    if not metrics["rl/finished"]:
        return (
            "no sample was finished: raise builder.max_steps or "
            "builder.max_new_tokens, or fine-tune the solver first"
        )
    if np.asarray(payment.weight).any():
        return ""
    if metrics["rl/unread"] == 1:
        return (
            "the verifier read no sample to its end, or, of an oracle, every one has a "
            "step that it cannot decide"
        )
    if metrics["rl/nonfinite_rewards"]:
        return "rewards were NaN or infinite"
    return (
        "all rewards of every problem were equal "
        f"({metrics['rl/uniform']:.0%} of samples), alone in their group "
        f"({metrics['rl/alone']:.0%}), or not read ({metrics['rl/unread']:.0%})"
    )
