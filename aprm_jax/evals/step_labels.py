"""Evaluator of single steps: classification, ranking with an interval, calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from aprm_jax.evals import steps
from aprm_jax.evals.calibration import Platt
from aprm_jax.evals.intervals import Interval, bootstrap_statistic
from aprm_jax.evals.records import Record, metric_records
from aprm_jax.evals.step_sets import Judged

SET = "steps"


def step_records(
    split: str,
    verifier: str,
    judged: Judged,
    probability: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    platt: Platt | None,
    resamples: int,
) -> list[Record]:
    """`steps.classification_report`, an interval of the AUC, and calibration.

    The AUC is of the scores on the real line, which separate where probabilities
    saturate; `ece_calibrated` and `brier_calibrated` are those after `platt`, if any.
    """
    report = steps.classification_report(
        probability(judged.scores), judged.labels, threshold=threshold
    )
    values: dict[str, float | Interval] = dict(report)
    values["auc"] = auc_interval(judged.scores, judged.labels, judged.groups, resamples)
    if platt is not None:
        calibrated = platt(judged.scores)
        values["ece_calibrated"] = steps.reliability(calibrated, judged.labels).ece
        values["brier_calibrated"] = steps.brier(calibrated, judged.labels)
    return metric_records(SET, split, verifier, values)


def auc_interval(
    scores: Float[np.ndarray, " N"],
    labels: Float[np.ndarray, " N"],
    groups: Int[np.ndarray, " N"],
    resamples: int,
    seed: int = 0,
) -> Interval:
    """AUC with a 95 % percentile interval; questions are resampled, not steps.

    Steps of one question are no independent draws: they share its difficulty. The ends
    are NaN, see `bootstrap_statistic`, where all questions rank alike, as perfectly, or
    where hardly any has a step of one kind.
    """
    size = int(groups.max(initial=-1)) + 1

    def of_questions(drawn: np.ndarray) -> np.ndarray:
        times = (np.bincount(row, minlength=size)[groups] for row in drawn)
        return np.array(
            [steps.auc(scores, labels, t.astype(np.float64)) for t in times]
        )

    return bootstrap_statistic(
        of_questions,
        size,
        steps.auc(scores, labels),
        resamples=resamples,
        seed=seed,
    )


def diagrams(
    judged: Judged, probability: Callable[[np.ndarray], np.ndarray], platt: Platt | None
) -> dict[str, dict[str, list[float]]]:
    """Filled bins of the reliability diagrams: "stated" and, if any, "calibrated"."""
    readings = {"stated": probability(judged.scores)}
    if platt is not None:
        readings["calibrated"] = platt(judged.scores)
    out = {}
    for how, values in readings.items():
        diagram = steps.reliability(values, judged.labels)
        kept = diagram.weight > 0
        out[how] = {
            "score": diagram.score[kept].tolist(),
            "correct": diagram.correct[kept].tolist(),
            "weight": diagram.weight[kept].tolist(),
        }
    return out
