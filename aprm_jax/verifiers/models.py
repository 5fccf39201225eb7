"""Verifiers that are models: a PRM, and the likelihood of a solver."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from aprm_jax.config.errors import UserError
from aprm_jax.data.steps import RowFormat
from aprm_jax.models.decoder import Decoder
from aprm_jax.verifiers.protocol import Pairs, Scale
from aprm_jax.verifiers.scoring import Scorer, likelihood_scorer, prm_scorer


class BrokenModelError(UserError, RuntimeError):
    """A model's scores are no numbers."""


@dataclasses.dataclass(frozen=True)
class ModelVerifier:
    """Reads solutions in batches, each step that fits a row.

    Attributes:
      scorer: of the model's rows.
      params: the model's.
      scale: of the scores.
      shared: whether what several solutions begin with is read once, in rows that
        branch where the architecture allows it: `branch`.
      branch: see `trees.tree_rows`.
      aggregation: of the scores of a solution's steps, where nobody says otherwise.
    """

    scorer: Scorer
    params: Any
    scale: Scale
    shared: bool = False
    branch: bool = False
    aggregation: str = "min"

    @property
    def tokens_read(self) -> int:
        """Tokens of all rows that the model has read, padding left out."""
        return self.scorer.tokens_read

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`.

        Raises:
          BrokenModelError: a score is not finite.
        """
        if self.shared:
            scores = self.scorer.trees(self.params, solutions, branch=self.branch)
        else:
            fitting = [_fitting(self.scorer.builder, *pair) for pair in solutions]
            scores = self.scorer.solutions(self.params, fitting)
        if not all(np.isfinite(row).all() for row in scores):
            raise BrokenModelError("a score is not finite: the model is broken")
        return padded(scores, [len(steps) for _, steps in solutions])


_OF_VERIFIER = ("shared", "branch", "aggregation")


def prm_verifier(
    decoder: Decoder, head: str, params: Any, builder: RowFormat, **rows: Any
) -> ModelVerifier:
    """A PRM with any head; `rows` are options of `Scorer` and of its verifier."""
    return _verifier(prm_scorer(decoder, head), params, builder, Scale.LOG_ODDS, rows)


def likelihood_verifier(
    decoder: Decoder, params: Any, builder: RowFormat, **rows: Any
) -> ModelVerifier:
    """The least token log-probability of each step; see `prm_verifier`."""
    score = likelihood_scorer(decoder)
    return _verifier(score, params, builder, Scale.LOG_PROBABILITY, rows)


def _verifier(score, params, builder, scale, rows) -> ModelVerifier:
    of_verifier = {k: rows.pop(k) for k in _OF_VERIFIER if k in rows}
    return ModelVerifier(Scorer(score, builder, **rows), params, scale, **of_verifier)


def padded(
    scores: Sequence[Shaped[np.ndarray, " _"]], sizes: Sequence[int]
) -> list[Float[np.ndarray, " _"]]:
    """Scores up to some step, as long as the solutions: NaN from there on."""
    out = []
    for row, size in zip(scores, sizes, strict=True):
        whole = np.full(size, np.nan)
        whole[: len(row)] = row
        out.append(whole)
    return out


def _fitting(
    builder: RowFormat, question: str, steps: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """A solution without the steps from the first that does not fit a row."""
    for k, step in enumerate(steps):
        if not builder.fits(builder.step(question, steps[:k], step)):
            return question, tuple(steps[:k])
    return question, tuple(steps)
