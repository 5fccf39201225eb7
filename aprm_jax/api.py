"""The Python API: load a trained model from a folder and use it on text.

solver = aprm_jax.Solver.load("runs/mine/solver")
solutions = solver.solve("2 + 3 * 4", n=8)  # each has steps, and whether it is finished
prm = aprm_jax.PRM.load("runs/mine/aprm/model")
prm.score("2 + 3 * 4", ["2 + 12", "14"])  # float32[2]: P(correct) of each step
prm.rank("2 + 3 * 4", [s.steps for s in solutions])[0].steps  # of the best solution

A model judges the kind of text that it was trained on. The quickstart's is arithmetic
in natural numbers: a step writes the line before it again, with one operation carried
out. With `domain.modulus=10` (`configs/compare.py`, whose tables docs/results.md has)
every result is its last digit instead, and `2 + 12` is wrong where `2 + 2` is right;
`spec.domain` says which.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import jax
import numpy as np
from jaxtyping import Float32
from transformers import PreTrainedTokenizerFast

from aprm_jax.data import given
from aprm_jax.data.rows import TooLongError
from aprm_jax.hf.builders import open_builder, open_writer
from aprm_jax.hf.locate import load_any
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.io import Kind, ModelSpec
from aprm_jax.oracle.answers import grade
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.search.aggregate import AGGREGATIONS
from aprm_jax.search.choice import solution_scores
from aprm_jax.solvers.named import solver_of
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.models import BrokenModelError, check_finite
from aprm_jax.verifiers.named import BATCH_SIZES, verifier_of

__all__ = ["PRM", "Generator", "Ranked", "Solver", "grade"]


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A candidate in its place.

    Attributes:
      index: of it among those that were given.
      steps: its steps.
      scores: float32 [S], P(correct) of each; NaN for one that does not fit the model.
      score: of the whole, their aggregate; NaN of a candidate without steps, and of
        one that does not fit: these come last.
    """

    index: int
    steps: tuple[str, ...]
    scores: Float32[np.ndarray, " S"]
    score: float


class _Model:
    """What every loaded model has."""

    kind: Kind

    def __init__(
        self, params: Any, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast
    ):
        self.params = params
        self.spec = spec
        self.decoder = Decoder(spec.decoder)
        self.builder = open_builder(spec, tokenizer)

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        longest = self.builder.buckets[-1]
        name = type(self).__name__
        return f"<{name}: {count:,} parameters, rows of up to {longest:,} tokens>"

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> Self:
        """Loads a model.

        Args:
          name: a folder that a job has written: a run, a stage, a model or an export;
            a model of Hugging Face: a folder of it, or OWNER/NAME on the hub. A run or
            stage with several models of this kind must have one of a stage `aprm`.

        Raises:
          ModelFileError: no model is there, a damaged one, or another kind; the message
            says what was found, and what would be right.
          UnsupportedModelError, CheckpointMismatchError, AdapterMismatchError,
            LayoutError: a model of Hugging Face that cannot be used.
          TypeError, ValueError: `name` is of another type, or empty.
        """
        given.name(name, "name")
        return cls(*load_any(name, cls.kind))


