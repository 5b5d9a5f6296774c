"""WeightWatcher 0.7.7's Marchenko-Pastur fit, number for number.

It fits the density of the normalised eigenvalues e = lambda n / sum(lambda) (of their square roots
and the quarter circle for square matrices) by least squares over the scale s alone. The density is
a kernel estimate that does not depend on s: it is built once here. For narrow laws the residual is
jagged, so that the order of operations is WeightWatcher's too.
"""

from __future__ import annotations

import math

import numpy as np

from pyspectra.types import FloatArray

BANDWIDTH = 0.1
GRID = 1000
GRID_MARGIN = 0.5
LOWEST_DENSITY = 0.01  # grid points with less are left out
REFUSED = 1000.0  # residual at every point where the law does not cover the peak
SCALES = (0.05, 2.0, 0.01)  # brute force: from, to, step in units of the first guess

# Where the kernel estimate has a plateau, rounding would decide which of its points is the peak;
# WeightWatcher takes the first.
PEAK_RTOL = 1e-12


def fit_scale(e: FloatArray, Q: float) -> float:
    """Scale s of the law that fits best.

    Parameters
    ----------
    e : ndarray of float64, shape (n,)
        Ascending eigenvalues of mean one.
    Q : float
        N / M.
    """
    from scipy.optimize import fmin

    root = math.sqrt(1.0 / Q)
    x, y, peak = _density(np.sqrt(e) if Q == 1.0 else e)

    positive = np.where(x > 0.0, x, 1.0)  # at zero the law has no height to divide

    def cost(scale: FloatArray) -> FloatArray:
        s = scale[..., None]
        if Q == 1.0:
            law = 1.0 / (math.pi * s * s) * np.sqrt(np.maximum(4.0 - x**2, 0.0))
            return np.asarray(np.sum((law - y) ** 2, axis=-1))
        a, b = (s * (1.0 - root)) ** 2, (s * (1.0 + root)) ** 2
        height = np.sqrt(np.maximum((b - x) * (x - a), 0.0))
        law = 1.0 / (2.0 * math.pi * s * s * positive * (1.0 / Q)) * height
        residual = np.sum((law - y) ** 2, axis=-1)
        refused = (b < peak) | (b > x[-1]) | (a > peak)
        return np.where(refused[..., 0], len(x) * REFUSED**2, residual)

    guess = math.sqrt(e[-1] / (1.0 + 1.0 / math.sqrt(Q)) ** 2)
    start, stop, step = (v * guess for v in SCALES)
    count = math.ceil((stop - start) / step)
    scales: FloatArray = step * np.arange(count, dtype=np.float64) + start
    best = scales[np.argmin(cost(scales))]
    return float(fmin(lambda p: float(cost(p)[0]), [best], disp=False)[0])


def edge_width(edge: float, Q: float, M: int) -> float:
    """How far above the edge (normalised) an eigenvalue must lie to count as a spike."""
    return float(math.sqrt(edge ** (2.0 / 3.0) * M ** (-2.0 / 3.0) / math.sqrt(Q)))


def _density(x: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Points, triangular kernel estimate there, and the point where it is largest.

    By sums of the sorted x below each point: O(n + GRID log n) and no pass over pairs.
    """
    grid = np.linspace(0.0, x[-1] + GRID_MARGIN, GRID)
    sums = np.concatenate(([0.0], np.cumsum(x)))
    low = np.searchsorted(x, grid - BANDWIDTH)
    middle = np.searchsorted(x, grid)
    high = np.searchsorted(x, grid + BANDWIDTH, side="right")
    below = (middle - low) * (BANDWIDTH - grid) + (sums[middle] - sums[low])
    above = (high - middle) * (BANDWIDTH + grid) - (sums[high] - sums[middle])
    density = (below + above) / (len(x) * BANDWIDTH**2)
    peak = grid[np.argmax(density >= np.max(density) * (1.0 - PEAK_RTOL))]
    dense = density > LOWEST_DENSITY
    return grid[dense], density[dense], float(peak)
