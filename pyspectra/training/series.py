"""Statistics of values in the order in which they came: trend, bouncing, outliers, smoothing.

Pure functions of arrays. Values that are not finite are left out by all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from pyspectra.training.curves import Floats, finite_points, slope

__all__ = ["Trend", "autocorrelation", "detrended", "mann_kendall", "robust_z", "smoothed"]


@dataclass(frozen=True)
class Trend:
    """Result of the test of Mann and Kendall for a monotonic trend.

    Attributes
    ----------
    S : int
        Pairs that rise less pairs that fall.
    p_value : float
        Two-sided: how often curves without a trend have an S so far from 0.
    """

    S: int
    p_value: float


def mann_kendall(y: ArrayLike) -> Trend:
    """Test whether values rise or fall in the order in which they stand.

    Parameters
    ----------
    y : array-like of float, shape (n,)
        The values.

    Returns
    -------
    Trend
        The result, from the exact distribution of S up to 30 values without ties, and from the
        normal one beyond.

    References
    ----------
    H. B. Mann, "Nonparametric tests against trend", Econometrica 13 (1945); M. G. Kendall, "Rank
    correlation methods" (1975), for the variance with ties.
    """
    values = np.asarray(y, dtype=np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return Trend(0, 1.0)
    S = int(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    counts = np.unique(values, return_counts=True)[1]
    if n <= 30 and len(counts) == n:
        return Trend(S, _exact_p(n, abs(S)))
    ties = float((counts * (counts - 1) * (2 * counts + 5)).sum())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    if variance <= 0 or S == 0:
        return Trend(S, 1.0)
    z = (abs(S) - 1) / math.sqrt(variance)  # corrected for continuity
    return Trend(S, float(min(1.0, 2 * ndtr(-z))))


def _exact_p(n: int, extreme: int) -> float:
    """Return the share of permutations with ``|S| >= extreme``: S = n (n-1) / 2 - 2 inversions."""
    inversions = [1]  # how many permutations have 0, 1, 2 ... of them
    for size in range(2, n + 1):
        longer = [0] * (len(inversions) + size - 1)
        for shift in range(size):
            for k, count in enumerate(inversions):
                longer[k + shift] += count
        inversions = longer
    most = n * (n - 1) // 2
    hits = sum(count for k, count in enumerate(inversions) if abs(most - 2 * k) >= extreme)
    return hits / math.factorial(n)


def detrended(x: ArrayLike, y: ArrayLike) -> Floats:
    """Return what a straight line leaves of a curve, without the points that are not finite."""
    xs, ys = finite_points(x, y)
    fitted = slope(xs, ys, log=False)
    rest: Floats = ys - ys.mean() if len(ys) else ys
    return rest if fitted is None else rest - fitted.value * (xs - xs.mean())


def autocorrelation(y: ArrayLike, lag: int = 1) -> float:
    """Return the correlation of neighbouring values: -1 where they bounce up and down in turn.

    Parameters
    ----------
    y : array-like of float, shape (n,)
        A curve without a trend: see `detrended`.
    lag : int
        How far apart neighbours are.

    Returns
    -------
    float
        NaN if there are too few finite values, or they are all equal.
    """
    values = np.asarray(y, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) <= lag + 1:
        return math.nan
    values = values - values.mean()
    power = float(values @ values)
    return float(values[lag:] @ values[:-lag]) / power if power > 0 else math.nan


def robust_z(value: float, past: ArrayLike) -> float:
    """Return how far a value is from the median of others, in units of their robust spread.

    The spread is 1.4826 times the median absolute deviation: the standard deviation, if normal.
    Where that is 0, the result is infinite with the sign of the difference, or 0.
    """
    values = np.asarray(past, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    if spread > 0:
        return (value - middle) / spread
    return 0.0 if value == middle else math.copysign(math.inf, value - middle)


def smoothed(x: ArrayLike, y: ArrayLike, half_life: float) -> Floats:
    """Return the exponential moving average, corrected for its start.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        The curve; where `y` is not finite, so is the result, and the average goes on after it.
    half_life : float
        Distance in `x` after which a point weighs half as much.

    Returns
    -------
    ndarray of float64, shape (n,)
        The average, to look at: it lags behind the curve, so nothing is measured on it.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    averages = np.full_like(ys, np.nan)
    total = weight = 0.0
    before = math.nan
    for i in np.flatnonzero(np.isfinite(xs) & np.isfinite(ys)):
        faded = 0.0 if math.isnan(before) else 0.5 ** ((xs[i] - before) / half_life)
        total, weight = faded * total + ys[i], faded * weight + 1.0
        averages[i] = total / weight
        before = xs[i]
    return averages
