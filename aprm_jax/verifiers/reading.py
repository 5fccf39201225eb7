"""Models that verify step by step: each new step is read, and nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from aprm_jax.config.errors import UserError
from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.flops import attention_flops, forward_flops
from aprm_jax.models.positions import decodes
from aprm_jax.models.token_logprobs import read_tokens
from aprm_jax.sampling.programs import Programs, TokenScorer
from aprm_jax.sampling.session import Session
from aprm_jax.solvers.protocol import Start
from aprm_jax.solvers.sessions import SessionRows
from aprm_jax.training.mesh import mesh_of
from aprm_jax.verifiers.protocol import Pairs

# The tokens of a row up to where its last step is read, and how many precede the step;
# None where it does not fit.
_Laid = tuple[list[int], int] | None


class BrokenModelError(UserError, RuntimeError):
    """A model's scores are no numbers."""


@dataclasses.dataclass
class ReadRows(SessionRows):
    """Rows of a verifier.

    Attributes:
      lost: whether each has a step that did not fit: what follows is not read.
    """

    lost: tuple[bool, ...] = ()


@dataclasses.dataclass(frozen=True)
class TokenReading:
    """How a step's score is read from its tokens.

    Attributes:
      scorer: of tokens; see `Programs`.
      least: whether a step has the least of its tokens' scores, else its last's.
      unembeds: whether it needs logits over the vocabulary.
    """

    scorer: TokenScorer
    least: bool
    unembeds: bool

    @classmethod
    def prm(cls, decoder: Decoder, head: str) -> TokenReading:
        """Log-odds that a step is correct, as `heads.step_logits` gives them."""

        def scorer(backbone, own, before, states, tokens):
            prm = {"backbone": backbone, "head": own}
            return heads.token_scores(decoder, prm, before, states, tokens, head)

        return cls(scorer, head == "token", unembeds=False)

    @classmethod
    def likelihood(cls, decoder: Decoder) -> TokenReading:
        """The least token log-probability of a step."""

        def scorer(backbone, own, before, states, tokens):
            del own, states
            everywhere = jnp.ones(tokens.shape, bool)
            return read_tokens(decoder, backbone, before, tokens, everywhere).logprobs

        return cls(scorer, True, unembeds=True)


