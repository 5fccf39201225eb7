"""Hard rows: R learns from the wrong steps that it believes most.

Whoever searches with R finds its mistakes, not its average. Learning from the share of
the drawn wrong steps with the highest score makes R's loss on them a conditional value
at risk of the distribution that they were drawn from (Rockafellar and Uryasev 2000)
instead of its mean; nothing more is drawn or asked of the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from aprm_jax.data.rows import StepRow


def hardest(
    rows: Sequence[StepRow | None],
    log_odds: Float[np.ndarray, " N"],
    count: int,
) -> list[int]:
    """Indices of the `count` distinct wrong rows that R believes most, best first.

    Log-odds and not probabilities, which round to 1 long before they stop to differ.

    Args:
      rows: one-step rows with a label; None where the oracle could not decide.
      log_odds: R's, that each is correct; ignored where the row is None.
      count: fewer are returned where there are fewer wrong rows with other tokens.
    """
    wrong = [i for i, row in enumerate(rows) if row is not None and row.labels[0] < 0.5]
    seen: set[bytes] = set()
    chosen: list[int] = []
    for i in sorted(wrong, key=lambda i: -float(log_odds[i])):
        if len(chosen) == count:
            break
        row = rows[i]
        assert row is not None
        if (tokens := row.tokens.tobytes()) not in seen:
            seen.add(tokens)
            chosen.append(i)
    return chosen


def hard_rows(
    rows: Sequence[StepRow],
    log_odds: Float[np.ndarray, " N"],
    count: int,
    share: float,
) -> list[StepRow]:
    """Cuts drawn wrong rows down to `count`, so that `share` of them are the hardest.

    Args:
      rows: in the order that they were drawn in; the rest is taken from the front.
      log_odds: R's, that each is correct.
      count: rows in all, at most `len(rows)`.
      share: of the hardest among them, in [0, 1].
    """
    hard = hardest(rows, log_odds, round(share * count))
    taken = set(hard)
    rest = [i for i in range(len(rows)) if i not in taken]
    return [rows[i] for i in [*hard, *rest[: max(0, count - len(hard))]]]
