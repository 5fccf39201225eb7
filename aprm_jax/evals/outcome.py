"""Evaluator of the outcome: does the least step score tell right from wrong answers?

A verifier never saw these solutions' labels; if its least step score ranks right ones
above wrong ones, it found errors that matter. Where several solve one question, the
best by it is chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from aprm_jax.evals.records import Record, metric_records
from aprm_jax.evals.steps import auc
from aprm_jax.search.select import expected_best_of_n

SET = "outcome"


def outcome_records(
    verifier: str,
    scores: Sequence[Shaped[np.ndarray, " _"]],
    is_correct: Sequence[bool],
    writers: Sequence[str],
    questions: Sequence[str],
) -> list[Record]:
    """AUC of the outcome from the minimum step score, and the choice by it.

    Args:
      verifier: whose scores.
      scores: step scores of each solution, higher is better; NaN where unscored. A
        solution that is not scored whole is a miss: it loses against every other.
      is_correct: whether its final answer is right.
      writers: who wrote it. The AUC over all mixes writers of different strength;
        those within one writer do not, and `auc_within` is the mean of those that
        there are: whoever is always right, or always wrong, has none.
      questions: what it solves. Of those that several solve, `chosen` is the share of
        which the best solution by the score is right, `any_right` that with a right one
        and `one_right` the mean share of right ones.
    """
    least, right = minimum_scores(scores), np.array(is_correct, bool)
    who = np.array(writers, object)
    within = {
        writer: auc(least[who == writer], right[who == writer])
        for writer in sorted(set(writers))
    }
    total = {
        "auc": auc(least, right),
        "auc_within": _mean_known(list(within.values())),
        "count": float(len(scores)),
        "unscored": float(np.isnan(least).sum()),
        "correct_share": float(right.mean()) if len(right) else float("nan"),
    }
    total |= _choices(least, right, questions)
    out = metric_records(SET, "", verifier, total)
    for writer, value in within.items():
        out += metric_records(SET, "", verifier, {"auc": value}, part=writer)
    return out


def _mean_known(values: Sequence[float]) -> float:
    """The mean of what is not NaN, NaN of nothing."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _choices(
    least: Float[np.ndarray, " N"],
    right: Bool[np.ndarray, " N"],
    questions: Sequence[str],
) -> dict[str, float]:
    """What comes of choosing one of each question's solutions; ties are drawn lots."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for i, question in enumerate(questions):
        members[question].append(i)
    several = [of for of in members.values() if len(of) > 1]
    if not several:
        return {}
    # A miss never wins; a score of -inf does, where there is nothing better.
    scores = np.where(np.isnan(least), -np.inf, np.nan_to_num(least))
    chosen = [
        expected_best_of_n(scores[[of]], right[[of]], len(of))[0] for of in several
    ]
    return {
        "chosen": float(np.mean(chosen)),
        "any_right": float(np.mean([right[of].any() for of in several])),
        "one_right": float(np.mean([right[of].mean() for of in several])),
        "questions": float(len(several)),
    }


def minimum_scores(
    scores: Sequence[Shaped[np.ndarray, " _"]],
) -> Float[np.ndarray, " N"]:
    """The minimum step score of each solution; NaN if any step, or all, is missing."""
    return np.array([np.min(row) if len(row) else np.nan for row in scores], np.float64)
