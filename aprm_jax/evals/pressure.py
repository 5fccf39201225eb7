"""Evaluator of pressure: what is left of a verifier when it is searched harder.

The accuracy of best-of-N rises with N as long as what the verifier prefers is better,
and falls where the search finds its mistakes (over-optimisation; Gao et al. 2022,
arXiv 2210.10760). What wins at the largest N and is wrong shows these mistakes.

Axes: P problems, M samples of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from aprm_jax.evals import intervals
from aprm_jax.evals.records import Record, metric_records
from aprm_jax.evals.selection import Method

SET, WINNERS = "pressure", "winners"
UNEXPLAINED = "no_wrong_step"  # of a winner whose steps the oracle finds no fault in


def pressure_records(
    split: str,
    rows: Mapping[Method, Float[np.ndarray, " P"]],
    verifiers: Sequence[str],
    aggregations: Sequence[str],
    sizes: Sequence[int],
    resamples: int,
    part: str = "",
) -> list[Record]:
    """`HOW.peak`, the N of the highest accuracy, and `HOW.fall` from there.

    The fall is from the peak to the largest N, with an interval over problems; it is
    never negative, for the peak is chosen on the same problems.

    Args:
      split: of the problems.
      rows: accuracy of each problem by method, of `selection.table`.
      verifiers: whose curves.
      aggregations: of step scores, HOW above.
      sizes: the N, ascending.
      resamples: of the intervals.
      part: the solver, where it is another than the run's own.
    """
    records: list[Record] = []
    for verifier in verifiers:
        for how in aggregations:
            curve = np.stack([rows[verifier, f"{how}@{n}"] for n in sizes])
            peak = int(np.argmax(curve.mean(axis=1)))
            fall = intervals.paired_difference(
                curve[peak], curve[-1], resamples=resamples
            )
            values = {f"{how}.peak": float(sizes[peak]), f"{how}.fall": fall}
            records += metric_records(SET, split, verifier, values, part)
    return records


def wrong_winners(
    totals: Float[np.ndarray, "P M"], correct: Bool[np.ndarray, "P M"]
) -> list[tuple[int, int]]:
    """(problem, sample) of each best of M that is wrong; the first of equals wins.

    Args:
      totals: solution scores, -inf for what never wins.
      correct: whether each sample is right.
    """
    best = np.argmax(totals, axis=1)
    return [
        (p, int(m))
        for p, m in enumerate(best)
        if totals[p, m] > -np.inf and not correct[p, m]
    ]


def winner_records(
    split: str, verifier: str, kinds: Sequence[str], problems: int, part: str = ""
) -> list[Record]:
    """How many wrong winners there are, by the kind of their first wrong step.

    Args:
      split: of the problems.
      verifier: who chose them.
      kinds: one a wrong winner.
      problems: how many were solved.
      part: as of `pressure_records`.
    """
    name = f"{split}, {part}" if part else split
    records = metric_records(WINNERS, name, verifier, {"wrong": len(kinds) / problems})
    for kind, count in sorted(Counter(kinds).items()):
        records += metric_records(
            WINNERS, name, verifier, {"count": float(count)}, part=kind
        )
    return records


def zero_counts(records: Iterable[Record], others: Iterable[Record]) -> list[Record]:
    """The counts of 0 that `winner_records` has no record of.

    Args:
      records: what was measured.
      others: whose wrong winners have the kinds that are counted: other verifiers or
        other seeds, `records` itself with them.
    """
    records = list(records)
    known = {record.key for record in records}
    kinds = dict.fromkeys((r.split, r.part) for r in others if _is_count(r))
    zeros = [
        Record(WINNERS, r.split, r.verifier, "count", 0.0, part=kind)
        for r in records
        if (r.set, r.metric) == (WINNERS, "wrong")
        for split, kind in kinds
        if split == r.split
    ]
    return [record for record in zeros if record.key not in known]


def _is_count(record: Record) -> bool:
    return (record.set, record.metric) == (WINNERS, "count")
