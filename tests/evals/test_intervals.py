"""Intervals against closed forms, and their coverage on simulated truth."""

import math

import jaxtyping
import numpy as np
import pytest
import scipy.stats

from aprm_jax.evals import intervals


def test_bootstrap_matches_the_normal_interval():
    values = (np.arange(600) % 4 == 0).astype(float)
    result = intervals.bootstrap(values)
    stderr = math.sqrt(0.25 * 0.75 / 600)
    assert result.mean == 0.25
    assert result.stderr == pytest.approx(stderr, rel=0.03)
    assert result.low == pytest.approx(0.25 - 1.96 * stderr, abs=0.003)
    assert result.high == pytest.approx(0.25 + 1.96 * stderr, abs=0.003)
    assert result == intervals.bootstrap(values)
    assert result != intervals.bootstrap(values, seed=1)


def test_bootstrap_is_the_same_in_any_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = intervals.bootstrap(values, resamples=500)
    monkeypatch.setattr(intervals, "_CHUNK", 50 * 7)
    assert intervals.bootstrap(values, resamples=500) == whole


def test_pairs_are_narrower_than_strangers():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 500).astype(float)
    second = np.where(rng.uniform(size=500) < 0.1, 1 - first, first)
    paired = intervals.paired_difference(first, second)
    apart = intervals.paired_difference(first, rng.permutation(second))
    assert paired.mean == pytest.approx(apart.mean)
    assert paired.stderr < 0.6 * apart.stderr
    # The shape checks of the test run speak first.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
        intervals.paired_difference(first, second[1:])


def test_over_seeds_is_students_t():
    values = np.array([0.71, 0.74, 0.78, 0.70])
    result = intervals.over_seeds(values)
    test = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((test.low, test.high))
    assert result.stderr == pytest.approx(scipy.stats.sem(values))
    single = intervals.over_seeds(np.array([0.7]))
    assert single.mean == 0.7 and math.isnan(single.low) and math.isnan(single.stderr)


def test_one_seed_pools_to_the_bootstrap():
    values = np.random.default_rng(0).uniform(size=(1, 40))
    assert intervals.pooled(values) == intervals.bootstrap(values[0])


def test_pooled_separates_the_variances():
    # Balanced effects: the mean squares are known exactly.
    by_seed = np.array([-0.3, 0.1, 0.3, -0.1])
    by_problem = np.tile([-1.0, 1.0], 150)
    values = 0.5 + by_seed[:, None] + by_problem[None, :]
    result = intervals.pooled(values)
    variance = by_seed.var(ddof=1) / 4 + by_problem.var(ddof=1) / 300
    assert result.mean == pytest.approx(0.5)
    assert result.stderr**2 == pytest.approx(variance)
    # Other problems for each seed: the seeds are all there is.
    other = intervals.pooled(values, same_problems=False)
    assert other == intervals.over_seeds(values.mean(axis=1))


def test_pooled_without_seed_effect_is_the_interval_over_problems():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, 400).astype(float)
    same = intervals.pooled(np.stack([one, one, one]))
    alone = scipy.stats.ttest_1samp(one, 0.0).confidence_interval(0.95)
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high))
    flat = intervals.pooled(np.full((3, 5), 0.5))
    assert (flat.mean, flat.low, flat.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("spread", [0.0, 0.03])
def test_pooled_covers_the_truth(spread):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        skill = rng.normal(0.7, spread, size=(5, 1))
        hard = rng.normal(0.0, 0.15, size=(1, 200))
        values = rng.uniform(size=(5, 200)) < np.clip(skill + hard, 0, 1)
        got = intervals.pooled(values)
        hits += got.low <= 0.7 <= got.high
    assert 0.92 * 400 <= hits <= 0.99 * 400


@pytest.mark.parametrize("bad", [np.array([]), np.array([0.1, np.nan])])
def test_refuses(bad):
    with pytest.raises(ValueError):
        intervals.bootstrap(bad)


@pytest.mark.parametrize("count", [1, 12, 150])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_or_all_wrong_has_the_exact_interval_of_a_share(count, right):
    exact = scipy.stats.binomtest(int(right) * count, count).proportion_ci(0.95)
    several = np.full((3, count), right)
    results = [intervals.bootstrap(several[0])]
    if count > 1:
        results.append(intervals.pooled(several))
    for found in results:
        assert (found.mean, found.low, found.high) == pytest.approx((right, *exact))
    same = intervals.paired_difference(several[0], several[1])
    assert (same.low, same.high) == pytest.approx(
        (0.0, 0.0) if count > 1 else (math.nan, math.nan), nan_ok=True
    )


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_a_share_has_the_exact_interval(hits):
    exact = scipy.stats.binomtest(hits, 10).proportion_ci(0.95)
    found = intervals.share(np.arange(10) < hits)
    assert (found.mean, found.low, found.high) == pytest.approx((hits / 10, *exact))


def test_a_harmonic_mean_has_an_interval_from_those_of_its_parts():
    first = intervals.Interval(0.5, 0.25, 0.75)
    found = intervals.harmonic(first, intervals.Interval(1.0, 0.5, 1.0))
    assert (found.mean, found.low) == pytest.approx((2 / 3, 1 / 3))
    assert found.high == pytest.approx(6 / 7)
    none = intervals.Interval(0.0, 0.0, 0.25)
    assert intervals.harmonic(none, none) == none


def test_the_interval_of_a_harmonic_mean_covers_it():
    rng = np.random.default_rng(0)
    truth, hits = 2 * 0.97 * 0.6 / 1.57, 0
    for _ in range(300):
        parts = [intervals.share(rng.random(40) < p) for p in (0.97, 0.6)]
        found = intervals.harmonic(*parts)
        hits += found.low <= truth <= found.high
    assert hits >= 0.95 * 300


@pytest.mark.parametrize(("units", "known"), [(1, False), (2, False), (3, True)])
def test_a_statistic_that_few_resamples_have_has_no_interval(units, known):
    """Of units of a kind that there are few of, as wrong steps among right ones."""
    values = np.where(np.arange(100) < units, np.arange(100.0), math.nan)

    def mean(drawn):
        return np.array(
            [np.nanmean(row) if np.isfinite(row).any() else math.nan for row in drawn]
        )

    found = intervals.bootstrap_statistic(
        lambda drawn: mean(values[drawn]), 100, 0.5, resamples=2000
    )
    assert found.mean == 0.5
    assert math.isfinite(found.low) == math.isfinite(found.high) == known
    assert math.isfinite(found.stderr) == known


def test_a_statistic_that_all_resamples_agree_on_has_no_interval():
    found = intervals.bootstrap_statistic(lambda drawn: np.ones(len(drawn)), 4, 1.0)
    assert found.mean == 1.0
    assert math.isnan(found.low) and math.isnan(found.high)
    alone = intervals.bootstrap(np.array([0.7]))  # one problem
    assert alone.mean == 0.7 and math.isnan(alone.low)
