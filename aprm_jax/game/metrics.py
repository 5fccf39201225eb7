"""What a round says of itself: rates of its perturbations, and a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from jaxtyping import Float32

from aprm_jax.game.rollouts import TOO_LONG, Perturbation
from aprm_jax.oracle.verdict import Label


def round_metrics(
    perturbations: Sequence[Perturbation],
    p_correct: Float32[np.ndarray, " N"],
    threshold: float,
    kinds: Sequence[str],
    reasons: Sequence[str],
) -> dict[str, float]:
    """Rates of one round, each perturbation weighted by how often it was drawn.

    Rates over a set that is empty are left out, never reported as 0.

    Args:
      perturbations: of one round, at least one.
      p_correct: R's probability of correct for each; ignored where undecidable.
      threshold: from which on R says correct.
      kinds: of errors, the oracle's: `kind_share/KIND`, `kind_caught/KIND`.
      reasons: why a reply may be no step, the builder's: `reply/REASON` is the share
        of each among all replies, `reply/one_step` that of the rest.
    """
    count = np.array([p.count for p in perturbations], np.float64)
    label = np.array([int(p.verdict.label) for p in perturbations])
    incorrect = count * (label == Label.INCORRECT)
    fooled = p_correct >= threshold
    total = count.sum()
    metrics = {
        "game/incorrect_rate": incorrect.sum() / total,
        "game/still_correct_rate": (count * (label == Label.CORRECT)).sum() / total,
        "game/undecidable_rate": (count * (label == Label.UNDECIDABLE)).sum() / total,
        "game/success_rate": (incorrect * fooled).sum() / total,
        "game/distinct_rate": len(perturbations) / total,
        "game/oracle_calls": sum(not p.reply.reason for p in perturbations),
    }
    copied = [p.count for p in perturbations if p.reply.text == p.situation.step]
    metrics["game/copied_rate"] = sum(copied) / total
    distance = [edit_distance(p.situation.step, p.reply.text) for p in perturbations]
    metrics["game/edit_distance"] = float((count * distance).sum() / total)
    for reason in ("", *dict.fromkeys((*reasons, TOO_LONG))):
        of_reason = count * np.array([p.reply.reason == reason for p in perturbations])
        metrics[f"reply/{reason or 'one_step'}"] = of_reason.sum() / total
    if incorrect.sum() > 0:
        metrics["game/fool_rate"] = (incorrect * fooled).sum() / incorrect.sum()
        metrics["game/caught_rate"] = 1.0 - metrics["game/fool_rate"]
        for kind in kinds:
            of_kind = incorrect * np.array(
                [p.verdict.kind == kind for p in perturbations]
            )
            metrics[f"kind_share/{kind}"] = of_kind.sum() / incorrect.sum()
            if of_kind.sum() > 0:
                metrics[f"kind_caught/{kind}"] = (
                    of_kind * ~fooled
                ).sum() / of_kind.sum()
    return {name: float(value) for name, value in metrics.items()}


def edit_distance(step: str, candidate: str) -> float:
    """Share of tokens that differ, 0 for a copy and 1 for nothing in common."""
    matcher = SequenceMatcher(None, step.split(), candidate.split(), autojunk=False)
    return 1.0 - matcher.ratio()


def logged(step: int, perturbations, p_correct, count: int = 8) -> list[dict[str, Any]]:
    """A few of a round's perturbations, spread over its groups, as plain rows."""
    order = sorted(
        range(len(perturbations)),
        key=lambda i: (perturbations[i].group, -perturbations[i].count),
    )
    rows = []
    for i in order[:: max(1, len(order) // count)][:count]:
        p = perturbations[i]
        decided = p.verdict.label != Label.UNDECIDABLE
        rows.append(
            {
                "step": step,
                "question": p.situation.question,
                "prefix": list(p.situation.prefix),
                "correct_step": p.situation.step,
                "perturbed_step": p.reply.text,
                "label": p.verdict.label.name.lower(),
                "kind": p.verdict.kind,
                "reason": p.verdict.reason,
                "count": p.count,
                "p_correct": _shown(float(p_correct[i])) if decided else None,
            }
        )
    return rows


def _shown(p_correct: float) -> float:
    """With four digits, on the side of one half that it is on."""
    return round(p_correct, 4) if p_correct >= 0.5 else min(round(p_correct, 4), 0.4999)
