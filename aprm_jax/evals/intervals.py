"""Intervals for accuracies: over problems, over seeds, and over both.

Everything is seeded, so that a report built twice has the same numbers. Values are
per problem: 0/1, or expectations between.

Axes: K seeds, P problems.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Shaped

_CHUNK = 1 << 21  # resampled values held at a time: 16 MiB
# Of resamples, that the statistic must exist in. Of k units of a class 1 - exp(-k) of
# them hold any: below three the class's own variance is hardly in the interval.
_LEAST_DEFINED = 0.9


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `low` and `high` are NaN where unknown."""

    mean: float
    low: float
    high: float
    stderr: float = math.nan


def bootstrap(
    values: Shaped[np.ndarray, " P"],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over problems.

    Where all of them are right, or all wrong, no resample differs: the interval is then
    the exact one of a share (Clopper and Pearson, Biometrika 26, 1934).
    """
    values = _checked(values, 1)
    if (values == values[0]).all() and values[0] in (0.0, 1.0):
        return _of_none(len(values), bool(values[0]), level)
    return _resampled(values, level, resamples, seed)


def share(hits: Shaped[np.ndarray, " P"]) -> Interval:
    """The share of units that are hits with its 95 % interval, exact at any number.

    Clopper and Pearson's, whose tails have at most 2.5 % each. `hits`: of 0 and 1, one
    unit at least.
    """
    count, found = len(hits), int(np.sum(hits))
    exact = scipy.stats.binomtest(found, count).proportion_ci(0.95)
    return Interval(found / count, float(exact.low), float(exact.high))


def harmonic(first: Interval, second: Interval) -> Interval:
    """The harmonic mean of two shares, 0 where either is, from their own intervals.

    It grows with either. So it lies between that of their lower ends and that of their
    upper ends unless one of them lies beyond its own: where each tail of theirs has
    2.5 %, at least 95 % of the time, however they depend on each other.
    """
    ends = (
        _harmonic(getattr(first, end), getattr(second, end))
        for end in ("mean", "low", "high")
    )
    return Interval(*ends)


def _harmonic(first: float, second: float) -> float:
    total = first + second
    return 2 * first * second / total if total else 0.0


def _resampled(
    values: Float[np.ndarray, " P"], level: float, resamples: int, seed: int
) -> Interval:
    if len(values) > 1 and (values == values[0]).all():  # as of a method and itself
        same = float(values[0])
        return Interval(same, same, same, 0.0)
    return bootstrap_statistic(
        lambda drawn: values[drawn].mean(axis=1),
        len(values),
        float(values.mean()),
        level=level,
        resamples=resamples,
        seed=seed,
    )


def bootstrap_statistic(
    statistic: Callable[[Int[np.ndarray, "R P"]], Float[np.ndarray, " R"]],
    count: int,
    value: float,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of any statistic; resamples where it is NaN are left out.

    The ends are NaN where more than a tenth is left out, or where the rest agree, as of
    a single unit: then resamples do not say what else the data could have been.

    Args:
      statistic: of R resamples, each the indices of P units drawn with replacement.
      count: P, how many units there are: problems, or the questions of steps.
      value: the statistic of the data itself.
      level: coverage.
      resamples: how many.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // max(count, 1))
    drawn = [
        statistic(rng.integers(count, size=(size, count)))
        for size in _chunks(resamples, rows)
    ]
    found = np.concatenate(drawn)
    found = found[~np.isnan(found)]
    if len(found) < _LEAST_DEFINED * resamples or np.ptp(found) < 1e-12:
        return Interval(value, math.nan, math.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(value, float(low), float(high), float(found.std()))


def paired_difference(
    first: Shaped[np.ndarray, " P"],
    second: Shaped[np.ndarray, " P"],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Bootstrap of mean(first - second), problems resampled as pairs."""
    first, second = _checked(first, 1), _checked(second, 1)
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths: {len(first)}, {len(second)}")
    return _resampled(first - second, level, resamples, seed)


def over_seeds(values: Shaped[np.ndarray, " K"], *, level: float = 0.95) -> Interval:
    """Mean ± standard error over seeds, with Student's t-interval of K - 1 degrees.

    One seed has no standard error: it, `low` and `high` are NaN.
    """
    values = _checked(values, 1)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Interval(mean, math.nan, math.nan)
    stderr = float(values.std(ddof=1)) / math.sqrt(count)
    half = float(scipy.stats.t.ppf((1 + level) / 2, count - 1)) * stderr
    return Interval(mean, mean - half, mean + half, stderr)


def pooled(
    values: Shaped[np.ndarray, "K P"],
    *,
    same_problems: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over seeds and problems with an interval for both, for the final table.

    A two-way random-effects model: the variance of the mean is
    s²/K + p²/P + e²/(K P), its components taken from the mean squares, with a
    t-interval whose degrees of freedom are Satterthwaite's (Biometrics Bulletin 2,
    1946). A paired difference is `pooled(first - second)`. Why no resampling here: a
    bootstrap of both axes counts e² about three times (Owen 2007, "The pigeonhole
    bootstrap") and had 99.5 % coverage on simulated 0/1 values (600 problems, 3 or 5
    seeds) where this one had 96 %; with much variance between 3 seeds (4 points) this
    has 92 %, that 91 %.

    Args:
      values: one row of problems a seed. One row: `bootstrap` over its problems.
      same_problems: whether column p is the same problem for every seed. If not, the
        seeds are independent runs, and their means carry everything: `over_seeds`.
      level: coverage.
      seed: of the bootstrap that a single row gets.
    """
    values = _checked(values, 2)
    seeds, problems = values.shape
    if seeds == 1:
        return bootstrap(values[0], level=level, seed=seed)
    if not same_problems or problems == 1:
        return over_seeds(values.mean(axis=1), level=level)
    mean = float(values.mean())
    by_seed, by_problem = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_problem[None, :] + mean
    noise_freedom = (seeds - 1) * (problems - 1)
    seed_square = problems * float(by_seed.var(ddof=1))
    problem_square = seeds * float(by_problem.var(ddof=1))
    noise_square = float((rest**2).sum()) / noise_freedom
    # A component below the noise is zero, and adds no uncertainty of its own.
    terms = [
        (max(seed_square, noise_square), seeds - 1, seed_square > noise_square),
        (max(problem_square, noise_square), problems - 1, True),
        (-noise_square, noise_freedom, seed_square > noise_square),
    ]
    total = sum(square for square, _, _ in terms)
    if total <= 0:  # every value is the same
        if mean in (0.0, 1.0):
            return _of_none(problems, bool(mean), level)
        return Interval(mean, mean, mean, 0.0)
    freedom = total**2 / sum(s**2 / f for s, f, counts in terms if counts)
    stderr = math.sqrt(total / values.size)
    half = float(scipy.stats.t.ppf((1 + level) / 2, freedom)) * stderr
    return Interval(mean, mean - half, mean + half, stderr)


def _of_none(count: int, all_right: bool, level: float) -> Interval:
    """Of a share of 0 or 1 among some problems."""
    beyond = 1 - ((1 - level) / 2) ** (1 / count)
    if all_right:
        return Interval(1.0, 1 - beyond, 1.0, 0.0)
    return Interval(0.0, 0.0, beyond, 0.0)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _checked(values: np.ndarray, ndim: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != ndim or values.size == 0:
        raise ValueError(f"expected {ndim} axes and at least one value: {values.shape}")
    if np.isnan(values).any():
        raise ValueError("a value is NaN")
    return values
