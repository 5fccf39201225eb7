"""The best of given candidates: by score, by a weighted vote or by the majority.

Nothing is known of how candidates came about; `search.pick` chooses from a search tree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.search.aggregate import aggregate_lists
from aprm_jax.search.pick import PICKS
from aprm_jax.search.select import groups, heaviest


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which candidate wins, and why.

    Attributes:
      index: of it; None where none can.
      by: of `PICKS`, the rule that chose it: `majority` stands in for the others where
        nothing is scored. "" where none can win.
    """

    index: int | None
    by: str


def solution_scores(
    steps: Sequence[Sequence[str]],
    log_scores: Sequence[Float[np.ndarray, " _"]],
    aggregation: str,
) -> Float[np.ndarray, " N"]:
    """Log P(correct) of each candidate, NaN for what cannot win by it.

    That is a candidate without steps, and one that the verifier did not read to its
    end: the least of fewer scores would only be higher.

    Args:
      steps: of each candidate.
      log_scores: one a step, at most 0; NaN where unscored.
      aggregation: of `aggregate.AGGREGATIONS`.
    """
    totals = aggregate_lists(
        [np.nan_to_num(x, nan=0.0) for x in log_scores], aggregation
    )
    usable = [
        len(texts) > 0 and not np.isnan(row).any()
        for texts, row in zip(steps, log_scores, strict=True)
    ]
    return np.where(usable, totals, np.nan)


def choose(
    steps: Sequence[Sequence[str]],
    answers: Sequence[str | None],
    totals: Float[np.ndarray, " N"],
    how: str,
    same: Callable[[str, str], bool],
) -> Choice:
    """Chooses one of N candidates; ties go to the first.

    Args:
      steps: of each; a candidate without any never wins.
      answers: of each; None for none, which has no vote.
      totals: of `solution_scores`.
      how: "best", the highest score; "vote", the answer with the largest sum of
        probabilities; "majority", the most frequent answer. Of an answer that wins,
        the candidate is the best that is scored, else who speaks for it.
      same: whether an answer agrees with another, see `select.groups`.

    Returns:
      The choice. Where "best" finds nothing scored, or "vote" nothing scored that has
      an answer, it is that of the majority.
    """
    if how not in PICKS:
        raise ValueError(f"pick {how!r} is none of {', '.join(PICKS)}")
    scored = ~np.isnan(totals)
    if how == "best" and scored.any():
        return Choice(int(np.nanargmax(totals)), how)
    votes = [
        answer if texts else None for answer, texts in zip(answers, steps, strict=True)
    ]
    alike = groups(votes, same)
    if how == "vote":
        weights = np.where(scored, np.exp(np.where(scored, totals, 0.0)), np.nan)
        winner = heaviest(alike, weights)
        if winner is not None:
            return Choice(_best_of(alike, winner, totals), how)
    winner = heaviest(alike, np.ones(len(alike)))
    if winner is None:
        return Choice(None, "")
    return Choice(_best_of(alike, winner, totals), "majority")


def _best_of(
    groups: Sequence[int | None], group: int, totals: Float[np.ndarray, " N"]
) -> int:
    """The best scored member of a group; who speaks for it where none is scored."""
    members = [k for k, of in enumerate(groups) if of == group]
    scored = [k for k in members if not np.isnan(totals[k])]
    return max(scored, key=lambda k: totals[k], default=group)
