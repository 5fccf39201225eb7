"""Learning-rate schedules."""

from __future__ import annotations

import optax


def warmup_cosine(peak: float, warmup: int, total: int) -> optax.Schedule:
    """Linear warm-up from 0, then a cosine down to a tenth of the peak.

    Args:
      peak: the greatest rate.
      warmup: updates on the way up to it; with none the first update has the peak.
      total: updates in all. A single one has the peak, for it would learn nothing at 0.
    """
    if warmup < 1 or total <= 1:
        return optax.cosine_decay_schedule(peak, max(1, total), alpha=0.1)
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, warmup, max(total, warmup + 1), end_value=0.1 * peak
    )
