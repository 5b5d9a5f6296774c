"""The Tracy-Widom law and the largest eigenvalue of an iid random matrix.

References
----------
Ferrari, Spohn, "A determinantal formula for the GOE Tracy-Widom distribution", J. Phys. A 38
(2005): F1(s) = det(1 - B) with B(x, y) = Ai(x + y + s) on (0, inf).
Bornemann, "On the numerical evaluation of Fredholm determinants", Math. Comp. 79 (2010).
Johnstone, "On the distribution of the largest eigenvalue in principal components analysis",
Ann. Stat. 29 (2001). Ma, "Accuracy of the Tracy-Widom limits for the extreme eigenvalues in white
Wishart matrices", Bernoulli 18 (2012): the same constants with sides less 1/2.
Nadler, "On the distribution of the ratio of the largest eigenvalue to the trace of a Wishart
matrix", J. Multivariate Anal. 102 (2011).
"""

from __future__ import annotations

import functools
import math

import numpy as np

from pyspectra.spectra.special import airy_ai
from pyspectra.spectra.tracy_widom_table import PIECES
from pyspectra.types import FloatArray

MEAN = -1.2065335745820
VARIANCE = 1.607781034581

# Gauss-Legendre nodes: 36 leave nothing to improve at double precision from s = -8 on, below which
# the law has less than 2e-12 of its mass. From EASY on, 24 are right to 3e-10 of the survival.
NODES = 36
EASY, FEW_NODES = -1.0, 24
LOWEST = -8.0
# Above it the tail, exp(-2/3 s^1.5), is below the smallest float64.
HIGHEST = 110.0
# Ai(16) is 4e-20: the kernel has ended where its argument exceeds this.
AIRY_END = 16.0


@functools.cache
def _nodes(count: int) -> tuple[FloatArray, FloatArray]:
    x, weights = np.polynomial.legendre.leggauss(count)
    return (x + 1.0) / 2.0, np.sqrt(weights / 2.0)


def survival(s: float) -> float:
    """P(TW1 > s), with full relative accuracy in the upper tail."""
    if s <= LOWEST:
        return 1.0
    for low, high, is_log, coefficients in PIECES:
        if low <= s < high:
            found = _chebyshev((2.0 * s - low - high) / (high - low), coefficients)
            return math.exp(found) if is_log else min(found, 1.0)
    return _by_determinant(s)


def _chebyshev(x: float, coefficients: tuple[float, ...]) -> float:
    """Sum the series by Clenshaw's recurrence."""
    one = two = 0.0
    for c in coefficients[:0:-1]:
        one, two = 2.0 * x * one - two + c, one
    return x * one - two + coefficients[0]


def _by_determinant(s: float) -> float:
    """P(TW1 > s) from its definition: a millisecond."""
    if s >= HIGHEST:
        return 0.0
    length = max(AIRY_END - s, 4.0)
    x, root = _nodes(FEW_NODES if s >= EASY else NODES)
    # Airy's function is the cost, and the kernel is symmetric: eigvalsh reads the lower triangle.
    i, j = np.tril_indices(len(x))
    kernel = np.zeros((len(x), len(x)))
    kernel[i, j] = airy_ai(length * (x[i] + x[j]) + s) * root[i] * root[j] * length
    # Through the eigenvalues, since one minus a determinant near one has no digits left.
    return float(-np.expm1(np.sum(np.log1p(-np.linalg.eigvalsh(kernel)))))


@functools.cache
def quantile(tail: float) -> float:
    """Return s with P(TW1 > s) = `tail`, for `tail` in [1e-12, 1 - 1e-9]."""
    from scipy.optimize import brentq

    log_tail = math.log(tail)
    return float(brentq(lambda s: math.log(survival(s)) - log_tail, -7.5, 20.0, xtol=1e-10))


def largest_eigenvalue_scale(N: int, M: int, *, df: float) -> tuple[float, float]:
    """Centre and scale of lambda_max over the mean square of the entries, standard TW1.

    Parameters
    ----------
    N, M : int
        Sides of the random matrix.
    df : float
        Entries over which the mean square is taken: all matrices of the layer together.

    Notes
    -----
    lambda_max alone: ``(a + b)^2`` and ``(a + b) (1/a + 1/b)^(1/3)`` with a, b the square roots of
    ``N - 1/2`` and ``M - 1/2`` (Ma 2012). Dividing by the mean square t of the entries takes away
    its fluctuation; the quotient is independent of t for Gaussian entries, so that its variance
    follows from that of lambda_max and ``E t^2 = 1 + 2 / df`` exactly (Nadler 2011 expands this).
    """
    a, b = math.sqrt(N - 0.5), math.sqrt(M - 0.5)
    centre, scale = (a + b) ** 2, (a + b) * (1.0 / a + 1.0 / b) ** (1.0 / 3.0)
    mean = centre + scale * MEAN
    variance = scale**2 * VARIANCE
    reduced = (variance + mean**2) / (1.0 + 2.0 / df) - mean**2
    scale *= math.sqrt(max(reduced, 0.0) / variance)
    return mean - scale * MEAN, scale
