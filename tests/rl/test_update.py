"""What a round of several updates says of itself."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.rl.update import over_updates
from aprm_jax.training.masked import MaxMetric, MeanMetric


def _found(kl, gap: float, norm: float, flag: float):
    most = MaxMetric(jnp.float32(gap))
    return {
        "policy/kl_token": MeanMetric.of(kl),
        "policy/drift_max": most,
        "policy/grad_norm": jnp.float32(norm),
        "nonfinite": jnp.float32(flag),
    }


def test_a_rounds_mean_is_of_all_tokens_and_its_maximum_the_largest():
    few, many = np.full(10, 3.0), np.full(1000, 1.0)
    metrics = over_updates([_found(few, 0.5, 1.0, 1.0), _found(many, 0.25, 3.0, 0.0)])
    assert metrics["policy/kl_token"] == pytest.approx((10 * 3 + 1000) / 1010)
    assert metrics["policy/drift_max"] == 0.5
    assert metrics["policy/grad_norm"] == 2.0 and metrics["nonfinite"] == 1.0


def test_what_an_update_does_not_know_counts_nothing():
    nothing = MeanMetric.of(np.ones(3), np.zeros(3))
    broken = MeanMetric.of(np.array([np.nan, 1.0]))
    known = MeanMetric.of(np.array([2.0, 4.0]))
    for other in (nothing, broken):
        for found in ([other, known], [known, other]):
            assert over_updates([{"x": metric} for metric in found])["x"] == 3.0
        assert np.isnan(over_updates([{"x": other}])["x"])
