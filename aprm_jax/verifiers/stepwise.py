"""Verifiers step by step: any, the oracle, and several as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from aprm_jax.models.architecture import DecoderConfig
from aprm_jax.models.flops import forward_flops
from aprm_jax.oracle.verdict import Label
from aprm_jax.solvers.protocol import Start, StepRows
from aprm_jax.solvers.stepwise import TextRows, whole_attention
from aprm_jax.tasks.protocols import Grader, StepOracle
from aprm_jax.verifiers.combined import CombinedVerifier
from aprm_jax.verifiers.models import ModelVerifier
from aprm_jax.verifiers.protocol import (
    Scale,
    StepVerifier,
    Verifier,
    ends,
    last_scores,
    logit,
)
from aprm_jax.verifiers.score_file import ScoreFileVerifier
from aprm_jax.verifiers.stated import OracleVerifier

# Steps that are remembered: more than MCTS* draws, and a few tens of megabytes.
_MOST_KNOWN = 1 << 16


def by_steps(verifier: Verifier | StepVerifier) -> StepVerifier:
    """A verifier as one that reads step by step, from its cache where it has one.

    Raises:
      ValueError: a file of scores, which has none of steps that are written now.
    """
    if isinstance(verifier, ScoreFileVerifier):
        raise ValueError(
            f"verifier: {verifier.path} has scores of whole solutions, and a search "
            "writes others: choose among the file's own with job=select"
        )
    if isinstance(verifier, OracleVerifier):
        return OracleSteps(verifier.oracle)
    if isinstance(verifier, CombinedVerifier):
        return CombinedSteps(verifier, tuple(map(by_steps, verifier.verifiers)))
    if isinstance(verifier, StepVerifier):
        return verifier
    return UncachedVerifier.of(verifier)


@dataclasses.dataclass
class ScoredRows(TextRows):
    """Rows of text whose last steps have a score.

    Attributes:
      known: the score of the last step of (question, steps), all that a search has
        asked for: a branch that it enters again is not read again.
    """

    known: dict[Start, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class UncachedVerifier:
    """Implements `StepVerifier`: each new step is read with its whole solution.

    Attributes:
      verifier: scores it.
      row_tokens: how many tokens it reads of (question, steps).
      flops_per_token: see `StepVerifier`.
      config: of a model in this process, whose attention is counted.
    """

    verifier: Verifier
    row_tokens: Callable[[str, Sequence[str]], int] = lambda question, steps: 0
    flops_per_token: float = 0.0
    config: DecoderConfig | None = None

    @classmethod
    def of(cls, verifier: Verifier) -> UncachedVerifier:
        """With what a model in this process tells of itself."""
        if not isinstance(verifier, ModelVerifier):
            return cls(verifier)
        builder, likelihood = verifier.scorer.builder, Scale.LOG_PROBABILITY
        return cls(
            verifier,
            lambda question, steps: len(
                builder.solution(question, steps) if steps else builder.bare(question)
            ),
            forward_flops(
                verifier.params["backbone"], unembeds=verifier.scale is likelihood
            ),
            verifier.decoder.config,
        )

    @property
    def scale(self) -> Scale:
        """The verifier's."""
        return self.verifier.scale

    def begin(
        self, starts: Sequence[Start], rows: ScoredRows | None = None
    ) -> tuple[ScoredRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.begin`."""
        wanted = [(question, tuple(steps)) for question, steps in starts]
        return self._read(wanted, {} if rows is None else rows.known)

    def read(
        self, rows: ScoredRows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[ScoredRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.read`."""
        before = [rows.starts[parent] for parent in parents]
        wanted = [(q, (*b, step)) for (q, b), step in zip(before, steps, strict=True)]
        return self._read(wanted, rows.known)

    def _read(
        self, solutions: list[tuple[str, tuple[str, ...]]], known: dict[Start, float]
    ) -> tuple[ScoredRows, Float[np.ndarray, " N"]]:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        new = list(dict.fromkeys(pair for pair in solutions if pair not in known))
        known |= dict(zip(new, ends(self.verifier, new).tolist(), strict=True))
        # Of a bare question nothing is read but for its score.
        new = [p for p in new if p[1] or not math.isnan(known[p])]
        costs = {pair: self.row_tokens(*pair) for pair in new}
        read = [costs.pop(pair, 0) for pair in solutions]  # the first of equals pays
        rows = ScoredRows(tuple(read), starts=tuple(solutions), known=known)
        rows.attention = whole_attention(self.config, read)
        return rows, np.array([known.get(pair, math.nan) for pair in solutions])


@dataclasses.dataclass
class JudgedRows(StepRows):
    """Rows of text whose steps the oracle has judged.

    Attributes:
      starts: (question, steps) of each.
      wrong: whether each has an incorrect step: all that follows is wrong, too.
      verdicts: of (question, steps) on their last one, all that a search has asked for.
    """

    starts: tuple[Start, ...] = ()
    wrong: tuple[bool, ...] = ()
    verdicts: dict[Start, Label] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OracleSteps:
    """Implements `StepVerifier` by the oracle, each step judged once.

    An undecidable step is as likely right as wrong: a search must not drop it.

    Attributes:
      oracle: judges.
      answers: the right answer of a question, where it is known: what concludes a
        solution is then right if it arrives there, by whatever way. An upper bound.
      grader: compares answers; needed for `answers`.
    """

    oracle: StepOracle
    answers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grader: Grader | None = None
    scale: Scale = Scale.LOG_ODDS
    flops_per_token: float = 0.0

    def begin(
        self, starts: Sequence[Start], rows: JudgedRows | None = None
    ) -> tuple[JudgedRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.begin`; of a prefix what `rows` have not seen is judged."""
        bare = tuple((question, ()) for question, _ in starts)
        verdicts = {} if rows is None else rows.verdicts
        none = (0,) * len(starts), (False,) * len(starts)
        rows = JudgedRows(none[0], 0, (), bare, none[1], verdicts)
        scores = np.full(len(starts), math.nan)
        calls = np.zeros(len(starts), int)
        for depth in range(max((len(steps) for _, steps in starts), default=0)):
            texts = [s[depth] if depth < len(s) else None for _, s in starts]
            rows, found = self._judge(rows, range(len(starts)), texts)
            scores = np.where([text is None for text in texts], scores, found)
            calls += rows.oracle_calls
        return dataclasses.replace(rows, oracle_calls=tuple(calls.tolist())), scores

    def read(
        self, rows: JudgedRows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[JudgedRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.read`."""
        return self._judge(rows, parents, steps)

    def _judge(
        self, rows: JudgedRows, parents: Sequence[int], steps: Sequence[str | None]
    ) -> tuple[JudgedRows, Float[np.ndarray, " N"]]:
        """Judges a step of each row; None leaves the row as it is."""
        if len(rows.verdicts) >= _MOST_KNOWN:
            rows.verdicts.clear()
        starts, wrong, stated, calls = [], [], [], []
        for parent, step in zip(parents, steps, strict=True):
            (question, before), bad = rows.starts[parent], rows.wrong[parent]
            label, judged = Label.INCORRECT, 0
            known = None if step is None else self._arrives(question, before, step)
            if known is not None:
                label = Label.CORRECT if known else Label.INCORRECT
            elif step is not None and not bad:
                asked = question, (*before, step)
                judged = int(asked not in rows.verdicts)
                if judged:
                    verdict = self.oracle.judge(question, before, None, step)
                    rows.verdicts[asked] = verdict.label
                label = rows.verdicts[asked]
                bad = label == Label.INCORRECT
            starts.append((question, before if step is None else (*before, step)))
            wrong.append(bad)
            stated.append(_STATED[label])
            calls.append(judged)
        zeros = (0,) * len(starts)
        after = JudgedRows(
            zeros, 0, tuple(calls), tuple(starts), tuple(wrong), rows.verdicts
        )
        return after, logit(np.array(stated, float))

    def _arrives(self, question: str, before: Sequence[str], step: str) -> bool | None:
        """Whether a step concludes with the right answer; None where that is open."""
        answer, grader = self.answers.get(question), self.grader
        if not answer or grader is None or not grader.is_final(step):
            return None
        return grader.same_answer(grader.answer([*before, step]), answer)


@dataclasses.dataclass
class CombinedRows(StepRows):
    """Rows of several verifiers.

    Attributes:
      parts: of each verifier.
    """

    parts: tuple[Any, ...] = ()

    @classmethod
    def of(
        cls, parts: Sequence[Any], verifiers: Sequence[StepVerifier], **more: Any
    ) -> Self:
        """What the verifiers' rows come to together; `more` are fields of its own."""
        tokens = np.array([part.prefilled for part in parts], int)
        none = (0,) * tokens.shape[1]
        calls = np.array([part.oracle_calls or none for part in parts], int)
        spent = np.array([part.attention or none for part in parts], float)
        rates = np.array([v.flops_per_token for v in verifiers])
        return cls(
            tuple(tokens.sum(axis=0).tolist()),
            sum(part.num_bytes for part in parts),
            tuple(calls.sum(axis=0).tolist()),
            parts=tuple(parts),
            attention=tuple((spent.sum(axis=0) + rates @ tokens).tolist()),
            **more,
        )


@dataclasses.dataclass(frozen=True)
class CombinedSteps:
    """Implements `StepVerifier` by several, each from its own cache.

    Attributes:
      combined: says what becomes of their scores.
      verifiers: the same, step by step.
      flops_per_token: 0, as theirs differ: what all of them spend is counted as
        `StepRows.attention`.
    """

    combined: CombinedVerifier
    verifiers: tuple[StepVerifier, ...]
    flops_per_token: float = dataclasses.field(default=0.0, init=False)

    @property
    def scale(self) -> Scale:
        """Of the combined scores."""
        return self.combined.scale

    @property
    def aggregation(self) -> str:
        """The combined verifier's."""
        return self.combined.aggregation

    def begin(
        self, starts: Sequence[Start], rows: CombinedRows | None = None
    ) -> tuple[CombinedRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.begin`."""
        before = rows.parts if rows else (None,) * len(self.verifiers)
        pairs = zip(self.verifiers, before, strict=True)
        found = [last_scores(v, v.begin(starts, r), len(starts)) for v, r in pairs]
        return self._together(found)

    def read(
        self, rows: CombinedRows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[CombinedRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.read`."""
        pairs = zip(self.verifiers, rows.parts, strict=True)
        found = [(v, v.read(r, parents, steps)) for v, r in pairs]
        return self._together([last_scores(*pair, len(steps)) for pair in found])

    def _together(
        self, read: Sequence[tuple[Any, np.ndarray]]
    ) -> tuple[CombinedRows, Float[np.ndarray, " N"]]:
        parts, scores = zip(*read, strict=True)
        rows = CombinedRows.of(parts, self.verifiers)
        return rows, self.combined.combined(scores)


_STATED = {Label.CORRECT: 1.0, Label.INCORRECT: 0.0, Label.UNDECIDABLE: 0.5}
