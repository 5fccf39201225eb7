"""What every verifier of a run says of solutions: baselines, models, files of scores.

Scores are on the real line (log-odds; of the likelihood, log p), one array a solution
and as long as the solution: NaN for the steps that do not fit a row of the verifier.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special

from aprm_jax.data.steps import RowFormat
from aprm_jax.evals import baselines
from aprm_jax.evals.step_sets import StepSet, padded
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.jobs.prm_labels import branches, row_shape
from aprm_jax.jobs.step_data import CHANCE, LIKELIHOOD, POSITION, given_scores
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.verifiers.labelled import merge
from aprm_jax.verifiers.scoring import (
    Scorer,
    StepScorer,
    likelihood_scorer,
    prm_scorer,
)

# Verifier -> scores of each solution.
Scores = dict[str, list[np.ndarray]]
Pairs = Sequence[tuple[str, tuple[str, ...]]]  # (question, steps)

# Small batches: the attention of long rows outgrows a processor's caches.
_BATCH_SIZES, _BATCH_TOKENS = (4, 32), 1 << 13
_TINY = 1e-12  # keeps the log-odds of a stated probability of 0 or 1 finite


def probability(name: str, scores: np.ndarray) -> np.ndarray:
    """Scores on the real line as what the verifier states: P(correct)."""
    values = np.asarray(scores, np.float64)
    return np.exp(values) if name == LIKELIHOOD else scipy.special.expit(values)


def set_scores(context: Context, data: StepSet) -> Scores:
    """Every verifier's scores of a set; where labels are at hand, baselines' too."""
    out: Scores = {}
    if isinstance(context.domain, LabelledDomain):
        sizes = data.sizes
        chance = baselines.chance_scores(sizes, context.config.seed)
        out[CHANCE] = [_logit(row) for row in chance]
        c = context.config
        rates = _position_rates(context.domain, c.evaluate.neutral, c.domain.label_cut)
        out[POSITION] = [
            _logit(baselines.position_scores(rates, size)) for size in sizes
        ]
    out |= model_scores(context, data.pairs)
    for name, by_set in given_scores(context).items():
        if data.name in by_set:
            out[name] = [_logit(row) for row in by_set[data.name]]
    return out


def model_scores(context: Context, solutions: Pairs, solver: str = "") -> Scores:
    """Scores of the likelihood, where there is a solver, and of `evaluate.prms`.

    `solver` is whose likelihood; by default that of `evaluate.solver`.
    """
    c = context.config.evaluate
    out: Scores = {}
    solver = solver or c.solver
    if solver:
        writer = context.solver(solver)
        params, _ = writer.load(solver, "evaluate.solver", "solver")
        scorer = likelihood_scorer(writer.decoder)
        out[LIKELIHOOD] = _read(writer, scorer, params, solutions, LIKELIHOOD)
    prm = context.of("prm")
    for name in c.prms:
        params, spec = prm.load(name, "evaluate.prms", "prm")
        assert spec.head is not None
        scorer = prm_scorer(prm.decoder, spec.head)
        out[name] = _read(prm, scorer, params, solutions, name)
    return out


def _read(
    context: Context, score: StepScorer, params: Any, solutions: Pairs, name: str
) -> list[np.ndarray]:
    """Scores of every step that fits a row, NaN for the others."""
    if isinstance(context.domain, LabelledDomain):  # whose solutions share beginnings
        scorer = Scorer(
            score,
            context.builder,
            max_steps=row_shape(context)["max_steps"],
            batch_sizes=_BATCH_SIZES,
            max_tokens=_BATCH_TOKENS,
        )
        scores = scorer.trees(params, solutions, branch=branches(context))
    else:
        fitting = [_scorable(context.builder, *pair) for pair in solutions]
        scores = context.scorer(score).solutions(params, fitting)
    if not all(np.isfinite(row).all() for row in scores):
        raise JobError(f"{name}: a score is not finite: the model is broken")
    return padded(scores, [len(steps) for _, steps in solutions])


def _scorable(
    builder: RowFormat, question: str, steps: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """A solution without the steps from the first that does not fit a row."""
    for k, step in enumerate(steps):
        if not builder.fits(builder.step(question, steps[:k], step)):
            return question, tuple(steps[:k])
    return question, tuple(steps)


@functools.lru_cache(maxsize=2)
def _position_rates(domain: LabelledDomain, neutral: str, cut: float) -> np.ndarray:
    rows = merge(domain.labelled, neutral=neutral, soft=False, cut=cut)
    known = [
        (k, label) for row in rows for k, label in enumerate(row.labels) if row.first[k]
    ]
    return baselines.position_rates([k for k, _ in known], [v for _, v in known])


def _logit(values: np.ndarray) -> np.ndarray:
    return scipy.special.logit(
        np.clip(np.asarray(values, np.float64), _TINY, 1 - _TINY)
    )
