"""The valley that a validation curve goes through: falling, then rising."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pyspectra.types import FloatArray

MOST_POINTS = 200


@dataclass(frozen=True)
class Valley:
    """A curve that falls to a bottom and rises from there, fitted by least squares.

    Attributes
    ----------
    bottom : int
        Index of the lowest value of the curve within the lowest stretch of the fit.
    low : float
        The second lowest value of the curve, since one may be lucky; of four or fewer the lowest.
    scatter : float
        Standard deviation of the curve around the fit.
    """

    bottom: int
    low: float
    scatter: float


def valley(y: ArrayLike) -> Valley:
    """Fit a curve that falls first and then rises.

    Parameters
    ----------
    y : array-like of float, shape (n,)
        Finite values. Of more than 200 the last 200 are fitted.

    Returns
    -------
    Valley

    Notes
    -----
    For each place of the bottom the two sides are isotonic regressions, by pooling adjacent
    violators; the place with the least sum of squares is taken. The scatter counts as many degrees
    of freedom as the fit has levels.

    Examples
    --------
    >>> valley([3.0, 1.2, 0.8, 1.0, 2.0, 4.0])
    Valley(bottom=2, low=1.0, scatter=0.0)
    """
    every = np.asarray(y, dtype=np.float64)
    skipped = max(len(every) - MOST_POINTS, 0)
    values = every[skipped:]
    best = math.inf
    fit = values
    for k in range(len(values) + 1):
        sides = np.concatenate([_rising(values[:k][::-1])[::-1], _rising(values[k:])])
        squares = float(((values - sides) ** 2).sum())
        if squares < best:
            best, fit = squares, sides
    members = np.flatnonzero(fit == fit.min())
    free = max(len(values) - len(np.unique(fit)), 1)
    bottom = int(members[np.argmin(values[members])]) + skipped
    low = float(np.sort(values)[1 if len(values) > 4 else 0])
    return Valley(bottom, low, math.sqrt(best / free))


def _rising(values: FloatArray) -> FloatArray:
    """Return the rising sequence that is nearest by least squares."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            n = counts[-2] + counts[-1]
            means[-2] += (means[-1] - means[-2]) * counts[-1] / n
            counts[-2] = n
            means.pop()
            counts.pop()
    return np.repeat(means, counts).astype(np.float64)