class PRM(_Model):
    """A process reward model: how likely each step of a solution is correct.

    `spec.threshold` is the probability from which a step counts as correct;
    `verifier` is the same PRM as `aprm_jax.verifiers.protocol.Verifier`.
    """

    kind = "prm"

    def __init__(
        self, params: Any, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast
    ):
        super().__init__(params, spec, tokenizer)
        if spec.head is None:
            raise ValueError("a PRM's spec must say how it is read")
        self.verifier = verifier_of(params, spec, tokenizer)
        self._scorer = self.verifier.scorer
        self.builder = self._scorer.builder

    def score(
        self, question: str, steps: Sequence[str]
    ) -> Float32[np.ndarray, " num_steps"]:
        """Probability that each step is correct.

        Raises:
          TooLongError: the solution does not fit the model's longest bucket.
          BrokenModelError, TypeError, ValueError: as of `score_batch`.
        """
        return self.score_batch([(question, steps)])[0]

    def value(self, question: str) -> float:
        """The value of a bare question: how often the policy that it knows arrives.

        Raises:
          ValueError: the model has no values, or the question does not fit it.
          BrokenModelError, TypeError: as of `score_batch`.
        """
        question = given.question(question)
        if not self.spec.values:
            raise ValueError(
                "this PRM says whether steps are correct, and nothing of a bare "
                "question: job=pav trains one that does"
            )
        (score,) = self.verifier.questions([question])
        if np.isnan(score):
            raise TooLongError("the question does not fit the model's longest bucket")
        return float(self.verifier.scale.probability([score])[0])

    def score_batch(
        self,
        solutions: Iterable[tuple[str, Sequence[str]]],
        *,
        too_long: Literal["raise", "nan"] = "raise",
    ) -> list[Float32[np.ndarray, " num_steps"]]:
        """Probabilities of many solutions, computed in batches of similar length.

        Args:
          solutions: pairs of a question and its steps.
          too_long: what a solution gets that does not fit the model's longest bucket:
            an error that names it, or NaN for each of its steps.

        Returns:
          For each solution, in order, one probability a step.

        Raises:
          TooLongError: a solution does not fit, and `too_long` is "raise".
          BrokenModelError: a score is not finite.
          TypeError, ValueError: `too_long` is another word, or something is no text,
            no list, or an empty step; the message names the solution and the step.
        """
        given.choice(too_long, "too_long", ("raise", "nan"))
        solutions = given.solutions(solutions)
        kept = [i for i, s in enumerate(solutions) if self._fits(i, *s, too_long)]
        logits = self._scorer.solutions(self.params, [solutions[i] for i in kept])
        check_finite(logits)
        scores = [np.full(len(steps), np.nan, np.float32) for _, steps in solutions]
        for i, logit in zip(kept, logits, strict=True):
            # The sigmoid, without overflow far from zero.
            scores[i][:] = np.exp(-np.logaddexp(0.0, -logit))
        return scores

    def rank(
        self,
        question: str,
        candidates: Iterable[str | Sequence[str]],
        *,
        aggregation: str = "",
    ) -> list[Ranked]:
        """The candidate solutions of a question, the best first; ties as they came.

        Args:
          question: the problem.
          candidates: any number; each a list of steps, or a text whose lines they are.
          aggregation: of the scores of its steps to that of a solution: "min",
            "product", "mean" or "last"; "" for the model's own (`spec.aggregation`):
            "min", or "last" of a PRM that was trained on outcomes.

        Raises:
          BrokenModelError, TypeError, ValueError: as of `score_batch`; `aggregation` is
            another word.
        """
        given.choice(aggregation, "aggregation", ("", *AGGREGATIONS))
        question = given.question(question)
        steps = given.candidates(candidates)
        rows = self.verifier.score([(question, texts) for texts in steps])
        logs = [self.verifier.scale.log_probability(row) for row in rows]
        totals = solution_scores(steps, logs, aggregation or self.spec.aggregation)
        order = np.argsort(np.where(np.isnan(totals), np.inf, -totals), kind="stable")
        states = self.verifier.scale.probability
        return [
            Ranked(
                int(k),
                steps[k],
                states(rows[k]).astype(np.float32),
                float(np.exp(totals[k])),
            )
            for k in order
        ]

    def _fits(
        self, index: int, question: str, steps: Sequence[str], too_long: str
    ) -> bool:
        """Whether every row of a solution fits the longest bucket."""
        if self.builder.window is None:
            rows = [self.builder.solution(question, steps)]
        else:
            rows = [
                self.builder.step(question, steps[:k], step)
                for k, step in enumerate(steps)
            ]
        longest = max((len(row) for row in rows), default=0)
        fits = longest <= self.builder.buckets[-1]
        if too_long == "raise" and not fits:
            raise TooLongError(
                f"solution {index} needs {longest} tokens in one row, more than the "
                f"{self.builder.buckets[-1]} of the model's longest bucket"
            )
        return fits


