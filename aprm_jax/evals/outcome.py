"""Step scores against facts about whole solutions: the outcome, the first error.

Outcome: a verifier never saw these solutions' labels; if its least step score ranks
right ones above wrong ones, it found errors that matter. First error: ProcessBench's
metric, with a threshold chosen elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.data.domain import Domain, Problem
from aprm_jax.evals.processbench import (
    NO_ERROR,
    auc,
    best_threshold,
    first_error,
    minimum_scores,
    processbench_score,
)
from aprm_jax.oracle.verdict import Label


def outcome_report(
    scores: Sequence[Float[np.ndarray, " _"]],
    is_correct: Sequence[bool],
    writers: Sequence[str],
) -> dict[str, float]:
    """AUC of the outcome from the minimum step score, over all and by writer.

    Args:
      scores: step scores of each solution, higher is better. One without any is left
        out, and counted.
      is_correct: whether its final answer is right.
      writers: who wrote it. The AUC over all mixes writers of different strength;
        those within one writer do not.
    """
    kept = [i for i, row in enumerate(scores) if len(row)]
    least = minimum_scores([scores[i] for i in kept])
    right = np.array([is_correct[i] for i in kept], bool)
    who = np.array([writers[i] for i in kept], object)
    out = {"auc": auc(least, right)}
    for writer in sorted(set(who.tolist())):
        out[f"{writer}.auc"] = auc(least[who == writer], right[who == writer])
    within = [value for name, value in out.items() if name != "auc"]
    out["auc_within"] = float(np.mean(within)) if within else float("nan")
    out["count"] = float(len(kept))
    out["left_out"] = float(len(scores) - len(kept))
    out["correct_share"] = float(right.mean()) if len(right) else float("nan")
    return out


def first_error_report(
    scores: Sequence[Float[np.ndarray, " _"]],
    labels: Sequence[int],
    threshold: float,
) -> dict[str, float]:
    """ProcessBench's metric at a given threshold, and the best one in hindsight.

    `oracle_threshold_f1` chooses its threshold on these very rows, so it is no
    result: it tells a verifier that cannot from a threshold that does not carry over.
    """
    predictions = [first_error(row, threshold) for row in scores]
    out = processbench_score(predictions, labels)
    out["threshold"] = float(threshold)
    # Rows whose first error was not scored (too long) stay wrong in hindsight too.
    known = [i for i, row in enumerate(scores) if labels[i] < len(row)]
    if known:
        best = best_threshold([scores[i] for i in known], [labels[i] for i in known])
        hindsight = [first_error(row, best) for row in scores]
        out["oracle_threshold_f1"] = processbench_score(hindsight, labels)["f1"]
    return out


def located_errors(
    domain: Domain, problems: Sequence[Problem], seed: int
) -> list[tuple[str, tuple[str, ...], int]]:
    """Solutions with the index of their first error, to choose a threshold on.

    Of each problem the given solution, without an error, and the same with one step
    corrupted at random where the oracle confirms that it is wrong now.

    Args:
      domain: corrupts and judges.
      problems: of the dev split, their solutions correct.
      seed: of the corruptions.

    Returns:
      Question, steps, and ProcessBench's label: an index, or -1.
    """
    out: list[tuple[str, tuple[str, ...], int]] = []
    for index, problem in enumerate(problems):
        question, steps = problem.question, problem.steps
        out.append((question, steps, NO_ERROR))
        rng = np.random.default_rng([seed, index])
        for k in (int(i) for i in rng.permutation(len(steps))):
            text = domain.corrupt(rng, question, steps[:k], steps[k])
            if text is None:
                continue
            verdict = domain.oracle.judge(question, steps[:k], steps[k], text)
            if verdict.label == Label.INCORRECT:
                out.append((question, (*steps[:k], text, *steps[k + 1 :]), k))
                break
    return out
