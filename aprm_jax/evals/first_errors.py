"""Evaluator of first errors: ProcessBench's metric, at thresholds chosen elsewhere.

A threshold decides this metric as much as the verifier does, so every figure is
printed for several, each beside its threshold:

    f1            the validation set's: the best one on rows that look like solutions
    f1@0.5        0.5 on the probabilities that the verifier states
    f1@platt      0.5 after the calibration (Platt) fitted on the validation set
    f1@gsm8k      tuned on ProcessBench's gsm8k split, on its other splits alone, which
                  is how its authors read PRMs
    f1@hindsight  the best one on these very rows: no result, but what there is to gain
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from aprm_jax.data.labelled import LabelledSolution, from_first_error
from aprm_jax.data.problem import Problem
from aprm_jax.evals.intervals import Interval, bootstrap_statistic, harmonic, share
from aprm_jax.evals.processbench import (
    NO_ERROR,
    best_threshold,
    first_error,
    processbench_score,
)
from aprm_jax.evals.records import Record, Results, metric_records
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.protocols import Corruptor, StepOracle

SET = "first_error"
TUNED_ON = "gsm8k"  # the split of ProcessBench whose threshold its authors carry over
VALIDATION, RAW, PLATT, TUNED, HINDSIGHT = "", "@0.5", "@platt", "@gsm8k", "@hindsight"
LEAST_ROWS = 5  # of either kind, to choose a threshold on


def first_error_records(
    split: str,
    verifier: str,
    scores: Sequence[Shaped[np.ndarray, " _"]],
    labels: Sequence[int],
    thresholds: Mapping[str, float],
    resamples: int,
) -> list[Record]:
    """The metric and what it is made of at each threshold.

    Args:
      split: name of the set.
      verifier: whose scores.
      scores: probabilities of "correct"; NaN where unscored. A solution that the
        scores say nothing wrong of, but not to its end, is a miss, see `first_error`.
      labels: the true first errors.
      thresholds: suffix of the metric -> threshold; see the module's head.
      resamples: of the interval of F1.

    Returns:
      `f1`, `error_accuracy`, `correct_accuracy`, `threshold`, `unscored` (rows without
      a verdict) with each suffix; `num_error`, `num_correct`; and `cut`, the rows that
      were not scored to their end.
    """
    cut = sum(bool(np.isnan(row).any()) for row in scores)
    values: dict[str, float | Interval] = {"cut": float(cut)}
    hindsight = {HINDSIGHT: best_threshold(scores, labels)}
    for suffix, threshold in {**thresholds, **hindsight}.items():
        guess = [first_error(row, threshold) for row in scores]
        report = processbench_score(guess, labels)
        values["num_error"] = report.pop("num_error")
        values["num_correct"] = report.pop("num_correct")
        values |= {f"{metric}{suffix}": value for metric, value in report.items()}
        values[f"f1{suffix}"] = f1_interval(guess, labels, resamples)
        values[f"threshold{suffix}"] = threshold
    return metric_records(SET, split, verifier, values)


def f1_interval(
    predictions: Sequence[int] | Int[np.ndarray, " N"],
    labels: Sequence[int] | Int[np.ndarray, " N"],
    resamples: int,
    seed: int = 0,
) -> Interval:
    """ProcessBench's F1 with a 95 % interval over its rows.

    A percentile interval; where all rows of a kind are right, or none is, no resample
    shows anything else, and it comes from the exact intervals of the two accuracies.
    """
    guess, truth = np.asarray(predictions), np.asarray(labels)
    hits, wrong = guess == truth, truth != NO_ERROR
    f1 = processbench_score(guess, truth)["f1"]
    kinds = hits[wrong], hits[~wrong]
    if all(map(len, kinds)) and any(k.all() or not k.any() for k in kinds):
        error, correct = map(share, kinds)
        return harmonic(error, correct)

    def of_rows(drawn: np.ndarray) -> np.ndarray:
        hit, is_wrong = hits[drawn], wrong[drawn]
        with np.errstate(invalid="ignore"):  # NaN of a resample without a kind of row
            error = (hit & is_wrong).sum(1) / is_wrong.sum(1)
            correct = (hit & ~is_wrong).sum(1) / (~is_wrong).sum(1)
        total = error + correct
        return 2 * error * correct / np.where(total == 0, 1.0, total)

    return bootstrap_statistic(of_rows, len(truth), f1, resamples=resamples, seed=seed)


def mean_records(results: Results, splits: Sequence[str]) -> list[Record]:
    """The mean F1 over the splits that are there, as ProcessBench's tables end in one.

    The split of the records says which they are: "gsm8k+math". A tuned threshold's mean
    leaves out the split that it was tuned on; hindsight has none.
    """
    out: list[Record] = []
    verifiers = dict.fromkeys(r.verifier for r in results if r.set == SET)
    for verifier in verifiers:
        for suffix in (VALIDATION, RAW, PLATT, TUNED):
            metric = f"f1{suffix}"
            known = [s for s in splits if results.find(SET, s, verifier, metric)]
            if len(known) > 1:
                values = [results.value(SET, s, verifier, metric) for s in known]
                mean = {metric: float(np.mean(values))}
                out += metric_records(SET, "+".join(known), verifier, mean)
    return out


def validation_threshold(
    scores: Sequence[Float[np.ndarray, " _"]], labels: Sequence[int]
) -> float | None:
    """The best threshold on validation rows; None with fewer than 5 of either kind."""
    wrong = sum(label != NO_ERROR for label in labels)
    if min(wrong, len(labels) - wrong) < LEAST_ROWS:
        return None
    return best_threshold(scores, labels)


def located_errors(
    corruptor: Corruptor, oracle: StepOracle, problems: Sequence[Problem], seed: int
) -> list[LabelledSolution]:
    """Whole solutions with their first error, to choose a threshold on.

    Of each problem the given solution, without an error, and the same with one step
    corrupted at random where the oracle confirms that it is wrong now.

    Args:
      corruptor: makes the wrong steps.
      oracle: judges them.
      problems: of the dev split, their solutions correct.
      seed: of the corruptions.
    """
    out: list[LabelledSolution] = []
    for index, problem in enumerate(problems):
        question, steps = problem.question, problem.steps
        out.append(from_first_error(question, steps, NO_ERROR))
        rng = np.random.default_rng([seed, index])
        for k in (int(i) for i in rng.permutation(len(steps))):
            text = corruptor.corrupt(rng, question, steps[:k], steps[k])
            if text is None:
                continue
            verdict = oracle.judge(question, steps[:k], steps[k], text)
            if verdict.label == Label.INCORRECT:
                changed = (*steps[:k], text, *steps[k + 1 :])
                out.append(from_first_error(question, changed, k))
                break
    return out