class StepReader:
    """Reads rows of solutions step by step, from their cache.

    Where a layout repeats of an earlier row no more than its opening, as windows do,
    rows are read anew, as far as they are context.

    Args:
      reading: of the model.
      decoder: the model's.
      params: `{"backbone": ...}`, and a PRM's `"head"`.
      builder: makes the rows.
      whole: the score of what each solution ends with, for rows that longrope reads
        in another way than their beginnings.
      values: whether a bare question is scored too.
    """

    def __init__(
        self,
        reading: TokenReading,
        decoder: Decoder,
        params: Any,
        builder: RowFormat,
        whole: Callable[[Pairs], Float[np.ndarray, " N"]],
        values: bool = False,
    ):
        self._reading, self._params, self._whole = reading, params, whole
        self._values = values
        self._builder, self._config = builder, decoder.config
        self._programs = Programs(
            decoder.config,
            pad_id=builder.pad_id,
            mesh=mesh_of(params),
            scorer=reading.scorer,
        )

    @property
    def flops_per_token(self) -> float:
        """See `StepVerifier`."""
        backbone = self._params["backbone"]
        return forward_flops(backbone, unembeds=self._reading.unembeds)

    @property
    def num_compiled(self) -> int:
        """Programs compiled so far."""
        return self._programs.num_compiled

    def begin(
        self, starts: Sequence[Start], rows: ReadRows | None = None
    ) -> tuple[ReadRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.begin`.

        Raises:
          BrokenModelError: a score is not finite.
        """
        solutions = [(question, tuple(steps)) for question, steps in starts]
        laid = [self._begun(*solution) for solution in solutions]
        begun = SessionRows.unread(solutions) if rows is None else rows.entered(starts)
        return self._read(begun, range(len(starts)), solutions, laid)

    def read(
        self, rows: ReadRows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[ReadRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.read`.

        Raises:
          BrokenModelError: a score is not finite.
        """
        before = [rows.starts[parent] for parent in parents]
        laid = [
            None if rows.lost[parent] else self._laid(question, lines, step)
            for parent, (question, lines), step in zip(
                parents, before, steps, strict=True
            )
        ]
        solutions = [
            (question, (*lines, step))
            for (question, lines), step in zip(before, steps, strict=True)
        ]
        return self._read(rows, parents, solutions, laid)

    def _laid(self, question: str, before: Sequence[str], step: str) -> _Laid:
        return self._placed(self._builder.step(question, before, step))

    def _placed(self, row: StepRow) -> _Laid:
        if not self._builder.fits(row):
            return None
        (read,) = np.nonzero(row.step_ids >= 0)
        return row.tokens[: read[-1] + 1].tolist(), max(1, int(read[0]))

    def _begun(self, question: str, steps: tuple[str, ...]) -> _Laid:
        builder, laid = self._builder, None
        for k, step in enumerate(steps):
            laid = self._laid(question, steps[:k], step)
            if laid is None:
                return None
        if laid is not None:
            return laid
        if self._values:
            return self._placed(builder.bare(question))
        if isinstance(builder, StepBuilder):
            ids = builder.context(question, ())
        else:
            ids = builder.solution(question, ()).tokens.tolist()
        return (ids, len(ids)) if len(ids) <= builder.buckets[-1] else None

    def _read(
        self,
        rows: SessionRows,
        parents: Sequence[int],
        solutions: Pairs,
        laid: Sequence[_Laid],
    ) -> tuple[ReadRows, Float[np.ndarray, " N"]]:
        """Copies of rows that have read what is laid out, and the scores of its end."""
        if all(map(self._goes_on, laid)):
            read, found = self._from_cache(rows, parents, laid)
        else:
            read, found = self._anew(solutions, laid)
        scores = np.full(len(laid), math.nan)
        for i, score in found.items():
            scores[i] = score
            if not math.isfinite(score):
                raise BrokenModelError("a score is not finite: the model is broken")
        texts, lost = tuple(solutions), tuple(row is None for row in laid)
        return ReadRows(**(vars(read) | {"starts": texts, "lost": lost})), scores

    def _goes_on(self, row: _Laid) -> bool:
        """Whether a row with its step is read as the row before it was."""
        if row is None or row[1] == len(row[0]):
            return True
        ids, size = row
        return decodes(self._config, size - 1, len(ids) - size + 2)

    def _from_cache(
        self, rows: SessionRows, parents: Sequence[int], laid: Sequence[_Laid]
    ) -> tuple[SessionRows, dict[int, float]]:
        contexts = [None if row is None else row[0][: row[1]] for row in laid]
        read = rows.read(parents, contexts, self._session)
        new = [[] if row is None else row[0][row[1] :] for row in laid]
        if read.session is None or not any(new):
            return read, {}
        there = [i for i, row in enumerate(laid) if row is not None]
        found = read.session.read([new[i] for i in there])
        assert found is not None  # the programs have a scorer
        read.grew([len(ids) for ids in new])
        read.prefilled = tuple(
            n + len(ids) for n, ids in zip(read.prefilled, new, strict=True)
        )
        scores = zip(there, found, strict=True)
        return read, {i: self._reduced(tokens) for i, tokens in scores if tokens.size}

    def _reduced(self, tokens: Float[np.ndarray, " T"]) -> float:
        return float(tokens.min() if self._reading.least else tokens[-1])

    def _anew(
        self, solutions: Pairs, laid: Sequence[_Laid]
    ) -> tuple[SessionRows, dict[int, float]]:
        stepped = [i for i, row in enumerate(laid) if row and row[1] < len(row[0])]
        found = self._whole([solutions[i] for i in stepped])
        read = SessionRows.unread(solutions)
        read.prefilled = tuple(len(row[0]) if row else 0 for row in laid)
        read.attention = tuple(
            attention_flops(self._config, n, n) for n in read.prefilled
        )
        scores = zip(stepped, found, strict=True)
        return read, {i: float(score) for i, score in scores}

    def _session(self, prompts: Sequence[Sequence[int]]) -> Session:
        return Session(
            self._programs,
            self._params["backbone"],
            prompts,
            positions=self._builder.positions,
            head=self._params.get("head"),
        )
