"""Learning-rate schedules."""

from __future__ import annotations

import optax


def warmup_cosine(peak: float, warmup: int, total: int) -> optax.Schedule:
    """Linear warm-up from 0, then a cosine down to a tenth of the peak."""
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, max(1, warmup), max(total, warmup + 1), end_value=0.1 * peak
    )
