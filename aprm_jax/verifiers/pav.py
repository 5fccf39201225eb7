"""A process advantage verifier: it pays a step for its value and for its progress.

See `verifiers.progress`. Its scores are those of the base's value model, Q, by which
whole solutions are chosen; what a search orders steps by, and RL pays, are its rewards.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from aprm_jax.config.errors import UserError
from aprm_jax.solvers.protocol import Start
from aprm_jax.verifiers.progress import advantages, best_of, effective_rewards
from aprm_jax.verifiers.protocol import (
    Pairs,
    Scale,
    StepVerifier,
    Verifier,
    ends,
    last_scores,
    scores_of,
)
from aprm_jax.verifiers.stepwise import CombinedRows, by_steps


class NoValuesError(UserError, ValueError):
    """A verifier does not say how often a policy arrives, which progress needs."""


@dataclasses.dataclass
class PavRows(CombinedRows):
    """Rows of a PAV.

    Attributes:
      values: the prover's value of what each ends with, NaN where nobody says.
    """

    values: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pav:
    """Implements `Verifier` and `StepVerifier`, and tells rewards.

    Attributes:
      base: values of the policy that searches or learns, Q.
      prover: values of another policy; or K, for the best of K of the base's own
        completions, whose values need no model.
      alpha: weight of the progress.
      aggregation: whole solutions are chosen by their last value.
    """

    base: Verifier | StepVerifier
    prover: Verifier | StepVerifier | int = 4
    alpha: float = 0.5
    aggregation: str = dataclasses.field(default="last", init=False)

    def __post_init__(self):
        check_values_of(self.base, "the base's values")
        if not isinstance(self.prover, int):
            check_values_of(self.prover, "the prover's values")
        elif self.prover < 1:
            raise ValueError(f"prover: the best of {self.prover}; it must be 1 or more")
        if self.prover == 1 or self.prover is self.base:
            logging.getLogger("aprm_jax").warning("%s", SAME)

    @property
    def values(self) -> bool:
        """Its scores are."""
        return True

    @property
    def scale(self) -> Scale:
        """Of the base's values."""
        return self.base.scale

    @property
    def tokens_read(self) -> int:
        """By its models, so far."""
        return sum(getattr(v, "tokens_read", 0) for v in (self.base, self.prover))

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`: the base's values."""
        return scores_of(self._whole(self.base), solutions)

    def questions(self, questions: Sequence[str]) -> Float[np.ndarray, " N"]:
        """The base's value of each bare question, NaN where it has none."""
        return ends(self._whole(self.base), [(q, ()) for q in questions])

    def rewards(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """The effective reward of every step; NaN for a step that was not read."""
        base = self.score(solutions)
        asked = [(question, ()) for question, _ in solutions]
        of_prover, q = self._whole(self.base), base
        if not isinstance(self.prover, int):
            of_prover = self._whole(self.prover)
            q = scores_of(of_prover, solutions)
        scale = of_prover.scale
        starts = self._proved(scale.probability(ends(of_prover, asked)))
        out = []
        for values, own, start in zip(base, q, starts[:, None], strict=True):
            proved = self._proved(scale.probability(own))
            gained = advantages(proved[None], start)[0]
            unread = np.isnan(values) | np.isnan(own)
            paid = effective_rewards(self.scale.probability(values), gained, self.alpha)
            out.append(np.where(unread, np.nan, paid))
        return out

    def _whole(self, verifier: Any) -> Verifier:
        if not isinstance(verifier, Verifier):
            raise TypeError(
                f"{type(verifier).__name__} reads step by step alone; rewards of whole "
                "solutions need a Verifier"
            )
        return verifier

    def _proved(self, q: np.ndarray) -> np.ndarray:
        """The prover's values from those that are read for it."""
        prover = self.prover
        return np.asarray(best_of(q, prover)) if isinstance(prover, int) else q

    @functools.cached_property
    def _readers(self) -> tuple[StepVerifier, ...]:
        """Of the base, and of the prover where that is a model."""
        if isinstance(self.prover, int):
            return (by_steps(self.base),)
        return by_steps(self.base), by_steps(self.prover)

    @property
    def flops_per_token(self) -> float:
        """0, as models differ: what all spend is counted as `StepRows.attention`."""
        return 0.0

    def begin(
        self, starts: Sequence[Start], rows: PavRows | None = None
    ) -> tuple[PavRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.begin`; no reward: what came before is not known."""
        before = rows.parts if rows else (None,) * len(self._readers)
        pairs = zip(self._readers, before, strict=True)
        found = [last_scores(v, v.begin(starts, r), len(starts)) for v, r in pairs]
        read, scores, q = self._together(found)
        return dataclasses.replace(read, values=tuple(q.tolist())), scores

    def read(
        self, rows: PavRows, parents: Sequence[int], steps: Sequence[str]
    ) -> tuple[PavRows, Float[np.ndarray, " N"]]:
        """See `StepVerifier.read`."""
        pairs = zip(self._readers, rows.parts, strict=True)
        found = [(v, v.read(r, parents, steps)) for v, r in pairs]
        found = [last_scores(*pair, len(steps)) for pair in found]
        read, scores, q = self._together(found)
        before = np.array([rows.values[parent] for parent in parents])
        gained = advantages(q[:, None], before)[:, 0]
        paid = effective_rewards(self.scale.probability(scores), gained, self.alpha)
        # A step that one of both has not read has no reward, nor a score to win by.
        lost = np.isnan(q)
        paid, scores = np.where(lost, np.nan, paid), np.where(lost, np.nan, scores)
        told = {"values": tuple(q.tolist()), "rewards": tuple(paid.tolist())}
        return dataclasses.replace(read, **told), scores

    def _together(
        self, read: Sequence[tuple[Any, np.ndarray]]
    ) -> tuple[PavRows, np.ndarray, np.ndarray]:
        """The rows, the base's scores, and the prover's values."""
        parts, scores = zip(*read, strict=True)
        q = self._proved(self._readers[-1].scale.probability(scores[-1]))
        return PavRows.of(parts, self._readers), np.asarray(scores[0]), q


SAME = (
    "the prover is the base policy itself: its progress only repeats the advantage "
    "that rewards of outcomes (ORM) already give, so it adds nothing; take another "
    "policy, or the best of K > 1"
)


def check_values_of(verifier: Any, what: str) -> None:
    """Refuses a verifier that says of itself that its scores are no values.

    Raises:
      NoValuesError: names what it would have been, and what gives values.
    """
    if verifier.scale is Scale.LOG_PROBABILITY:
        if hasattr(verifier, "verifiers"):
            raise NoValuesError(
                f"{what}: values of several come to a value by their mean or the least "
                "of them; their product is none"
            )
        raise NoValuesError(
            f"{what}: a likelihood says how probable a step's text is, not how often a "
            "policy arrives from it: name a stage of job=pav"
        )
    if getattr(verifier, "values", True) is False:
        raise NoValuesError(
            f"{what}: this PRM says whether steps are correct, not how often a policy "
            "arrives from them, and nothing of a bare question: name a stage of job=pav"
        )
