"""What every verifier of a run says of solutions: baselines, models, files of scores.

Each states itself what its scores are; those of steps that do not fit a row of the
verifier are NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from aprm_jax.config.addresses import is_address
from aprm_jax.evals.step_sets import StepSet
from aprm_jax.jobs.backbones import ENDPOINT
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.jobs.prm_labels import branches, row_shape
from aprm_jax.jobs.row_files import served_verifier
from aprm_jax.jobs.step_data import CHANCE, LIKELIHOOD, POSITION, given_scores
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.verifiers.labelled import merge
from aprm_jax.verifiers.models import (
    BrokenModelError,
    likelihood_verifier,
    prm_verifier,
)
from aprm_jax.verifiers.protocol import Pairs, Scored, StepScores, Verifier
from aprm_jax.verifiers.stated import (
    ChanceVerifier,
    PositionVerifier,
    position_rates,
)

Scores = dict[str, Scored[StepScores]]  # of each verifier, by its name in the run

# Small batches: the attention of long rows outgrows a processor's caches.
_BATCH_SIZES, _BATCH_TOKENS = (4, 32), 1 << 13


def set_scores(context: Context, data: StepSet) -> Scores:
    """Every verifier's scores of a set; where labels are at hand, baselines' too."""
    out: Scores = {}
    if isinstance(context.domain, LabelledDomain):
        c = context.config
        rates = _position_rates(context.domain, c.evaluate.neutral, c.domain.label_cut)
        out[CHANCE] = Scored.by(ChanceVerifier(c.seed), data.pairs)
        out[POSITION] = Scored.by(PositionVerifier(rates), data.pairs)
    out |= model_scores(context, data.pairs)
    for name, by_set in given_scores(context).items():
        if data.name in by_set:
            out[name] = Scored.stated(by_set[data.name])
    return out


def model_scores(context: Context, solutions: Pairs, solver: str = "") -> Scores:
    """Scores of every model that verifies, see `model_verifiers`."""
    out: Scores = {}
    for name, verifier in model_verifiers(context, solver):
        try:
            out[name] = Scored.by(verifier, solutions)
        except BrokenModelError as error:
            raise JobError(f"{name}: {error}") from error
    return out


def model_verifiers(
    context: Context, solver: str = ""
) -> Iterator[tuple[str, Verifier]]:
    """The likelihood, where there is a solver, and `evaluate.prms`; one at a time.

    `solver` is whose likelihood; by default that of `evaluate.solver`.
    """
    c = context.config.evaluate
    solver = solver or c.solver
    if solver not in ("", ENDPOINT):  # a server is not asked about others' text
        writer = context.solver(solver)
        params, _ = writer.load(solver, "evaluate.solver", "solver")
        rows = _rows(writer)
        yield LIKELIHOOD, likelihood_verifier(writer.decoder, params, **rows)
    prm = context.of("prm")
    for name in c.prms:
        if is_address(name):
            yield name, served_verifier(context, name)
            continue
        params, spec = prm.load(name, "evaluate.prms", "prm", any_size=True)
        assert spec.head is not None
        own = {"builder": prm.rows_of(spec), "aggregation": spec.aggregation}
        rows = _rows(prm) | own
        yield name, prm_verifier(prm.decoder_of(spec), spec.head, params, **rows)


def _rows(context: Context) -> dict[str, Any]:
    """How a verifier's rows are built and batched."""
    if not isinstance(context.domain, LabelledDomain):
        steps = context.config.builder.max_steps
        return {"builder": context.builder, "max_steps": steps}
    return {
        "builder": context.builder,
        "max_steps": row_shape(context)["max_steps"],
        "batch_sizes": _BATCH_SIZES,
        "max_tokens": _BATCH_TOKENS,
        "shared": True,  # solutions of labelled data share beginnings
        "branch": branches(context),
    }


@functools.lru_cache(maxsize=2)
def _position_rates(domain: LabelledDomain, neutral: str, cut: float) -> np.ndarray:
    rows = merge(domain.labelled, neutral=neutral, soft=False, cut=cut)
    known = [
        (k, label) for row in rows for k, label in enumerate(row.labels) if row.first[k]
    ]
    return position_rates([k for k, _ in known], [v for _, v in known])
