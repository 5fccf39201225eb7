"""Evaluator of the outcome: does the least step score tell right from wrong answers?

A verifier never saw these solutions' labels; if its least step score ranks right ones
above wrong ones, it found errors that matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from aprm_jax.evals.records import Record, metric_records
from aprm_jax.evals.steps import auc

SET = "outcome"


def outcome_records(
    verifier: str,
    scores: Sequence[Shaped[np.ndarray, " _"]],
    is_correct: Sequence[bool],
    writers: Sequence[str],
) -> list[Record]:
    """AUC of the outcome from the minimum step score, over all and by writer.

    Args:
      verifier: whose scores.
      scores: step scores of each solution, higher is better; NaN where unscored. A
        solution that is not scored whole is a miss: it loses against every other.
      is_correct: whether its final answer is right.
      writers: who wrote it. The AUC over all mixes writers of different strength;
        those within one writer do not, and `auc_within` is their mean.
    """
    least, right = minimum_scores(scores), np.array(is_correct, bool)
    who = np.array(writers, object)
    within = {
        writer: auc(least[who == writer], right[who == writer])
        for writer in sorted(set(writers))
    }
    total = {
        "auc": auc(least, right),
        "auc_within": float(np.mean(list(within.values()))) if within else float("nan"),
        "count": float(len(scores)),
        "unscored": float(np.isnan(least).sum()),
        "correct_share": float(right.mean()) if len(right) else float("nan"),
    }
    out = metric_records(SET, "", verifier, total)
    for writer, value in within.items():
        out += metric_records(SET, "", verifier, {"auc": value}, part=writer)
    return out


def minimum_scores(
    scores: Sequence[Shaped[np.ndarray, " _"]],
) -> Float[np.ndarray, " N"]:
    """The minimum step score of each solution; NaN if any step, or all, is missing."""
    return np.array([np.min(row) if len(row) else np.nan for row in scores], np.float64)