class Solver(_Model):
    """Writes solutions, step by step; `local` is the same for code that batches."""

    kind = "solver"

    def __init__(
        self, params: Any, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast
    ):
        super().__init__(params, spec, tokenizer)
        self.local = solver_of(params, spec, tokenizer)
        self.builder = self.local.builder

    def solve(
        self,
        question: str,
        n: int = 1,
        *,
        max_steps: int = 40,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Solution]:
        """Samples `n` solutions.

        A model that was trained on a domain concludes as its problems do; any other
        with `#### ANSWER` or a box. A language model that nothing was trained on is
        told in words to write one step after another.

        Args:
          question: the problem.
          n: how many; the first ones of more are the same.
          max_steps: a solution that has not concluded by then is not `finished`.
          temperature: of the sampling; 0 takes the most likely token.
          top_p: the share of the most likely tokens that may be drawn, in (0, 1].
          seed: the same seed gives the same solutions.

        Returns:
          `n` of `solvers.protocol.Solution`: `steps`, `finished`, and the drawn
          `tokens` of each step with their `logprobs`.

        Raises:
          TooLongError: the question does not fit the model's longest bucket.
          BrokenModelError: a token's probability is no number.
          TypeError, ValueError: something is no text, or a number out of range; the
            message names it.
        """
        question = given.question(question)
        given.whole(n, "n", least=1)
        given.whole(max_steps, "max_steps", least=1)
        given.seed(seed)
        given.not_negative(temperature, "temperature")
        given.share(top_p, "top_p")
        writer = self.local.builder
        writer.bucket(len(writer.context(question, ())))
        [found] = self.local.solve(
            [(question, ())],
            int(n),
            jax.random.key(seed),
            max_steps=int(max_steps),
            temperature=float(temperature),
            truncation=None if top_p == 1 else Truncation(top_p=float(top_p)),
        )
        for solution in found:
            _check_drawn(solution.logprobs)
        return found


class Generator(_Model):
    """A perturbation generator: rewrites a correct step as a PRM may fall for."""

    kind = "generator"

    def __init__(
        self, params: Any, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast
    ):
        super().__init__(params, spec, tokenizer)
        self._writer = open_writer(spec, tokenizer)
        self._sampler = Sampler(
            spec.decoder,
            stop_ids=self._writer.replies.stop_ids,
            pad_id=self._writer.pad_id,
            prompt_buckets=self._writer.buckets,
            max_new_tokens=spec.max_new_tokens or self._writer.buckets[0],
            batch_buckets=BATCH_SIZES,
            positions=self._writer.positions,
        )

    def perturb(
        self,
        question: str,
        prefix: Sequence[str],
        step: str,
        n: int = 4,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Samples `n` perturbations of a step.

        Nothing says that a sample is wrong, or that it differs from `step`: ask an
        oracle. One that does not end within the model's room is cut off there.

        Args:
          question: the problem.
          prefix: the steps before `step`.
          step: the correct step.
          n: how many samples.
          temperature: of the sampling; 0 takes the most likely token.
          seed: the same seed gives the same samples.

        Raises:
          TooLongError: the prompt does not fit the model's longest bucket.
          TypeError, ValueError: something is no text, no list, an empty step, or a
            number out of range; the message names it.
        """
        question = given.question(question)
        prefix = given.steps(prefix, name="prefix")
        step = given.step(step, "the step")
        given.whole(n, "n", least=1)
        given.seed(seed)
        given.not_negative(temperature, "temperature")
        prompt = self._writer.perturb_context(question, prefix, step)
        self.builder.bucket(len(prompt))
        samples = self._sampler.sample(
            self.params["backbone"],
            [prompt] * n,
            jax.random.key(seed),
            temperature=temperature,
        )
        replies = [samples.reply(i) for i in range(n)]
        _check_drawn(reply.logprobs for reply in replies)
        read = self._writer.replies.read
        return [read(reply).text for reply in replies]


def _check_drawn(steps: Iterable[Sequence[float] | np.ndarray]) -> None:
    """Raises BrokenModelError where tokens were drawn from no distribution.

    Args:
      steps: log-probabilities of the tokens of each.
    """
    if any(np.isnan(step).any() for step in steps):
        raise BrokenModelError(
            "a token's log-probability is not a number: the model is broken"
        )
