"""The shape of a curve, as numbers: slope, plateau, crossing, divergence, swings.

Pure functions of arrays, for the rules of the doctor and for reading a plot out in words. Points
that are not finite are left out by all of them; `x` must ascend.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from pyspectra.errors import ArgumentValueError
from pyspectra.training.valley import valley

__all__ = [
    "Crossing",
    "Divergence",
    "Plateau",
    "Slope",
    "best_index",
    "crossings",
    "divergence",
    "finite_points",
    "last_window",
    "plateau",
    "slope",
    "swings",
]

Floats = NDArray[np.float64]
Better = Literal["lower", "higher"]


def finite_points(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Return the points that are finite in both coordinates, as float64."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(xs) & np.isfinite(ys)
    return xs[kept], ys[kept]


def last_window(n: int, *, least: int = 5, share: float = 0.2) -> int:
    """Return how many of the last of `n` points are looked at: a share of them, or `least`."""
    return max(least, math.ceil(share * n))


# --- slope --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slope:
    """A slope with the interval that it is in.

    Attributes
    ----------
    value : float
        Change for one unit of `x`: of the logarithm, so relative, or of the values themselves.
    low, high : float
        Ends of its confidence interval; infinite for two points.
    n : int
        Points that it rests on.
    """

    value: float
    low: float
    high: float
    n: int


def slope(
    x: ArrayLike, y: ArrayLike, *, log: bool = True, confidence: float = 0.95
) -> Slope | None:
    """Fit a line by least squares.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        The points.
    log : bool
        Fit the logarithm of `y`, so that the slope is a relative change; it needs positive values.
    confidence : float
        Confidence level of the interval.

    Returns
    -------
    Slope or None
        None if there are fewer than two points, `x` is constant, or a logarithm does not exist.

    Notes
    -----
    The interval is that of independent normal errors, with Student's t on n - 2 degrees of freedom.

    Examples
    --------
    >>> round(slope([1, 2, 3], [1.0, 0.9, 0.81]).value, 4)  # 10 % less each time
    -0.1054
    """
    xs, ys = finite_points(x, y)
    if len(xs) < 2 or np.ptp(xs) == 0 or (log and np.any(ys <= 0)):
        return None
    if log:
        ys = np.log(ys)
    centred = xs - xs.mean()
    spread = float(centred @ centred)
    value = float(centred @ ys) / spread
    n = len(xs)
    if n == 2:
        return Slope(value, -math.inf, math.inf, n)
    errors = ys - ys.mean() - value * centred
    half = float(stdtrit(n - 2, 0.5 + confidence / 2)) * math.sqrt(
        float(errors @ errors) / (n - 2) / spread
    )
    return Slope(value, value - half, value + half, n)


@dataclass(frozen=True)
class Plateau:
    """The flat end of a curve.

    Attributes
    ----------
    since : float
        Where in `x` the flat stretch begins.
    level : float
        Mean of its values.
    slope : Slope
        Slope of its last window.
    """

    since: float
    level: float
    slope: Slope


def plateau(
    x: ArrayLike, y: ArrayLike, *, band: float = 0.005, window: int | None = None, log: bool = True
) -> Plateau | None:
    """Find the flat stretch at the end of a curve.

    The last `window` points are flat if the whole confidence interval of their slope lies within
    plus and minus `band`; the stretch goes back as long as that is so of every window in it.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        The curve.
    band : float
        Change for one unit of `x` that counts as none: 0.005 is half a per cent an epoch.
    window : int, optional
        Points at the end that are looked at: a fifth of them, but 5 at least, by default.
    log : bool
        Judge the relative change; False for metrics from 0 to 1, judged by their points.

    Returns
    -------
    Plateau or None
        None if the end is not flat, or there are too few points.
    """
    xs, ys = finite_points(x, y)
    size = last_window(len(xs)) if window is None else window
    if len(xs) < max(size, 3):
        return None
    last = _flat_slope(xs[-size:], ys[-size:], band, log)
    if last is None:
        return None
    start = len(xs) - size
    # Window by window: the slope over all of it is small for a valley too.
    while start > 0:
        earlier = slice(start - 1, start - 1 + size)
        if _flat_slope(xs[earlier], ys[earlier], band, log) is None:
            break
        start -= 1
    return Plateau(float(xs[start]), float(ys[start:].mean()), last)


def _flat_slope(x: Floats, y: Floats, band: float, log: bool) -> Slope | None:
    fitted = slope(x, y, log=log)
    flat = fitted is not None and -band <= fitted.low and fitted.high <= band
    return fitted if flat else None


# --- two curves ---------------------------------------------------------------------------------


def best_index(y: ArrayLike, better: Better = "lower") -> int:
    """Return the index of the best finite value, the first of equal ones.

    Raises
    ------
    ValueError
        If no value is finite.
    """
    values = np.asarray(y, dtype=np.float64)
    if not np.isfinite(values).any():
        raise ArgumentValueError("best_index", "y", "have a finite value", "none")
    signed = values if better == "lower" else -values
    return int(np.argmin(np.where(np.isfinite(values), signed, np.inf)))


@dataclass(frozen=True)
class Crossing:
    """Where one curve goes through the other.

    Attributes
    ----------
    x, y : float
        The point, between two of the curves' own.
    upward : bool
        Whether the second curve is above the first afterwards.
    """

    x: float
    y: float
    upward: bool


def crossings(x: ArrayLike, first: ArrayLike, second: ArrayLike) -> list[Crossing]:
    """Return where the second curve crosses the first; touching is no crossing.

    Parameters
    ----------
    x, first, second : array-like of float, shape (n,)
        Two curves at the same places.

    Returns
    -------
    list of Crossing
        The crossings, in order.

    Examples
    --------
    >>> crossings([1, 2], [3.0, 1.0], [1.0, 3.0])
    [Crossing(x=1.5, y=2.0, upward=True)]
    """
    xs, a, b = (np.asarray(values, dtype=np.float64) for values in (x, first, second))
    kept = np.isfinite(xs) & np.isfinite(a) & np.isfinite(b)
    xs, a, gaps = xs[kept], a[kept], b[kept] - a[kept]
    found = []
    apart = np.flatnonzero(gaps)  # where the curves touch, the sides before and after tell
    for i, j in itertools.pairwise(apart):
        if gaps[i] * gaps[j] < 0:
            share = gaps[i] / (gaps[i] - gaps[j])
            at = xs[i] + share * (xs[j] - xs[i])
            found.append(Crossing(float(at), float(np.interp(at, xs, a)), bool(gaps[j] > 0)))
    return found


@dataclass(frozen=True)
class Divergence:
    """A validation curve that got worse again while training went on.

    Attributes
    ----------
    best_x, best : float
        Where it was best, and how good: the second best value, since one may be lucky, of four or
        fewer the best.
    worse_by : float
        How much worse the last value is, in units of the metric.
    limit : float
        What is more than chance: the greater of a share of the best, of standard errors, and of as
        many standard deviations of the curve around the valley that fits it.
    since : float
        The first of the evaluations at the end that are all worse by more than that.
    n : int
        How many those are.
    train_improves : bool
        Whether the training curve got no worse since the best evaluation.
    """

    best_x: float
    best: float
    worse_by: float
    limit: float
    since: float
    n: int
    train_improves: bool


def divergence(
    x: ArrayLike,
    train: ArrayLike | None,
    val: ArrayLike,
    *,
    better: Better = "lower",
    share: float = 0.05,
    val_se: ArrayLike | None = None,
    n_se: float = 3.0,
) -> Divergence | None:
    """Find whether the end of a validation curve is worse than its best by more than chance.

    A gap between training and validation alone is none: only what was better before counts.

    Parameters
    ----------
    x, train, val : array-like of float, shape (n,)
        The curves at the same places; `train` may be None or hold NaN.
    better : {"lower", "higher"}
        Which way is better.
    share : float
        Share of the best value that is allowed for.
    val_se : array-like of float, shape (n,), optional
        Standard errors of `val`, of which `n_se` are allowed for; NaN where unknown.
    n_se : float
        How many standard errors are allowed for.

    Returns
    -------
    Divergence or None
        None if the last value is no worse than that.

    See Also
    --------
    pyspectra.training.valley.valley : what the curve is held against
    """
    xs, values = np.asarray(x, dtype=np.float64), np.asarray(val, dtype=np.float64)
    errors = np.zeros_like(values) if val_se is None else np.asarray(val_se, dtype=np.float64)
    others = np.full_like(values, np.nan) if train is None else np.asarray(train, dtype=np.float64)
    kept = np.isfinite(xs) & np.isfinite(values)
    xs, values, errors, others = xs[kept], values[kept], np.nan_to_num(errors[kept]), others[kept]
    if len(xs) < 2:
        return None
    sign = 1.0 if better == "lower" else -1.0
    fitted = valley(sign * values)
    best, low = fitted.bottom, sign * fitted.low
    limit = max(share * abs(low), n_se * max(float(errors[-1]), fitted.scatter))
    worse = sign * (values - low)
    within = np.flatnonzero(worse <= limit)
    last_within = max(best, int(within[-1]) if len(within) else best)
    n = len(xs) - 1 - last_within
    if n == 0:
        return None
    after = sign * others[best:]
    after = after[np.isfinite(after)]
    improves = len(after) >= 2 and bool(after[-1] <= after[0])
    return Divergence(
        best_x=float(xs[best]),
        best=low,
        worse_by=float(worse[-1]),
        limit=limit,
        since=float(xs[-n]),
        n=n,
        train_improves=improves,
    )


# --- swings -------------------------------------------------------------------------------------


def swings(y: ArrayLike, least: float) -> list[tuple[int, int]]:
    """Return the pairs of neighbouring extrema that differ by `least` or more, as indices.

    Smaller ups and downs on the way from one extremum to the next are passed over.

    Examples
    --------
    >>> swings([0.5, 0.8, 0.79, 0.81, 0.6], least=0.1)
    [(0, 3), (3, 4)]
    """
    values = np.asarray(y, dtype=np.float64)
    indices = [int(i) for i in np.flatnonzero(np.isfinite(values))]
    if not indices or least <= 0:
        return []
    turns: list[int] = []
    low = high = indices[0]
    rising: bool | None = None
    for i in indices[1:]:
        if rising is not False and values[i] > values[high]:
            high = i
        if rising is not True and values[i] < values[low]:
            low = i
        if rising is not False and values[high] - values[i] >= least:
            turns.append(high)
            rising, low = False, i
        elif rising is not True and values[i] - values[low] >= least:
            turns.append(low)
            rising, high = True, i
    if rising is not None:
        turns.append(high if rising else low)
    return list(itertools.pairwise(turns))
