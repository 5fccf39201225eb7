"""Verifiers that are models: a PRM, and the likelihood of a solver."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from aprm_jax.data.steps import RowFormat
from aprm_jax.data.trees import can_branch, steps_that_fit
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.solvers.protocol import Start
from aprm_jax.verifiers.protocol import Pairs, Scale, ends
from aprm_jax.verifiers.reading import (
    BrokenModelError,
    ReadRows,
    StepReader,
    TokenReading,
)
from aprm_jax.verifiers.scoring import (
    Scorer,
    StepScorer,
    likelihood_scorer,
    prm_scorer,
)


@dataclasses.dataclass(frozen=True)
class ModelVerifier:
    """Reads solutions in batches, each step that fits a row; or step by step.

    It is a `Verifier` and a `StepVerifier`, which keeps its cache.

    Attributes:
      scorer: of the model's rows.
      params: the model's.
      scale: of the scores.
      decoder: the model's.
      reading: of a step's tokens.
      shared: whether what several solutions begin with is read once, in rows that
        branch where the architecture allows it: `branch`.
      branch: see `trees.tree_rows`.
      aggregation: of the scores of a solution's steps, where nobody says otherwise.
      values: whether scores are values, and a bare question has one too.
    """

    scorer: Scorer
    params: Any
    scale: Scale
    decoder: Decoder
    reading: TokenReading
    shared: bool = False
    branch: bool = False
    aggregation: str = "min"
    values: bool = False

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
            fitting = _fitting(self.scorer.builder, solutions)
            scores = self.scorer.solutions(self.params, fitting)
        check_finite(scores)
        return padded(scores, [len(steps) for _, steps in solutions])

    def questions(self, questions: Sequence[str]) -> Float[np.ndarray, " N"]:
        """The score of each bare question, V(x): NaN but of values, and where it fits.

        Raises:
          BrokenModelError: a score is not finite.
        """
        builder = self.scorer.builder
        asked = dict.fromkeys(questions) if self.values else {}
        rows = {question: builder.bare(question) for question in asked}
        fitting = {question: row for question, row in rows.items() if builder.fits(row)}
        found = self.scorer.rows(self.params, fitting)
        check_finite(list(found.values()))
        return np.array([found[q][0] if q in found else np.nan for q in questions])

    @functools.cached_property
    def steps(self) -> StepReader:
        """Reads step by step; its compiled programs."""
        return StepReader(
            self.reading,
            self.decoder,
            self.params,
            self.scorer.builder,
            functools.partial(ends, self),
            self.values,
        )

    @property
    def flops_per_token(self) -> float:
        """See `StepVerifier`."""
        return self.steps.flops_per_token

    def begin(
        self, starts: Sequence[Start], rows: ReadRows | None = None
    ) -> tuple[ReadRows, Float[np.ndarray, " N"]]:
        """See `StepReader.begin`."""
        return self.steps.begin(starts, rows)

    def read(
        self, rows: ReadRows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[ReadRows, Float[np.ndarray, " N"]]:
        """See `StepReader.read`."""
        return self.steps.read(rows, parents, steps)


_OF_VERIFIER = ("shared", "branch", "aggregation", "values")


def prm_verifier(
    decoder: Decoder, head: str, params: Any, builder: RowFormat, **rows: Any
) -> ModelVerifier:
    """A PRM with any head; `rows` are options of `Scorer` and of its verifier.

    Unless they say otherwise, what solutions begin with is read once where it can be.
    """
    score, reading = _of_prm(decoder.config, head)
    made = decoder, reading, params, builder
    return _verifier(score, Scale.LOG_ODDS, *made, rows)


def likelihood_verifier(
    decoder: Decoder, params: Any, builder: RowFormat, **rows: Any
) -> ModelVerifier:
    """The least token log-probability of each step; see `prm_verifier`."""
    score, reading = _of_likelihood(decoder.config)
    made = decoder, reading, params, builder
    return _verifier(score, Scale.LOG_PROBABILITY, *made, rows)


# Once a process: what is traced for one model serves all of its architecture.
@functools.lru_cache(maxsize=32)
def _of_prm(config: DecoderConfig, head: str) -> tuple[StepScorer, TokenReading]:
    decoder = Decoder(config)
    return prm_scorer(decoder, head), TokenReading.prm(decoder, head)


@functools.lru_cache(maxsize=32)
def _of_likelihood(config: DecoderConfig) -> tuple[StepScorer, TokenReading]:
    decoder = Decoder(config)
    return likelihood_scorer(decoder), TokenReading.likelihood(decoder)


def _verifier(score, scale, decoder, reading, params, builder, rows) -> ModelVerifier:
    branch = decoder.config.reads_branches and can_branch(builder)
    rows = {"shared": branch, "branch": branch} | rows
    of_verifier = {k: rows.pop(k) for k in _OF_VERIFIER if k in rows}
    scorer = Scorer(score, builder, **rows)
    return ModelVerifier(scorer, params, scale, decoder, reading, **of_verifier)


def check_finite(scores: Sequence[Shaped[np.ndarray, " _"]]) -> None:
    """Raises `BrokenModelError` where a model's score is no number."""
    if not all(np.isfinite(row).all() for row in scores):
        raise BrokenModelError("a score is not finite: the model is broken")


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


def _fitting(builder: RowFormat, solutions: Pairs) -> list[tuple[str, tuple[str, ...]]]:
    """Solutions without the steps from the first that does not fit a row."""
    if (window := builder.window) is None:
        most = [steps_that_fit(builder, *s, builder.buckets[-1]) for s in solutions]
        return [(q, tuple(s[:n])) for (q, s), n in zip(solutions, most, strict=True)]
    known: dict[tuple[tuple[str, ...], str], bool] = {}  # what a step sees, and it

    def fits(question: str, steps: Sequence[str], k: int) -> bool:
        key = (tuple([question, *steps[:k]][-window:]), steps[k])
        if key not in known:
            known[key] = builder.fits(builder.step(question, steps[:k], steps[k]))
        return known[key]

    out = []
    for question, steps in solutions:
        until = (k for k in range(len(steps)) if not fits(question, steps, k))
        out.append((question, tuple(steps[: next(until, len(steps))])))
    return out
